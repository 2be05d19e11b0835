"""
Credentials that the kubelet mounts: into which fields they go, what is refused, who hears of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from encoder_core.errors import JobError
from encoder_core.exits import Exit
from encoder_core.reports import WorkOrder
from encoder_worker.credentials import add_credentials, read_credentials
from tests.servers.ftp import FtpServer
from tests.servers.s3 import S3Bucket
from tests.worker.driver import make_order
from tests.worker.pod import ReportServer, run_order

Clip = Callable[[str], Path]
Place = dict[str, Any]
CLIP = "h264_320x180_25p_2s_stereo.mp4"
CANARY = "canary-value-1"

S3: Place = {"kind": "s3", "bucket": "bucket-1", "path": "in.mp4"}
HTTP: Place = {"kind": "https", "url": "https://media.example/in.mp4"}
FTP: Place = {"kind": "ftp", "host": "ftp.example", "path": "in.mp4"}
KEYS = {"access_key_id": "AKIA", "access_key_secret": CANARY}


def an_order(source: Place, *destinations: Place, **more: Any) -> WorkOrder:
    outputs = [
        {"index": index, "spec": {"destination": place}} for index, place in enumerate(destinations)
    ]
    return WorkOrder.model_validate(
        {
            "jobId": 1,
            "jobUuid": "01890000-0000-7000-8000-000000000001",
            "attempt": 1,
            "token": "token-of-the-attempt",
            "source": source,
            "outputs": outputs,
            "scratchDir": "scratch",
            **more,
        }
    )


# --- Into which fields -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "credentials", "want"),
    [
        pytest.param(
            S3, {f"source.{name}": value for name, value in KEYS.items()}, {**S3, **KEYS}, id="s3"
        ),
        pytest.param(
            FTP,
            {"source.user": "me", "source.password": CANARY},
            {**FTP, "user": "me", "password": CANARY},
            id="ftp",
        ),
        pytest.param(
            {**HTTP, "url": "https://media.example/in.mp4?X-Amz-Signature=***"},
            {"source.url": f"https://media.example/in.mp4?X-Amz-Signature={CANARY}"},
            {**HTTP, "url": f"https://media.example/in.mp4?X-Amz-Signature={CANARY}"},
            id="a signed url replaces the one without its signature",
        ),
        pytest.param(
            HTTP,
            {"source.headers.Authorization": CANARY, "source.headers.X.Key": "1"},
            {**HTTP, "headers": {"Authorization": CANARY, "X.Key": "1"}},
            id="headers, whose names may have dots, and which nothing holds yet",
        ),
        pytest.param(
            {**HTTP, "headers": {"Accept": "video/mp4"}},
            {"source.headers.Authorization": CANARY},
            {**HTTP, "headers": {"Accept": "video/mp4", "Authorization": CANARY}},
            id="beside headers that are there",
        ),
    ],
)
def test_each_key_names_a_field(source: Place, credentials: dict[str, str], want: Place) -> None:
    assert add_credentials(an_order(source), credentials) == an_order(want)


def test_outputs_are_counted_as_in_the_job_though_only_the_missing_ones_are_ordered() -> None:
    order = an_order(S3, S3, S3, attempt=2)
    second = order.model_copy(update={"outputs": order.outputs[1:]})
    credentials = {
        f"outputs.{index}.destination.{name}": value
        for index in (0, 1)
        for name, value in KEYS.items()
    }
    [output] = add_credentials(second, credentials).outputs
    assert output.index == 1
    assert output.spec.destination.to_json_with_secrets() == {**S3, **KEYS}


def test_an_image_has_credentials_of_its_own() -> None:
    order = an_order(S3, S3)
    spec = {"destination": S3, "watermark": {"source": HTTP}}
    order = WorkOrder.model_validate(
        {**order.to_json_with_secrets(), "outputs": [{"index": 0, "spec": spec}]}
    )
    key = "outputs.0.watermark.source.headers.Authorization"
    [output] = add_credentials(order, {key: CANARY}).outputs
    assert output.spec.watermark is not None
    want = {**HTTP, "headers": {"Authorization": CANARY}}
    assert output.spec.watermark.source.to_json_with_secrets() == want


@pytest.mark.parametrize(
    ("source", "credentials", "says"),
    [
        pytest.param(S3, {"source.secret": CANARY}, "source.secret names no", id="a typing error"),
        pytest.param(S3, {"source": CANARY}, "source names no", id="a whole place"),
        pytest.param(S3, {"outputs.0.watermark.source.user": CANARY},
                     "outputs.0.watermark.source.user names no", id="an image that is not there"),
        pytest.param(S3, {"token": CANARY}, "token names no", id="what is not the job's"),
        pytest.param(S3, {"source.bucket": CANARY}, "source.bucket names no", id="no secret"),
        pytest.param(S3, {"source.kind": "http"}, "source.kind names no", id="another kind"),
        pytest.param(S3, {"source.password": CANARY}, "source.password names no", id="not s3's"),
        pytest.param(HTTP, {"source.headers": CANARY}, "source.headers names no", id="no header"),
        pytest.param(
            S3, {"source.access_key_id.x": CANARY}, "source.access_key_id.x names no", id="deeper"
        ),
        pytest.param(
            S3,
            {"outputs.1.destination.access_key_id": CANARY},
            "outputs.1.destination.access_key_id names no",
            id="an output that there is not",
        ),
        pytest.param(
            S3, {"outputs.x.destination.url": CANARY}, "outputs.x.destination.url names no",
            id="no number",
        ),
        pytest.param(
            S3,
            {"source.access_key_id": CANARY},
            "source: access_key_id and access_key_secret must be given together",
            id="half a pair",
        ),
        pytest.param(
            HTTP, {"source.url": CANARY}, "source.url: must begin with http://", id="no url"
        ),
        pytest.param(
            S3,
            {"outputs.0.destination.access_key_id": f"{CANARY}\x00",
             "outputs.0.destination.access_key_secret": CANARY},
            "outputs.0.destination.access_key_id: must have 1 to 4096 characters",
            id="control characters",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_and_never_shown(
    source: Place, credentials: dict[str, str], says: str
) -> None:
    with pytest.raises(JobError) as caught:
        add_credentials(an_order(source, S3), credentials)
    assert caught.value.code == "request_impossible"
    assert says in str(caught.value)
    assert CANARY not in str(caught.value)


# --- As the kubelet mounts them --------------------------------------------------------------


def mount(folder: Path, credentials: Mapping[str, str | bytes]) -> Path:
    """A Secret's volume: links to a link to a folder, which the kubelet swaps as a whole."""
    data = folder / "credentials" / "..2026_01_02"
    data.mkdir(parents=True)
    (folder / "credentials" / "..data").symlink_to(data.name)
    for key, value in credentials.items():
        (data / key).write_bytes(value if isinstance(value, bytes) else value.encode())
        (folder / "credentials" / key).symlink_to(f"..data/{key}")
    return folder / "credentials"


