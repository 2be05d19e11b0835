"""`encoder fsck`: say which rows break a rule of the record, and put them right."""

from __future__ import annotations

import json

from encoder_cli.processes import opened_store
from encoder_db.fsck import Finding, fsck


def run_fsck(*, repair: bool, as_json: bool) -> bool:
    """Print what is found. Whether everything is right now."""
    with opened_store() as store:
        report = fsck(store, repair=repair)
    if as_json:
        found = [finding.to_json() for finding in report.findings]
        print(json.dumps({"jobs": report.jobs, "findings": found}))
        return report.is_clean
    for finding in report.findings:
        print(_line(finding, repair=repair))
    broken = sum(not finding.repaired for finding in report.findings)
    print(
        f"jobs looked at: {report.jobs}, rules broken: {len(report.findings)}"
        + (f", not repaired: {broken}" if repair else "")
    )
    if broken and not repair:
        print("`encoder fsck --repair` puts right what docs/states.md says it can")
    return report.is_clean


def _line(finding: Finding, *, repair: bool) -> str:
    where = f"job {finding.job_id}" + (f" in {finding.table}" if finding.table else "")
    done = (": repaired" if finding.repaired else ": NOT repaired") if repair else ""
    return f"{where}: {finding.rule}{done}. {finding.says}"
