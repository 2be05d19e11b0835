"""
`mysqld` itself is killed at each step of a job's whole life, and everybody else lives on.

Right after it is back every rule of the record holds; then who was cut off does its part again,
with the connections it has, and the job ends once: nothing that was acknowledged is lost, and
nothing is done or told twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from encoder_db.fsck import Finding, fsck
from encoder_db.queue import Engine
from encoder_db.store import Store
from encoder_db.tables import jobs
from tests.db import builders as make
from tests.figures import tell_figure
from tests.kill.conftest import FULL
from tests.kill.steps import Steps
from tests.kill.whole_life import LEASING, OUTPUTS, PARTS, Life
from tests.servers.mysqld import Mysqld

TRIES = 5


def _live(life: Life, steps: Steps, mysqld: Mysqld) -> None:
    """Walk through all parts; a part that lost its database is done again once it is back."""
    kills = mysqld.kills
    for part in PARTS:
        for _ in range(TRIES):
            steps.phase = part.__name__
            try:
                part(life)
                done = True
            except DBAPIError:
                assert mysqld.kills > kills, "nobody killed it"
                done = False
            if mysqld.is_dead:
                mysqld.start()
                steps.phase = "fsck"
                assert _broken_rules(life.store) == [], steps.names[-1]
                if not done and part in LEASING:
                    make.let_pass(life.store, make.LEASE_S + 1)
            if done:
                break
        else:
            raise AssertionError(f"{part.__name__} did not come through in {TRIES} tries")


def _broken_rules(store: Store) -> Sequence[Finding]:
    """The first look may be over a connection that was used a moment ago, and ended with mysqld."""
    try:
        return fsck(store).findings
    except DBAPIError:
        return fsck(store).findings


@pytest.mark.parametrize("engine", ["local", "kubernetes"])
def test_mysqld_is_killed_at_each_step_of_a_life(
    store: Store, mysqld: Mysqld, engine: Engine
) -> None:
    make.kubernetes_pool(store)
    for name in ("the first, which makes its queue known", "as all that follow"):
        with Steps() as recorded:
            _live(Life(store, engine, name), recorded, mysqld)
    moments = recorded.names
    assert {moment.split(":")[0] for moment in moments} == {part.__name__ for part in PARTS}
    chosen = _steps_of(moments, engine)
    before, lives, undone = mysqld.kills, [], []
    for step in chosen:
        life = Life(store, engine, f"killed at {step}")
        with Steps(kill_at=step, strike=mysqld.kill) as steps:
            _live(life, steps, mysqld)
        assert steps.names[step - 1] == moments[step - 1]
        assert _broken_rules(store) == [], moments[step - 1]
        lives.append(life)
        if not _ended_once(store, life):
            undone.append(moments[step - 1])
    killed = mysqld.kills - before
    with store.read() as tx:
        present = Counter(
            tx.execute(
                select(jobs.c.external_id).where(
                    jobs.c.external_id.in_([life.name for life in lives])
                )
            ).scalars()
        )
    acknowledged = [life.name for life in lives if life.acknowledged]
    lost = set(acknowledged) - set(present)
    doubled = [name for name, count in present.items() if count > 1]
    again = sum(len(life.heard) - len(set(life.heard)) for life in lives)
    of_part = Counter(moment.split(":")[0] for moment in moments)
    tell_figure(
        f"mysqld, a life in the {engine} engine: killed at {killed} of {len(moments)} steps "
        f"({', '.join(f'{name} {count}' for name, count in of_part.items())}): enqueues "
        f"acknowledged {len(acknowledged)}, present {len(present)}, lost {len(lost)}, "
        f"doubled {len(doubled)}, not ended once {len(undone)}, webhooks sent again {again}"
    )
    if FULL:
        for number, moment in enumerate(moments, 1):
            tell_figure(f"  {number:3} {moment}")
    assert (killed, lost, doubled, undone) == (len(chosen), set(), [], [])


def _steps_of(moments: list[str], engine: Engine) -> list[int]:
    """
    All of them; in the short run one of each part: right before its last commit, or behind it.
    """
    if FULL:
        return list(range(1, len(moments) + 1))
    names = [part.__name__ for part in PARTS]
    wanted, kind = (
        (names[0::2], "before its commit") if engine == "local" else (names[1::2], "after it")
    )
    last = {moment: number for number, moment in enumerate(moments, 1)}
    return [last[f"{name}: {kind}"] for name in wanted]


def _ended_once(store: Store, life: Life) -> bool:
    told = make.events(store, life.job)
    kinds = Counter(kind for _, kind in told)
    heard = list(dict.fromkeys(seq for seq, _ in life.heard))
    with store.read() as tx:
        same = select(func.count()).where(jobs.c.external_id == life.name)
        rows = tx.execute(same).scalar_one()
    return (
        rows == 1
        and make.attempt_statuses(store, life.job).count("succeeded") == 1
        and kinds["job.completed"] == 1
        and kinds["output.uploaded"] == OUTPUTS
        and heard == [seq for seq, _ in told]
        and len(set(life.heard)) == len(heard)
    )