def test_a_line_end_is_no_part_of_a_credential(tmp_path: Path) -> None:
    folder = mount(tmp_path, {"source.user": "me\n", "source.password": " p w \r\n"})
    assert read_credentials(folder) == {"source.user": "me", "source.password": " p w "}


@pytest.mark.parametrize(
    "value", [pytest.param(b"\xff\xfe", id="not text"), pytest.param(b"x" * 70_000, id="too long")]
)
def test_a_value_that_can_be_no_credential_is_refused_by_its_key(
    value: bytes, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"source\.user"):
        read_credentials(mount(tmp_path, {"source.user": value}))


# --- A worker with them ----------------------------------------------------------------------


@pytest.fixture
def reports() -> Iterator[ReportServer]:
    with ReportServer() as server:
        yield server


def run_with(
    folder: Path,
    source: Place,
    destination: Place,
    credentials: dict[str, str],
    reports: ReportServer,
) -> int:
    """The worker's exit code; whatever it ends with, nobody hears of the credentials."""
    order = make_order(folder, source, {"container": "mp3", "destination": destination})
    mounted = mount(folder, credentials)
    ended = run_order(folder, order, reports, "--credentials", str(mounted))
    said = [ended.log, (folder / "last-word").read_text(), str(reports.record.envelopes)]
    for key, value in credentials.items():
        # The FTP server's user is called encoder, as much else in a log is.
        assert key.endswith(".user") or not any(value in text for text in said)
    return ended.code


def without(place: Place, prefix: str, *names: str) -> tuple[Place, dict[str, str]]:
    """A place as people may write it into a resource, and its credentials by key."""
    public = {name: value for name, value in place.items() if name not in names}
    return public, {f"{prefix}.{name}": place[name] for name in names}


def test_from_ftp_with_a_login(
    tmp_path: Path, clip: Clip, ftp_server: FtpServer, reports: ReportServer
) -> None:
    (ftp_server.folder / "in.mp4").write_bytes(clip(CLIP).read_bytes())
    source, login = without(ftp_server.fields("in.mp4"), "source", "user", "password")
    target = {"kind": "file", "path": "o.mp3"}
    assert run_with(tmp_path, source, target, login, reports) == Exit.SUCCEEDED
    assert (tmp_path / "files" / "o.mp3").exists()


def test_from_and_to_s3_with_keys(
    tmp_path: Path, clip: Clip, s3_bucket: S3Bucket, reports: ReportServer
) -> None:
    s3_bucket.put("in.mp4", clip(CLIP).read_bytes())
    names = ("access_key_id", "access_key_secret")
    source, some = without(s3_bucket.fields("in.mp4"), "source", *names)
    target, more = without(s3_bucket.fields("o.mp3"), "outputs.0.destination", *names)
    assert run_with(tmp_path, source, target, {**some, **more}, reports) == Exit.SUCCEEDED
    assert s3_bucket.get("o.mp3")


def test_without_them_the_place_stays_shut(
    tmp_path: Path, s3_bucket: S3Bucket, reports: ReportServer
) -> None:
    source, _ = without(s3_bucket.fields("in.mp4"), "source", "access_key_id", "access_key_secret")
    target = {"kind": "file", "path": "o.mp3"}
    ambient = {"useChain": False}
    order = make_order(tmp_path, source, {"destination": target}, ambient=ambient)
    assert run_order(tmp_path, order, reports).code == Exit.SOURCE
    assert reports.record.last["failure"]["code"] == "source_denied"


def test_a_wrong_key_ends_the_attempt_for_good_and_says_which(
    tmp_path: Path, reports: ReportServer
) -> None:
    credentials = {"source.pasword": CANARY}
    target = {"kind": "file", "path": "o.mp3"}
    assert run_with(tmp_path, FTP, target, credentials, reports) == Exit.REQUEST
    last = reports.record.last
    assert last["failure"]["code"] == "request_impossible"
    assert "source.pasword" in last["failure"]["message"]
    assert [output["status"] for output in last["outputs"]] == ["failed"]
