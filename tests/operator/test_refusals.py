"""What the API server answers to the creation of a Pod, and what becomes of the attempt then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from encoder_core.names import resource_name
from encoder_core.reports import Started
from encoder_core.states import JobStatus
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_operator.act import QUOTA_S, REFUSAL_RULES, NameTaken
from encoder_operator.decide import StartPod
from encoder_operator.exits import classify_waiting
from encoder_operator.kube import PODS, SECRETS, Kind, KubeError
from encoder_operator.observe import observe
from encoder_operator.policy import PoolPolicy
from tests.db import builders as make
from tests.operator.builders import a_pod
from tests.operator.desk import RUNNING, Desk
from tests.operator.fake_api import Answer, refusal

J = JobStatus

INVALID = refusal(
    422, "Invalid", 'Pod "x" is invalid: spec.tolerations[0].key: Invalid value: "a b"'
)
BY_POLICY = refusal(
    *(403, "Forbidden"),
    "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'workers' with binding 'workers' denied "
    "request: the image of a worker must begin with ours/",
)
BY_PROFILE = refusal(
    *(403, "Forbidden"), 'pods "x" is forbidden: violates PodSecurity "restricted:latest": …'
)
BY_POLICY_ITS_WAY = refusal(422, "Invalid", BY_POLICY.body["message"])
BY_WEBHOOK = refusal(
    *(400, "BadRequest"), 'admission webhook "images.example" denied the request: not signed'
)
OF_A_POLICY = (
    "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'workers' with binding 'workers' denied "
    "request: failed to configure binding: "
)


def forbidden(because: str) -> Answer:
    return refusal(403, "Forbidden", f'pods "x" is forbidden: {because}')


NOT_SYNCED = refusal(
    *(422, "Invalid"),
    OF_A_POLICY + "paramKind kind `/v1, Kind=ConfigMap` not yet synced to use for admission",
)
NO_PARAMETERS = refusal(
    *(422, "Invalid"),
    OF_A_POLICY + "no params found for policy binding with `Deny` parameterNotFoundAction",
)
TOO_LARGE = refusal(500, "", "etcdserver: request is too large")
NO_RIGHT = refusal(
    *(403, "Forbidden"),
    'pods is forbidden: User "system:serviceaccount:work:encoder-operator" cannot create resource '
    '"pods" in API group "" in the namespace "work"',
)
WEBHOOK_AWAY = refusal(
    *(500, "InternalError"),
    'Internal error occurred: failed calling webhook "images.example": context deadline exceeded',
)


OVER_QUOTA = forbidden("exceeded quota: workers, requested: pods=1, used: pods=4, limited: pods=4")


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        pytest.param([NO_RIGHT], None, id="blameless"),
        pytest.param([TOO_LARGE], "request_impossible", id="too large"),
        pytest.param([OVER_QUOTA], "quota_exceeded", id="over its quota"),
        pytest.param([BY_POLICY, BY_PROFILE, BY_WEBHOOK], "admission_denied", id="denied"),
        pytest.param([INVALID, NO_PARAMETERS], "pod_invalid", id="invalid"),
        pytest.param([WEBHOOK_AWAY], None, id="anything else"),
    ],
)
def test_each_row_of_the_table_has_answers_that_it_is_for(
    request: pytest.FixtureRequest, answers: list[Answer], code: str | None
) -> None:
    number = request.node.callspec.indices["answers"]
    for answer in answers:
        error = KubeError(answer.status, answer.body["reason"], answer.body["message"])
        hit = next(rule for rule in REFUSAL_RULES if rule.applies(error))
        assert (hit, hit.code) == (REFUSAL_RULES[number], code)
    assert len(REFUSAL_RULES) == 6


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def begun(desk: Desk) -> tuple[JobRow, str]:
    """A job with a place and no Pod."""
    job = desk.submit()
    desk.dispatch()
    return job, resource_name(job.uuid)


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        pytest.param(INVALID, "pod_invalid", J.QUEUED, id="invalid is tried a few times"),
        pytest.param(BY_POLICY, "admission_denied", J.FAILED, id="denied by a policy is final"),
        pytest.param(BY_POLICY_ITS_WAY, "admission_denied", J.FAILED, id="whatever its status"),
        pytest.param(BY_PROFILE, "admission_denied", J.FAILED, id="against the profile is final"),
        pytest.param(BY_WEBHOOK, "admission_denied", J.FAILED, id="denied by a webhook is final"),
        pytest.param(TOO_LARGE, "request_impossible", J.FAILED, id="too large is final"),
    ],
)
@pytest.mark.parametrize("kind", [SECRETS, PODS], ids=["Secret", "Pod"])
def test_what_is_(desk: Desk, kind: Kind, answer: Answer, code: str, status: JobStatus) -> None:
    desk.api.refuse["POST", kind.plural] = answer
    job, name = begun(desk)
    desk.settle(name)
    document = make.read(desk.store, job)
    (attempt,) = document.attempts
    assert attempt.failure is not None
    assert (document.status, attempt.failure.code) == (status, code)
    assert attempt.failure.message == answer.body["message"]
    assert desk.api.all(PODS) == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(forbidden("no PriorityClass with name x was found"), id="PriorityClass"),
        pytest.param(forbidden('pod rejected: RuntimeClass "x" not found'), id="RuntimeClass"),
        pytest.param(
            forbidden('error looking up service account work/x: serviceaccount "x" not found'),
            id="ServiceAccount",
        ),
        pytest.param(
            forbidden("failed quota: q: must specify limits.cpu for: worker"),
            id="limit that a quota wants",
        ),
        pytest.param(
            forbidden("maximum cpu usage per Container is 1, but limit is 2"),
            id="range of limits that it keeps to",
        ),
        pytest.param(NO_PARAMETERS, id="set of parameters for a policy"),
    ],
)
def test_a_job_outlives_an_attempt_that_lacks_a_(desk: Desk, answer: Answer) -> None:
    """One of them missing would otherwise fail every job of a pool."""
    desk.api.refuse["POST", PODS.plural] = answer
    job, name = begun(desk)
    desk.settle(name)
    document = make.read(desk.store, job)
    (attempt,) = document.attempts
    assert attempt.failure is not None
    assert (document.status, attempt.failure.code) == (J.QUEUED, "pod_invalid")
    assert attempt.failure.message == answer.body["message"]


@pytest.mark.parametrize("ahead_s", [-60.0, 600.0])
def test_a_used_up_quota_holds_its_pool_for_as_long_whatever_the_database_takes_for_now(
    desk: Desk, ahead_s: float
) -> None:
    desk.api.refuse["POST", PODS.plural] = forbidden("exceeded quota: small")
    _, name = begun(desk)
    desk.watch()
    seen = observe(desk.store, desk.cache, name, defaults=desk.actor.defaults).observed
    before = datetime.now(UTC)
    skewed = replace(seen, now=before + timedelta(seconds=ahead_s))
    asyncio.run(desk.actor.act(StartPod(1), skewed))
    after = datetime.now(UTC)
    over = [
        desk.cache.over_quota(desk.pool, moment + timedelta(seconds=QUOTA_S)) is None
        for moment in (before - timedelta(seconds=1), after)
    ]
    assert over == [False, True]


def test_the_next_attempt_is_made_from_the_pool_as_somebody_mended_it(desk: Desk) -> None:
    desk.api.refuse["POST", PODS.plural] = INVALID
    _, name = begun(desk)
    desk.settle(name)
    del desk.api.refuse["POST", PODS.plural]
    desk.api.put_spec(desk.pool, {"maxConcurrency": 1, "podTemplate": {"image": "mended"}})
    make.let_pass(desk.store, 600)
    desk.dispatch()
    desk.settle(name)
    [container] = desk.pod(name, 2)["spec"]["containers"]
    assert container["image"] == "mended"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(NO_RIGHT, id="a right is missing"),
        pytest.param(forbidden("not yet ready to handle request"), id="the server has just begun"),
        pytest.param(NOT_SYNCED, id="the server has not read a policy's parameters yet"),
        pytest.param(
            forbidden("status unknown for quota: q, resources: pods"),
            id="a new quota is not counted yet",
        ),
        pytest.param(WEBHOOK_AWAY, id="a webhook does not answer"),
        pytest.param(refusal(500, "InternalError"), id="the server has an error of its own"),
        pytest.param(refusal(503, "ServiceUnavailable"), id="the server is overloaded"),
        pytest.param(refusal(504, "Timeout"), id="the server gave up waiting"),
        pytest.param(refusal(409, "Conflict"), id="the server asks to try again"),
    ],
)
@pytest.mark.parametrize("kind", [SECRETS, PODS], ids=["Secret", "Pod"])
def test_nothing_ends_and_the_same_attempt_goes_on_when(
    desk: Desk, kind: Kind, answer: Answer
) -> None:
    desk.api.refuse["POST", kind.plural] = answer
    job, name = begun(desk)
    with pytest.raises(KubeError):
        desk.settle(name)
    assert make.read(desk.store, job).status is J.STARTING
    del desk.api.refuse["POST", kind.plural]
    check_goes_on(desk, job, name)


def check_goes_on(desk: Desk, job: JobRow, name: str) -> None:
    """One attempt, one Pod, one Secret, and in that the token that counts."""
    desk.settle(name)
    assert [pod["metadata"]["name"] for pod in desk.api.all(PODS)] == [f"{name}-a1"]
    assert len(desk.api.all(SECRETS)) == 1
    desk.move_pod(name, RUNNING)
    assert desk.say(job, Started())
    document = make.read(desk.store, job)
    assert (document.status, len(document.attempts)) == (J.RUNNING, 1)
    assert desk.api.writes.count("POST pods") == 1


def losing_the_answer_to(kind: Kind, desk: Desk) -> Callable[[str], None]:
    """The first creation of this kind happens, and whoever asked for it does not hear of it."""
    lost: list[str] = []

    def around(moment: str) -> None:
        created = moment.startswith("after POST 201")
        if created and not lost and desk.api.writes[-1] == f"POST {kind.plural}":
            lost.append(moment)
            raise ConnectionResetError

    return around


@pytest.mark.parametrize("kind", [SECRETS, PODS], ids=["Secret", "Pod"])
def test_what_was_made_and_not_heard_of_is_not_made_twice(desk: Desk, kind: Kind) -> None:
    job, name = begun(desk)
    desk.api.around_write = losing_the_answer_to(kind, desk)
    with pytest.raises(KubeError, match="Unreachable"):
        desk.look(name)
    assert make.read(desk.store, job).status is J.STARTING
    check_goes_on(desk, job, name)


def test_a_pod_of_that_name_that_is_on_its_way_out_is_waited_for(desk: Desk) -> None:
    job, name = begun(desk)
    theirs = desk.api.put(
        PODS, f"{name}-a1", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}
    )
    with pytest.raises(KubeError, match="AlreadyExists"):
        desk.settle(name)
    assert desk.pod(name) is theirs
    del desk.api.objects[PODS.path("work", f"{name}-a1")]
    check_goes_on(desk, job, name)


def test_a_pod_of_that_name_that_is_somebody_elses_ends_the_attempt(desk: Desk) -> None:
    job, name = begun(desk)
    theirs = desk.api.put(PODS, f"{name}-a1")
    desk.settle(name)
    (attempt,) = make.read(desk.store, job).attempts
    assert attempt.failure is not None
    assert (attempt.failure.code, attempt.failure.message) == (
        *("pod_invalid", str(NameTaken(f"{name}-a1"))),
    )
    assert desk.pod(name) is theirs


# --- What no node will ever take -----------------------------------------------------------------

IN_VAIN = "preemption: 0/{n} nodes are available: {n} Preemption is not helpful for scheduling."
HINT = "more than any node has"


@pytest.mark.parametrize(
    ("words", "hinted"),
    [
        pytest.param(
            "0/2 nodes are available: 2 Insufficient cpu. " + IN_VAIN.format(n=2),
            *(True,),
            id="asks each node for more cores than it has",
        ),
        pytest.param(
            "0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient"
            " memory. no new claims to deallocate, " + IN_VAIN.format(n=3),
            *(True,),
            id="asks those for too much that it may go to",
        ),
        pytest.param(
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: "
            "2 No preemption victims found for incoming pod.",
            *(False,),
            id="would have room if others ended",
        ),
        pytest.param(
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: "
            "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for "
            "scheduling.",
            *(False,),
            id="would have room on one of them",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
            + IN_VAIN.format(n=1),
            *(False,),
            id="may go to none of them",
        ),
        pytest.param("no nodes available to schedule pods", *(False,), id="has no node at all"),
    ],
)
def test_the_hint_that_a_job_never_fits_comes_with_the_schedulers_words_when_it(
    words: str, hinted: bool
) -> None:
    stuck = classify_waiting(
        a_pod(unschedulable=words, running=False, scheduled=False), PoolPolicy()
    )
    assert stuck is not None
    assert stuck.code == "pod_unschedulable"
    assert stuck.message.startswith(words)
    assert (HINT in stuck.message) == hinted
