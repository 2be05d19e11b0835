"""
The contract of the original service, clause by clause, against `encoder up` and real servers.

    POST /jobs · sources · destinations · GET /jobs · DELETE /jobs/:id · GET /workers ·
    GET /health · dashboard · tables · credentials and their priority · webhooks · retention ·
    the split commands
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.original import ORIGINAL
from tests.servers.database import DatabaseServer
from tests.servers.ftp import FtpServer
from tests.servers.http import HttpServer
from tests.servers.s3 import S3Bucket
from tests.servers.tls import TlsFiles
from tests.servers.webhooks import WebhookReceiver
from tests.system.service import Service, encoder_up, settings_for

CLIP = "h264_320x180_25p_2s_stereo.mp4"
LONG_CLIP = "h264_640x360_25p_20s_stereo.mp4"

Clip = Callable[[str], Path]


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles
) -> Iterator[Service]:
    """One for all clauses, as it is for users; each clause looks at its own jobs."""
    folder = tmp_path_factory.mktemp("service")
    with ExitStack() as stack:
        url = "sqlite://"
        if request.param == "mysql":
            server: DatabaseServer = request.getfixturevalue("mysql_server")
            url = stack.enter_context(server.fresh_database()).url
        # Whoever runs the service trusts the authority of their own servers this way.
        authority = str(tls_files.authority)
        yield stack.enter_context(encoder_up(url, folder, SSL_CERT_FILE=authority))


def an_output(destination: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "container": "mp4",
        "videoCodec": "libx264",
        "videoBitrate": "300k",
        "audioCodec": "aac",
        "audioBitrate": "96k",
        "width": 160,
        "height": 90,
        "preset": "ultrafast",
        "destination": destination,
        **changes,
    }


def a_request(service: Service, clip: Path, **changes: Any) -> dict[str, Any]:
    """From a file to a file; each test changes what it is about."""
    (service.files / "in.mp4").write_bytes(clip.read_bytes())
    return {
        "source": {"kind": "file", "path": "in.mp4"},
        "outputs": [an_output({"kind": "file", "path": "out.mp4"})],
        **changes,
    }


def a_long_request(
    service: Service, clip: Clip, *, path: str = "out.mp4", **changes: Any
) -> dict[str, Any]:
    """Takes some seconds to encode, so that there is a middle."""
    slow = an_output({"kind": "file", "path": path}, width=640, height=360, preset="slower")
    return a_request(service, clip(LONG_CLIP), outputs=[slow], **changes)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of the first picture, as ffprobe sees them."""
    answer = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-select_streams", "v:0"),
            *("-show_entries", "stream=width,height", "-of", "json", "-i", "pipe:0"),
        ],
        input=data,
        capture_output=True,
        check=True,
    )
    [stream] = json.loads(answer.stdout)["streams"]
    return stream["width"], stream["height"]


# --- POST /jobs ----------------------------------------------------------------------------------


def test_post_answers_202_with_id_uuid_and_status(service: Service, clip: Clip) -> None:
    response = service.post("/jobs", a_request(service, clip(CLIP)))
    assert response.status_code == 202
    accepted = response.json()
    assert set(accepted) == {"id", "uuid", "status"}
    assert accepted["status"] == "queued"
    assert isinstance(accepted["id"], int)
    assert uuid.UUID(accepted["uuid"]).version == 7
    assert response.headers["Location"] == f"/jobs/{accepted['uuid']}"


def test_the_originals_own_request_is_accepted(service: Service) -> None:
    assert service.post("/jobs", ORIGINAL).status_code == 202


def test_a_job_ends_completed_and_its_outputs_uploaded(service: Service, clip: Clip) -> None:
    job = service.run(a_request(service, clip(CLIP)))
    assert job["status"] == "completed", job
    [output] = job["outputs"]
    assert output["status"] == "uploaded"
    assert (output["result"]["width"], output["result"]["height"]) == (160, 90)
    assert size_of((service.files / "out.mp4").read_bytes()) == (160, 90)
    assert job["startedAt"] <= job["finishedAt"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        pytest.param({"source": {"kind": "gopher"}}, "/source/kind", id="unknown kind of source"),
        pytest.param({"outputs": []}, "/outputs", id="no outputs"),
        pytest.param({"outputs": [{}]}, "/outputs/0/destination", id="no destination"),
        pytest.param({"notificationUrl": "nowhere"}, "/notificationUrl", id="not a URL"),
        pytest.param({"notificationURL": "https://x.example/"}, "/notificationURL", id="misspelt"),
        pytest.param({"pool": "nosuch"}, "/pool", id="unknown pool"),
    ],
)
def test_bad_input_is_a_problem_that_names_the_field(
    service: Service, clip: Clip, change: dict[str, Any], pointer: str
) -> None:
    before = service.get("/jobs").json()["jobs"]
    response = service.post("/jobs", {**a_request(service, clip(CLIP)), **change})
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert [job["id"] for job in service.get("/jobs").json()["jobs"]] == [j["id"] for j in before]


