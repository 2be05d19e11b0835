"""
Each rule of the schemas, by a resource that it lets pass and one that it refuses.

The API server is a real one, so that what is tested is what it makes of our CEL. A rule without a
case fails the last test; one that stands in two places needs two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.test_crds import DESTINATION, JOB, OUTPUT, POOL, SOURCE
from tests.harness.cluster import Cluster

Spec = dict[str, Any]
CRDS = Path(__file__).parents[2] / "crds"
BASE = "/apis/encoder.dev/v1alpha1/namespaces/default"
UID = "01890a5d-ac96-774b-bcce-b302099a8057"
S3 = {"kind": "s3", "bucket": "clips", "path": "in.mov"}
FTP = {"kind": "ftp", "host": "ftp.example", "path": "in.mov"}
FTP_URL = {"kind": "ftp", "url": "ftp://ftp.example/in.mov"}
SIGNED = "https://x.example/a?X-Amz-Signature=abc"
HIDDEN = "https://x.example/a?X-Amz-Signature=***"


def from_(source: Spec) -> Spec:
    return {**JOB, "source": source}


def to(destination: Spec) -> Spec:
    return {**JOB, "outputs": [{**OUTPUT, "destination": destination}]}


def make_(output: Spec) -> Spec:
    return {**JOB, "outputs": [{**OUTPUT, **output}]}


def marked(source: Spec) -> Spec:
    return make_({"watermark": {"source": source}})


def with_(**fields: Any) -> Spec:
    return {**JOB, **fields}


def sized(name: str, request: str, limit: str) -> Spec:
    return {"requests": {name: request}, "limits": {name: limit}}


def lending(**fields: Any) -> Spec:
    return {**POOL, "ambientCredentials": {"from": "ServiceAccount", **fields}}


DESTINATIONS, WATERMARKS = "spec.outputs[].destination", "spec.outputs[].watermark.source"
WHOLE = "<nil>"  # what the API server calls a whole resource
OUTPUTS, LENDING = "spec.outputs[]", "spec.ambientCredentials"
ROLE = "arn:aws:iam::123456789012:role/media"
PLACES: list[tuple[str, str, Spec, Spec]] = [
    ("", "s3 needs bucket and path", S3, {"kind": "s3", "bucket": "clips"}),
    ("", "bucket, region, endpoint and force_path_style are for s3", SOURCE,
     {**SOURCE, "region": "eu-west-1"}),
    ("", "http and https need a url that begins with http:// or https://", SOURCE,
     {"kind": "https", "url": "ftp://ftp.example/a"}),
    ("", "ftp needs either url, or host and path", FTP, {"kind": "ftp", "host": "ftp.example"}),
    ("", "ftp takes a url that begins with ftp:// or ftps://, and then no host, port or path",
     FTP_URL, {**FTP_URL, "port": 21}),
    ("", "host, port and tls are for ftp", {**FTP, "tls": True}, {**SOURCE, "tls": True}),
    ("", "path is for s3 and ftp", FTP, {**SOURCE, "path": "in.mov"}),
    ("", "url is for http, https and ftp", FTP_URL, {**S3, "url": "https://x.example/a"}),
    (".path", "must not contain '..'", {**S3, "path": "a/..b"}, {**S3, "path": "a/../b"}),
    (".url", "a signed URL is a secret", {**SOURCE, "url": HIDDEN}, {**SOURCE, "url": SIGNED}),
]  # fmt: skip
CREATED: list[tuple[str, str, Spec, Spec]] = [
    *((f"spec.source{at}", message, from_(good), from_(bad)) for at, message, good, bad in PLACES),
    *((f"{DESTINATIONS}{at}", message, to(good), to(bad)) for at, message, good, bad in PLACES),
    *((f"{WATERMARKS}{at}", message, marked(good), marked(bad))
      for at, message, good, bad in PLACES),
    ("spec.source", "sizeBytes is for inline",
     with_(jobUID=UID, source={"kind": "inline", "sizeBytes": 9}),
     from_({**SOURCE, "sizeBytes": 9})),
    (WATERMARKS, "sizeBytes is for inline",
     {**marked({"kind": "inline", "sizeBytes": 9}), "jobUID": UID},
     marked({**SOURCE, "sizeBytes": 9})),
    ("spec", "the watermarks of a job applied by hand have a source that is not inline",
     {**marked({"kind": "inline", "sizeBytes": 9}), "jobUID": UID},
     marked({"kind": "inline", "sizeBytes": 9})),
    (OUTPUTS, "give crf or videoBitrate, not both", make_({"crf": 20}),
     make_({"crf": 20, "videoBitrate": "2M"})),
    ("spec.outputs[].renditions[]", "give crf or videoBitrate, not both",
     make_({"container": "hls", "renditions": [{"crf": 20}]}),
     make_({"container": "hls", "renditions": [{"crf": 20, "videoBitrate": "2M"}]})),
    (OUTPUTS, "renditions are for hls and dash",
     make_({"container": "dash", "renditions": [{}]}), make_({"renditions": [{}]})),
    (OUTPUTS, "packaging is for hls and dash",
     make_({"container": "hls", "packaging": {"segmentSeconds": 6}}),
     make_({"packaging": {"segmentSeconds": 6}})),
    (OUTPUTS, "thumbnails are for jpg and png",
     make_({"container": "jpg", "thumbnails": {"count": 3}}),
     make_({"thumbnails": {"count": 3}})),
    ("spec.outputs[].thumbnails", "give exactly one of count, intervalSeconds and at",
     make_({"container": "png", "thumbnails": {"at": [1]}}),
     make_({"container": "png", "thumbnails": {"at": [1], "count": 3}})),
    (DESTINATIONS,
     "acl, contentType, cacheControl, storageClass, serverSideEncryption and metadata are for s3",
     to({**DESTINATION, "acl": "public-read"}), to({**SOURCE, "acl": "public-read"})),
    (DESTINATIONS, "kmsKeyId needs serverSideEncryption aws:kms",
     to({**DESTINATION, "serverSideEncryption": "aws:kms", "kmsKeyId": "alias/a"}),
     to({**DESTINATION, "kmsKeyId": "alias/a"})),
    ("spec.outputs[].metadata",
     "files keep title, artist, album, date, genre, comment and copyright",
     make_({"metadata": {"title": "Bunny"}}), make_({"metadata": {"encoder": "Bunny"}})),
    (DESTINATIONS, "method is for http and https", to({**SOURCE, "method": "PUT"}),
     to({**DESTINATION, "method": "PUT"})),
    ("spec.notificationUrl", "a signed URL is a secret",
     with_(notificationUrl=HIDDEN), with_(notificationUrl=SIGNED)),
    ("spec.metadata", "a key has at most 64 characters", with_(metadata={"k" * 64: "v"}),
     with_(metadata={"k" * 65: "v"})),
    ("spec", "a job applied by hand needs outputs and a source that is not inline",
     with_(jobUID=UID, outputs=[]), with_(outputs=[])),
    ("spec", "a job of the API has its credentials in the record and takes no credentialsSecretRef",
     with_(credentialsSecretRef={"name": "encoder-creds-a"}),
     with_(jobUID=UID, credentialsSecretRef={"name": "encoder-creds-a"})),
    *(("spec.resources", f"the request for {name} must not be above its limit",
       with_(resources=sized(name, low, high)), with_(resources=sized(name, high, low)))
      for name, low, high in (("cpu", "500m", "1"), ("memory", "1Gi", "2Gi"),
                              ("ephemeral-storage", "1Gi", "2Gi"))),
]  # fmt: skip
CHANGED: list[tuple[str, str, Spec, Spec, Spec]] = [
    ("spec", "the jobUID cannot be changed", with_(jobUID=UID),
     with_(jobUID=UID, desiredState="Cancel"), JOB),
    ("spec", "nothing can be added to a job or taken away from it", JOB,
     with_(desiredState="Cancel"), with_(notificationUrl="https://x.example/")),
    ("spec", "the externalId cannot be changed", with_(externalId="a"),
     with_(externalId="a", desiredState="Cancel"), with_(externalId="b")),
    ("spec", "the deadlines cannot be changed", with_(startDeadlineSeconds=5),
     with_(startDeadlineSeconds=5, desiredState="Cancel"), with_(startDeadlineSeconds=6)),
    ("spec.source", "the source cannot be changed", JOB, with_(desiredState="Cancel"), from_(S3)),
    ("spec.outputs", "the outputs cannot be changed", JOB,
     with_(desiredState="Cancel"), make_({"height": 480})),
    ("spec.notificationUrl", "the notificationUrl cannot be changed",
     with_(notificationUrl="https://x.example/"),
     with_(notificationUrl="https://x.example/", desiredState="Cancel"),
     with_(notificationUrl="https://y.example/")),
    ("spec.metadata", "the metadata cannot be changed", with_(metadata={"a": "1"}),
     with_(metadata={"a": "1"}, desiredState="Cancel"), with_(metadata={"a": "2"})),
    ("spec.poolRef", "a job cannot move to another pool", with_(poolRef={"name": "hd"}),
     with_(poolRef={"name": "hd"}, desiredState="Cancel"), with_(poolRef={"name": "sd"})),
    ("spec.startAt", "the startAt cannot be changed", with_(startAt="2030-01-01T00:00:00Z"),
     with_(startAt="2030-01-01T00:00:00Z", desiredState="Cancel"),
     with_(startAt="2030-01-02T00:00:00Z")),
    ("spec.credentialsSecretRef", "the credentialsSecretRef cannot be changed",
     with_(credentialsSecretRef={"name": "encoder-creds-a"}),
     with_(credentialsSecretRef={"name": "encoder-creds-a"}, desiredState="Cancel"),
     with_(credentialsSecretRef={"name": "encoder-creds-b"})),
    ("spec.resources", "the resources cannot be changed",
     with_(resources={"requests": {"cpu": "1"}}),
     with_(resources={"requests": {"cpu": "1"}}, desiredState="Cancel"),
     with_(resources={"requests": {"cpu": "2"}})),
    ("spec.desiredState", "a canceled job stays canceled",
     with_(desiredState="Cancel"), with_(desiredState="Cancel"), with_(desiredState="Run")),
]  # fmt: skip
ADD_OR_TAKE = "nothing can be added to a job or taken away from it"
OPTIONAL: dict[str, tuple[Any, str | None, str | None]] = {
    # A field that may be left out: a value, and what refuses to add it and to take it away.
    "notificationUrl": ("https://x.example/", ADD_OR_TAKE, ADD_OR_TAKE),
    "externalId": ("a", "the externalId cannot be changed", "the externalId cannot be changed"),
    "metadata": ({}, ADD_OR_TAKE, ADD_OR_TAKE),
    "poolRef": ({"name": "hd"}, "a job cannot move", "a job cannot move"),
    "priority": ("high", None, None),
    "startAt": ("2030-01-01T00:00:00Z", ADD_OR_TAKE, ADD_OR_TAKE),
    "credentialsSecretRef": ({"name": "encoder-creds-a"}, ADD_OR_TAKE, ADD_OR_TAKE),
    "resources": ({}, ADD_OR_TAKE, ADD_OR_TAKE),
    "startDeadlineSeconds": (5, "the deadlines cannot", "the deadlines cannot"),
    "activeDeadlineSeconds": (5, "the deadlines cannot", "the deadlines cannot"),
    "desiredState": ("Cancel", None, "a canceled job stays canceled"),
    "jobUID": (UID, "the jobUID cannot be changed", "the jobUID cannot be changed"),
}
POOLS: list[tuple[str, str, Spec, Spec]] = [
    ("spec.podTemplate.labels",
     "labels of encoder.dev and app.kubernetes.io are set by the operator",
     {**POOL, "podTemplate": {"labels": {"team": "film"}}},
     {**POOL, "podTemplate": {"labels": {"encoder.dev/job": "x"}}}),
    (LENDING, "serviceAccountName is for ServiceAccount, which needs it",
     lending(serviceAccountName="encoder-worker-media"), lending()),
    (LENDING, "serviceAccountName is for ServiceAccount, which needs it",
     {**POOL, "ambientCredentials": {"from": "None"}},
     {**POOL, "ambientCredentials": {"serviceAccountName": "encoder-worker-media"}}),
    (LENDING, "roleArn and audience are for ServiceAccount",
     lending(serviceAccountName="encoder-worker-media", roleArn=ROLE),
     {**POOL, "ambientCredentials": {"roleArn": ROLE}}),
    (LENDING, "a token for the API server of a cluster is not for workers",
     lending(serviceAccountName="encoder-worker-media", audience="minio"),
     lending(serviceAccountName="encoder-worker-media",
             audience="https://kubernetes.default.svc")),
    *(("spec.podTemplate.resources", f"the request for {name} must not be above its limit",
       {**POOL, "podTemplate": {"resources": sized(name, low, high)}},
       {**POOL, "podTemplate": {"resources": sized(name, high, low)}})
      for name, low, high in (("cpu", "500m", "1"), ("memory", "1Gi", "2Gi"),
                              ("ephemeral-storage", "1Gi", "2Gi"))),
]  # fmt: skip
NAMES: list[tuple[str, str, str, str]] = [
    ("TranscodeJob", "the name must be a DNS label of at most 57 characters", "a" * 57, "a" * 58),
    ("TranscodeJob", "names that begin with tj- belong to jobs of the API", "mine", "tj-mine"),
    ("TranscodePool", "the name must be a DNS label", "hd", "h.d"),
]


def body(kind: str, spec: Spec, name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "encoder.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def name_of(spec: Spec) -> str:
    return f"tj-{spec['jobUID']}" if "jobUID" in spec else "tried"


def create(api: Cluster, kind: str, spec: Spec, name: str) -> tuple[int, Any]:
    path = f"{BASE}/{kind.lower()}s?dryRun=All&fieldValidation=Strict"
    return api.send("POST", path, body(kind, spec, name))


def is_refused(answer: tuple[int, Any], where: str, message: str) -> bool:
    """By the rule of that place."""
    status, said = answer
    causes = said.get("details", {}).get("causes", [])
    places = {re.sub(r"\[\d+\]", "[]", c["field"]) for c in causes if message in c["message"]}
    return status == 422 and where in places


def ids(cases: list[Any]) -> list[str]:
    return [f"{number}-{case[1][:40]}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("where", "message", "good", "bad"), CREATED, ids=ids(CREATED))
def test_a_job_is_accepted_and_its_neighbour_refused(
    api: Cluster, where: str, message: str, good: Spec, bad: Spec
) -> None:
    accepted = create(api, "TranscodeJob", good, name_of(good))
    refused = create(api, "TranscodeJob", bad, name_of(bad))
    assert accepted[0] == 201, accepted
    assert is_refused(refused, where, message), refused


@pytest.mark.parametrize(("where", "message", "before", "good", "bad"), CHANGED, ids=ids(CHANGED))
def test_a_change_is_accepted_and_its_neighbour_refused(
    api: Cluster, where: str, message: str, before: Spec, good: Spec, bad: Spec
) -> None:
    accepted, refused = change(api, before, good, bad)
    assert accepted[0] == 200, accepted
    assert is_refused(refused, where, message), refused


@pytest.mark.parametrize("field", OPTIONAL)
def test_what_may_be_left_out_cannot_be_added_or_taken_away_later(api: Cluster, field: str) -> None:
    """But for its queue, and for its cancellation, which is for good."""
    value, *refusals = OPTIONAL[field]
    [added] = change(api, JOB, with_(**{field: value}))
    [taken] = change(api, with_(**{field: value}), JOB)
    for (status, said), refusal in zip((added, taken), refusals, strict=True):
        messages = [cause["message"] for cause in said.get("details", {}).get("causes", [])]
        assert status == (200 if refusal is None else 422), said
        assert refusal is None or any(refusal in message for message in messages), said


def test_every_field_that_may_be_left_out_is_tried() -> None:
    document = yaml.safe_load((CRDS / "transcodejobs.yaml").read_text())
    [version] = document["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(OPTIONAL) == set(spec["properties"]) - set(spec["required"])


def change(api: Cluster, before: Spec, *after: Spec) -> list[tuple[int, Any]]:
    """What the API server says to each of them, for a job that there is."""
    name = name_of(before)
    status, made = api.send("POST", f"{BASE}/transcodejobs", body("TranscodeJob", before, name))
    assert status == 201, made
    try:
        return [
            api.send(
                "PUT",
                f"{BASE}/transcodejobs/{name}?dryRun=All",
                {**body("TranscodeJob", spec, name), "metadata": made["metadata"]},
            )
            for spec in after
        ]
    finally:
        api.send("DELETE", f"{BASE}/transcodejobs/{name}")


@pytest.mark.parametrize(("where", "message", "good", "bad"), POOLS, ids=ids(POOLS))
def test_a_pool_is_accepted_and_its_neighbour_refused(
    api: Cluster, where: str, message: str, good: Spec, bad: Spec
) -> None:
    accepted = create(api, "TranscodePool", good, "hd")
    refused = create(api, "TranscodePool", bad, "hd")
    assert accepted[0] == 201, accepted
    assert is_refused(refused, where, message), refused


@pytest.mark.parametrize(("kind", "message", "good", "bad"), NAMES)
def test_a_name_is_accepted_and_its_neighbour_refused(
    api: Cluster, kind: str, message: str, good: str, bad: str
) -> None:
    spec = JOB if kind == "TranscodeJob" else POOL
    accepted, refused = create(api, kind, spec, good), create(api, kind, spec, bad)
    assert accepted[0] == 201, accepted
    assert is_refused(refused, WHOLE, message), refused


def rules_of(kind: str) -> Iterator[tuple[str, str, str]]:
    """Kind, place and message."""
    document = yaml.safe_load((CRDS / f"{kind.lower()}s.yaml").read_text())
    for version in document["spec"]["versions"]:
        for where, message in walk(version["schema"]["openAPIV3Schema"]):
            yield kind, where, message


def walk(schema: Any, where: str = "") -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield where or WHOLE, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from walk(field, f"{where}.{name}".lstrip("."))
    if "items" in schema:
        yield from walk(schema["items"], f"{where}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{where}.*")


def test_every_rule_has_a_case() -> None:
    tried = {("TranscodeJob", where, message) for where, message, *_ in CREATED}
    tried |= {("TranscodeJob", where, message) for where, message, *_ in CHANGED}
    tried |= {("TranscodePool", where, message) for where, message, *_ in POOLS}
    tried |= {(kind, WHOLE, message) for kind, message, *_ in NAMES}
    rules = Counter([*rules_of("TranscodeJob"), *rules_of("TranscodePool")])
    assert [rule for rule, count in rules.items() if count > 1] == [], "one case is not enough"

    def has_a_case(kind: str, where: str, message: str) -> bool:
        return any(c[:2] == (kind, where) and message.startswith(c[2]) for c in tried)

    assert [rule for rule in rules if not has_a_case(*rule)] == []
    written = sum(path.read_text().count(" rule: ") for path in CRDS.glob("transcode*.yaml"))
    assert len(rules) == written > 60


# --- What people see -----------------------------------------------------------------------------


def test_a_status_shows_in_the_columns_and_can_be_waited_for(api: Cluster) -> None:
    api.send("POST", f"{BASE}/transcodejobs", body("TranscodeJob", JOB, "waited-for"))
    at = "2026-01-01T00:00:00Z"
    done = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": "1 of 1",
            "lastTransitionTime": at}  # fmt: skip
    status = {"conditions": [done], "attempt": 2, "progress": "100%", "owner": "o", "podName": "p",
              "nodeName": "n", "startTime": at, "completionTime": at}  # fmt: skip
    code, said = api.send(
        "PATCH",
        f"{BASE}/transcodejobs/waited-for/status",
        {"status": status},
        content_type="application/merge-patch+json",
    )
    assert code == 200, said
    api.kubectl("wait", "tj/waited-for", "--for=condition=Succeeded", "--timeout=60s")
    header, row = api.kubectl("get", "tj", "waited-for", "-o", "wide").splitlines()
    assert header.split() == [
        *("NAME", "SUCCEEDED", "REASON", "POOL", "PROGRESS", "ATTEMPT", "AGE"),
        *("OWNER", "POD", "NODE", "STARTED", "COMPLETED"),
    ]
    assert row.split()[:6] == ["waited-for", "True", "Completed", "default", "100%", "2"]
    assert row.split()[7:10] == ["o", "p", "n"]
    api.send("DELETE", f"{BASE}/transcodejobs/waited-for")


def test_the_columns_of_a_pool(api: Cluster) -> None:
    api.send("POST", f"{BASE}/transcodepools", body("TranscodePool", POOL, "columns"))
    header = api.kubectl("get", "tp", "columns").splitlines()[0].split()
    api.send("DELETE", f"{BASE}/transcodepools/columns")
    assert header == [
        *("NAME", "MAX", "ACTIVE", "PENDING", "QUEUED", "OLDEST", "STOP", "READY", "AGE")
    ]


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("tj.spec.outputs.crf", "Constant quality"),
        ("tj.status.attempts.budget", "allowance"),
        ("tj.spec.desiredState", "kubectl patch tj"),
        ("tp.spec.stopPolicy", "Drain also sends"),
        ("tp.spec.podTemplate.tolerations", "spot or GPU"),
    ],
)
def test_kubectl_explains(api: Cluster, field: str, says: str) -> None:
    assert says in " ".join(api.kubectl("explain", field).split())
