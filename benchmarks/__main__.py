"""`python -m benchmarks [names] [--quick] [--rounds n]`: run the cases and print their figures."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import operator, queue, submit, webhooks, worker
from benchmarks.report import Figure, Options, describe_machine, format_figures, judge, say

Case = Callable[[Options, Path], Iterable[Figure]]

CASES: dict[str, Case] = {
    "worker": worker.run,
    "queue": queue.run,
    "submit": submit.run,
    "webhooks": webhooks.run,
    "operator": operator.run,
}


ASKED_FOR = {"operator"}  # what needs more than `make setup` brings


def main() -> None:
    arguments = _parse_arguments()
    options = Options(quick=arguments.quick, rounds=arguments.rounds, only=arguments.only)
    print(f"date      {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{', --quick' if options.quick else ''}")
    for line in describe_machine():
        print(line)
    missed: list[str] = []
    failing = {"missed"} if options.only else {"missed", "not measured"}
    for name in arguments.names or [name for name in CASES if name not in ASKED_FOR]:
        say(f"{name} …")
        with tempfile.TemporaryDirectory(prefix="encoder-bench-") as folder:
            figures = list(CASES[name](options, Path(folder)))
            missed += [figure.name for figure in figures if judge(figure) in failing]
        print(f"\n{name}")
        for line in format_figures(figures):
            print(line, flush=True)
    if arguments.check and missed:
        raise SystemExit(f"not where the goals want them: {'; '.join(missed)}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *CASES], metavar="name",
                        help=f"{', '.join(CASES)}; all when none is named")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    parser.add_argument("--rounds", type=int, help="instead of each case's own number")
    parser.add_argument(
        "--only", metavar="part", help="of `worker` and `operator`: parts called so"
    )
    parser.add_argument("--check", action="store_true", help="end with 1 when a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