def test_a_failed_job_has_a_code_and_says_what_to_do(service: Service, clip: Clip) -> None:
    request = a_request(service, clip(CLIP), source={"kind": "file", "path": "missing.mp4"})
    job = service.run(request)
    assert job["status"] == "failed"
    assert job["failure"]["code"] == "source_not_found"
    assert job["failure"]["hint"]
    assert [output["status"] for output in job["outputs"]] == ["failed"]


# --- Sources: s3, http(s), ftp, inline -----------------------------------------------------------


def source_s3(data: bytes, fixture: Callable[[str], Any]) -> dict[str, Any]:
    bucket: S3Bucket = fixture("s3_bucket")
    bucket.put("uploads/input/video.mp4", data)
    return bucket.fields("uploads/input/video.mp4")


def source_http(data: bytes, fixture: Callable[[str], Any]) -> dict[str, Any]:
    server: HttpServer = fixture("http_server")
    return {"kind": "http", "url": server.serve("/video.mp4", data)}


def source_ftp(data: bytes, fixture: Callable[[str], Any]) -> dict[str, Any]:
    server: FtpServer = fixture("ftp_server")
    (server.folder / "video.mp4").write_bytes(data)
    return server.fields("video.mp4")


def source_inline(data: bytes, fixture: Callable[[str], Any]) -> dict[str, Any]:
    return {"kind": "inline", "data": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    "make_source",
    [
        pytest.param(source_s3, id="s3"),
        pytest.param(source_http, id="http"),
        pytest.param(source_ftp, id="ftp"),
        pytest.param(source_inline, id="inline"),
    ],
)
def test_sources(
    service: Service,
    clip: Clip,
    request: pytest.FixtureRequest,
    make_source: Callable[[bytes, Callable[[str], Any]], dict[str, Any]],
) -> None:
    source = make_source(clip(CLIP).read_bytes(), request.getfixturevalue)
    job = service.run(a_request(service, clip(CLIP), source=source))
    assert job["status"] == "completed", job
    assert size_of((service.files / "out.mp4").read_bytes()) == (160, 90)


# --- Destinations: s3, http(s), ftp --------------------------------------------------------------


def test_destination_s3_with_its_content_type(
    service: Service, clip: Clip, s3_bucket: S3Bucket
) -> None:
    destination = s3_bucket.fields("processed/output/video.mp4", acl="public-read")
    job = service.run(a_request(service, clip(CLIP), outputs=[an_output(destination)]))
    assert job["status"] == "completed", job
    assert size_of(s3_bucket.get("processed/output/video.mp4")) == (160, 90)
    stored = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key="processed/output/video.mp4")
    assert stored["ContentType"] == "video/mp4"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_destination_http(
    service: Service, clip: Clip, http_server: HttpServer, method: str
) -> None:
    destination = {
        "kind": "http",
        "url": f"{http_server.url}/up/video.mp4",
        "method": method,
        "headers": {"Authorization": "Bearer for-the-upload-only"},
    }
    job = service.run(a_request(service, clip(CLIP), outputs=[an_output(destination)]))
    assert job["status"] == "completed", job
    assert size_of(http_server.stored("/up/video.mp4")) == (160, 90)
    [upload] = [seen for seen in http_server.requests if seen.path == "/up/video.mp4"]
    assert upload.method == method
    assert upload.headers["authorization"] == "Bearer for-the-upload-only"
    assert upload.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize("fixture", ["ftp_server", "ftps_server"])
def test_destination_ftp(
    service: Service, clip: Clip, request: pytest.FixtureRequest, fixture: str
) -> None:
    server: FtpServer = request.getfixturevalue(fixture)
    destination = server.fields("deep/er/video.mp4")
    job = service.run(a_request(service, clip(CLIP), outputs=[an_output(destination)]))
    assert job["status"] == "completed", job
    assert size_of((server.folder / "deep/er/video.mp4").read_bytes()) == (160, 90)


def test_one_bad_destination_does_not_cost_the_other_output(
    service: Service, clip: Clip, s3_bucket: S3Bucket
) -> None:
    lost = {**s3_bucket.fields("x.mp4"), "bucket": "no-such-bucket"}
    outputs = [an_output(lost), an_output({"kind": "file", "path": "out.mp4"})]
    job = service.run(a_request(service, clip(CLIP), outputs=outputs))
    assert job["status"] == "failed"
    assert [output["status"] for output in job["outputs"]] == ["failed", "uploaded"]
    assert job["failure"]["code"] == job["outputs"][0]["error"]["code"] == "destination_not_found"
    assert size_of((service.files / "out.mp4").read_bytes()) == (160, 90)


# --- GET, DELETE, workers, health, dashboard -----------------------------------------------------


def test_get_lists_the_latest_first_and_one_by_number_or_uuid(service: Service, clip: Clip) -> None:
    first, second = (service.submit(a_request(service, clip(CLIP))) for _ in range(2))
    listed = service.get("/jobs").json()
    assert [job["id"] for job in listed["jobs"]][:2] == [second, first]
    assert "nextCursor" in listed
    assert service.job(first)["outputs"][0]["spec"]["width"] == 160
    assert service.get(f"/jobs/{service.job(first)['uuid']}").json()["id"] == first
    assert service.get("/jobs/4711").status_code == 404


def test_delete_stops_the_worker_and_takes_outputs_and_queue_rows_along(
    service: Service, clip: Clip
) -> None:
    number = service.submit(a_long_request(service, clip, path="deleted.mp4"))
    running = service.wait_for(number, lambda job: (job["progress"] or {}).get("percent", 0) > 1)
    assert running["status"] == "running"
    assert service.delete(f"/jobs/{number}").status_code in (200, 202, 204)
    assert service.get(f"/jobs/{number}").status_code == 404
    assert number not in [job["id"] for job in service.get("/jobs").json()["jobs"]]
    engine = create_engine(service.database_url)

    def rows_left() -> dict[str, int]:
        with engine.connect() as connection:
            tables = ("job_outputs", "queue_jobs", "job_attempts", "job_secrets", "job_progress")
            where = {"jobs": "id", **dict.fromkeys(tables, "job_id")}
            return {
                table: connection.execute(
                    text(f"SELECT COUNT(*) FROM {table} WHERE {column} = :job"), {"job": number}
                ).scalar_one()
                for table, column in where.items()
            }

    eventually(lambda: not any(rows_left().values()), rows_left)
    engine.dispose()
    assert not (service.files / "deleted.mp4").exists()


def test_workers_and_health(service: Service) -> None:
    [worker] = service.get("/workers").json()["workers"]
    assert worker["capacity"] == 2
    assert service.get("/health").json()["status"] == "ok"


def test_the_dashboard_is_at_the_root(service: Service) -> None:
    page = service.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<script" in page.text


def test_the_tables_of_the_original_are_made_on_boot(service: Service) -> None:
    engine = create_engine(service.database_url)
    columns = {
        table: {column["name"] for column in inspect(engine).get_columns(table)}
        for table in ("jobs", "job_outputs", "queue_jobs")
    }
    engine.dispose()
    assert columns["jobs"] >= {"id", "uuid", "status", "source"}
    assert columns["job_outputs"] >= {"job_id", "spec", "status", "result", "error"}
    assert columns["queue_jobs"] >= {"job_id", "visible_at"}


# --- Credentials: request > environment > credentials file > role --------------------------------


def s3_without_keys(bucket: S3Bucket, path: str) -> dict[str, Any]:
    """
    As for AWS itself: no keys, no endpoint. Where AWS is comes from the environment.

    Ambient credentials are never sent to an endpoint that a request names.
    """
    return {"kind": "s3", "bucket": bucket.name, "path": path, "region": "us-east-1"}


@pytest.mark.parametrize("where", ["request", "environment", "file"])
def test_credentials_in_their_order(
    sqlite_url: str, tmp_path: Path, clip: Clip, s3_bucket: S3Bucket, where: str
) -> None:
    """The place whose turn it is holds the right keys, those after it wrong ones."""
    right, wrong = s3_bucket.server.root, s3_bucket.server.stranger
    in_file = right if where == "file" else wrong
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\n"
        f"aws_access_key_id = {in_file.access_key}\naws_secret_access_key = {in_file.secret_key}\n"
    )
    environment = {"AWS_ENDPOINT_URL_S3": s3_bucket.server.endpoint, "AWS_REGION": "us-east-1"}
    if where != "file":
        in_environment = right if where == "environment" else wrong
        environment |= {
            "AWS_ACCESS_KEY_ID": in_environment.access_key,
            "AWS_SECRET_ACCESS_KEY": in_environment.secret_key,
        }
    source, destination = (s3_without_keys(s3_bucket, path) for path in ("in.mp4", "out.mp4"))
    if where == "request":
        keys = {"access_key_id": right.access_key, "access_key_secret": right.secret_key}
        source, destination = {**source, **keys}, {**destination, **keys}
    s3_bucket.put("in.mp4", clip(CLIP).read_bytes())
    with encoder_up(sqlite_url, tmp_path, **environment) as service:
        request = {"source": source, "outputs": [an_output(destination)]}
        assert service.run(request)["status"] == "completed"
    assert size_of(s3_bucket.get("out.mp4")) == (160, 90)


def test_ambient_credentials_are_not_sent_to_an_endpoint_of_the_request(
    sqlite_url: str, tmp_path: Path, clip: Clip, s3_bucket: S3Bucket
) -> None:
    right = s3_bucket.server.root
    environment = {
        "AWS_ACCESS_KEY_ID": right.access_key,
        "AWS_SECRET_ACCESS_KEY": right.secret_key,
    }
    source = {**s3_without_keys(s3_bucket, "in.mp4"), "endpoint": s3_bucket.server.endpoint}
    s3_bucket.put("in.mp4", clip(CLIP).read_bytes())
    with encoder_up(sqlite_url, tmp_path, **environment) as service:
        job = service.run(
            {"source": source, "outputs": [an_output({"kind": "file", "path": "out.mp4"})]}
        )
    assert (job["status"], job["failure"]["code"]) == ("failed", "source_denied")


# --- Webhooks ------------------------------------------------------------------------------------


def test_a_signed_webhook_on_every_status_change_in_order(
    service: Service, clip: Clip, webhook_receiver: WebhookReceiver
) -> None:
    request = a_request(service, clip(CLIP), notificationUrl=f"{webhook_receiver.url}/hook")
    job = service.run(request)
    deliveries = webhook_receiver.wait_for(
        lambda seen: any(delivery.body["type"] == "job.completed" for delivery in seen)
    )
    assert [delivery.refused for delivery in deliveries] == [""] * len(deliveries)
    assert [delivery.body["type"] for delivery in deliveries] == [
        *("job.queued", "job.starting", "job.running", "output.uploaded", "job.completed"),
    ]
    assert [delivery.body["sequence"] for delivery in deliveries] == [1, 2, 3, 4, 5]
    assert deliveries[-1].body["data"]["id"] == job["id"]
    assert deliveries[-1].body["data"]["outputs"][0]["status"] == "uploaded"
    told = service.wait_for(job["id"], lambda job: job["timeline"][-1]["step"] == "notified")
    assert [entry["step"] for entry in told["timeline"]] == [
        *("accepted", "queued", "admitted", "started"),  # a child process: nothing to pull
        *("fetched", "encoded", "verified", "uploaded", "ended", "notified"),
    ]


# --- Retention, and the split commands -----------------------------------------------------------


def test_retention_deletes_finished_jobs_only(service: Service, clip: Clip) -> None:
    finished = service.run(a_request(service, clip(CLIP)))["id"]
    assert service.patch("/pools/default", {"stopPolicy": "Hold"}).ok
    waiting = service.submit(a_request(service, clip(CLIP)))
    assert run_command(service, "retention").stdout == "0 jobs deleted\n"
    assert service.get(f"/jobs/{finished}").status_code == 200
    assert run_command(service, "retention", "--hours", "0").stdout.endswith("deleted\n")
    assert service.get(f"/jobs/{finished}").status_code == 404
    assert service.job(waiting)["status"] == "queued"
    assert service.patch("/pools/default", {"stopPolicy": "None"}).ok
    service.wait_for(waiting, lambda job: job["status"] == "completed")


def test_api_and_worker_as_processes_of_their_own(
    mysql_url: str, tmp_path: Path, clip: Clip
) -> None:
    settings = settings_for(mysql_url, tmp_path)
    api = Service(tmp_path, settings, mysql_url, command=("api",))
    worker = Service(tmp_path, settings, mysql_url, command=("worker",))
    with ExitStack() as stack:
        stack.enter_context(api).start()
        stack.enter_context(worker).start(ready=lambda: bool(api.get("/workers").json()["workers"]))
        assert api.run(a_request(api, clip(CLIP)))["status"] == "completed"
        assert worker.stop() == 0
        assert api.stop() == 0


@pytest.mark.parametrize("command", ["api", "worker", "webhooks"])
def test_the_split_commands_need_mysql_and_say_so(
    sqlite_url: str, tmp_path: Path, command: str
) -> None:
    service = Service(tmp_path, settings_for(sqlite_url, tmp_path), sqlite_url)
    done = run_command(service, command, check=False)
    assert done.returncode == 2
    assert "MYSQL_HOST" in done.stderr


def run_command(
    service: Service, *command: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "encoder_cli", *command],
        env={**service.settings, "PORT": str(service.port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=check,
    )


def eventually(condition: Callable[[], bool], seen: Callable[[], object]) -> None:
    """What another process does, and says by no other means than its effect."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.05)
