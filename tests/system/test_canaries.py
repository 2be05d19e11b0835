"""
A unique word in every credential field, and none of them comes out anywhere.

The service runs with real places: jobs that succeed, that fail at each side, and one whose service
is killed in the middle. Then everything is searched: tables, files, logs, answers, webhooks, the
command lines and environments of every process.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import create_engine, make_url, select

from encoder_db.tables import metadata
from tests.canaries import canary, leaks
from tests.servers.ftp import FtpServer
from tests.servers.http import Fault, HttpServer
from tests.servers.s3 import S3Bucket
from tests.servers.webhooks import SECRET, Answer, WebhookReceiver
from tests.system.service import FINAL, Service, encoder_up
from tests.system.test_contract import CLIP, LONG_CLIP, an_output
from tests.system.test_restart import children_of, is_encoding

Clip = Callable[[str], Path]

OPERATORS_KEY = base64.b64encode(b"thirty-two bytes of a secret key").decode()
API_KEY = "an-api-key-of-the-first-start-0123456789"
LOOK_S = 0.03
# A PNG of one red pixel.
LOGO = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
INLINE_LOGO = {"kind": "inline", "data": base64.b64encode(LOGO).decode()}


def test_a_word_finds_itself_in_every_form() -> None:
    word = canary("x")
    for before in ("", "a", "ab", "user:"):
        assert leaks(base64.b64encode(f"{before}{word}".encode()).decode(), [word]) == [word]
    assert leaks(f"http://h/?t={quote(word, safe='')}", [word]) == [word]
    assert leaks("canary", [word]) == []


def test_no_credential_comes_out_anywhere(
    database_url: str,
    tmp_path: Path,
    clip: Clip,
    s3_bucket: S3Bucket,
    http_server: HttpServer,
    ftp_server: FtpServer,
    webhook_receiver: WebhookReceiver,
) -> None:
    places = Places(s3_bucket, http_server, ftp_server, webhook_receiver)
    http_server.serve("/in.mp4", clip(CLIP).read_bytes())
    http_server.serve("/long.mp4", clip(LONG_CLIP).read_bytes())
    http_server.serve("/logo.png", LOGO)
    s3_bucket.put("in.mp4", clip(CLIP).read_bytes())
    settings = {
        "ENCODER_AUTH": "keys",
        "ENCODER_API_KEY": API_KEY,
        "ENCODER_SECRET_KEY": OPERATORS_KEY,
        "ENCODER_LOG_LEVEL": "debug",
    }
    with encoder_up(database_url, tmp_path, **settings) as service, watched(service) as seen:
        service.headers["Authorization"] = f"Bearer {API_KEY}"
        for request in (places.all_right(), places.from_s3()):
            job = service.run(request)
            assert job["status"] == "completed", job
        for request in (places.no_destination_takes_it(), *places.no_source_gives_it()):
            assert service.run(request)["status"] == "failed"

        number = service.submit(places.long())
        service.wait_for(number, is_encoding)
        service.kill()
        left_by_the_killed = files_under(tmp_path)
        service.start()
        job = service.wait_for(number, lambda job: job["status"] in FINAL)
        assert job["status"] == "completed", job

        deliveries = webhook_receiver.wait_for(
            lambda all_: {d.body["type"] for d in all_} >= {"job.completed", "job.failed"}
        )
        answers = everything_readable(service)
        assert service.stop() == 0

    words = {*places.words, SECRET, OPERATORS_KEY, API_KEY}
    assert len(seen.command_lines) > 10
    assert any("ffmpeg" in line for line in seen.command_lines)
    found = {
        "command lines": leaks("\n".join(seen.command_lines), words),
        "environments": leaks("\n".join(seen.environments), words),
        "files left by the killed": leaks(left_by_the_killed, words),
        "files": leaks(files_under(tmp_path), words),
        "rows": leaks(every_row(service.database_url), words),
        "webhooks": leaks("\n".join(str(d.raw) for d in deliveries), words),
        **{path: leaks(text, words) for path, text in answers.items()},
    }
    assert {where: what for where, what in found.items() if what} == {}


class Places:
    """Requests whose credentials are words of their own; `words` has all of them."""

    def __init__(
        self, s3: S3Bucket, http: HttpServer, ftp: FtpServer, hooks: WebhookReceiver
    ) -> None:
        self.s3, self.http, self.ftp, self.hooks = s3, http, ftp, hooks
        # These servers let in only who has their own; those are as good to search for.
        self.words = {s3.server.root.secret_key, ftp.fields("x")["password"]}

    def word(self, name: str) -> str:
        self.words.add(canary(name))
        return canary(name)

    def signed(self, url: str, name: str) -> str:
        return f"{url}?token={quote(self.word(name), safe='')}"

    def hook(self, name: str) -> str:
        user = quote(self.word(f"{name}-user"), safe="")
        return self.signed(f"{self.hooks.url}/{name}", name).replace("://", f"://hook:{user}@")

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.word(name)}", "X-Key": self.word(f"{name}-key")}

    def all_right(self) -> dict[str, Any]:
        upload = self.signed(f"{self.http.url}/up/a.mp4", "upload")
        return {
            "source": {
                "kind": "http",
                "url": self.signed(f"{self.http.url}/in.mp4", "source"),
                "headers": self.headers("source-header"),
            },
            "outputs": [
                an_output(
                    {"kind": "http", "url": upload, "headers": self.headers("put")},
                    watermark={
                        "source": {
                            "kind": "http",
                            "url": self.signed(f"{self.http.url}/logo.png", "image"),
                            "headers": self.headers("image-header"),
                        }
                    },
                ),
                an_output(self.s3.fields("a.mp4"), watermark={"source": INLINE_LOGO}),
                an_output(self.ftp.fields("a.mp4")),
            ],
            "notificationUrl": self.hook("completed"),
        }

    def from_s3(self) -> dict[str, Any]:
        return {
            "source": self.s3.fields("in.mp4"),
            "outputs": [an_output({"kind": "file", "path": "from-s3.mp4"})],
        }

    def no_destination_takes_it(self) -> dict[str, Any]:
        self.http.misbehave("/up/no.mp4", Fault(status=403))
        self.hooks.answer("/failed", Answer(status=500))
        keys = {
            "access_key_id": self.word("key-id"),
            "access_key_secret": self.word("key-secret"),
            "session_token": self.word("session"),
        }
        login = {"user": self.word("ftp-user"), "password": self.word("ftp-password")}
        upload = self.signed(f"{self.http.url}/up/no.mp4", "refused-upload")
        image = {
            "kind": "http",
            "url": self.signed(f"{self.http.url}/denied.png", "refused-image"),
            "headers": self.headers("refused-image-header"),
        }
        image_keys = {
            "access_key_id": self.word("image-key-id"),
            "access_key_secret": self.word("image-key-secret"),
        }
        in_store = {**self.s3.fields("no.png"), **image_keys}
        self.http.misbehave("/denied.png", Fault(status=403))
        return {
            "source": {"kind": "http", "url": f"{self.http.url}/in.mp4"},
            "outputs": [
                an_output({"kind": "file", "path": "a.mp4"}, watermark={"source": image}),
                an_output({"kind": "file", "path": "b.mp4"}, watermark={"source": in_store}),
                an_output({**self.s3.fields("no.mp4"), **keys}),
                an_output({**self.ftp.fields("no.mp4"), **login}),
                an_output({"kind": "http", "url": upload, "headers": self.headers("refused")}),
            ],
            "notificationUrl": self.hook("failed"),
        }

    def no_source_gives_it(self) -> Iterator[dict[str, Any]]:
        moved = self.signed(f"{self.http.url}/gone.mp4", "redirect")
        self.http.misbehave("/moved.mp4", Fault(redirect_to=moved))
        self.http.misbehave("/denied.mp4", Fault(status=403))
        login = quote(self.word("url-password"), safe="")
        ftp = self.ftp.fields("in.mp4")
        for source in (
            {"kind": "http", "url": f"{self.http.url}/moved.mp4", "headers": self.headers("moved")},
            {"kind": "http", "url": self.signed(f"{self.http.url}/denied.mp4", "denied")},
            {"kind": "ftp", "url": f"ftp://me:{login}@{ftp['host']}:{ftp['port']}/in.mp4"},
            {**self.s3.fields("in.mp4"), "access_key_secret": self.word("source-secret")},
        ):
            yield {
                "source": source,
                "outputs": [an_output({"kind": "file", "path": "never.mp4"})],
            }

    def long(self) -> dict[str, Any]:
        upload = self.signed(f"{self.http.url}/up/long.mp4", "upload-after-crash")
        return {
            "source": {
                "kind": "http",
                "url": self.signed(f"{self.http.url}/long.mp4", "source-before-crash"),
                "headers": self.headers("crash"),
            },
            "outputs": [
                an_output(
                    {"kind": "http", "url": upload, "headers": self.headers("put-after-crash")},
                    preset="medium",
                    width=640,
                    height=360,
                )
            ],
            "notificationUrl": self.hook("crashed"),
        }


class Watched:
    """Command lines and environments of all processes below one, as `ps` would show them."""

    def __init__(self) -> None:
        self.command_lines: set[str] = set()
        self.environments: set[str] = set()

    def look(self, pid: int) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            for child in children_of(pid):
                self._note(child, parent=pid)
                self.look(child)

    def _note(self, pid: int, *, parent: int) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            line = _of(pid, "cmdline")
            if line != _of(parent, "cmdline"):  # else it is about to become another program
                self.command_lines.add(line)
                self.environments.add(_of(pid, "environ"))


def _of(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_bytes().decode("latin-1")


@contextmanager
def watched(service: Service) -> Iterator[Watched]:
    """Look at the processes all the time, as short as they may live."""
    seen, over = Watched(), threading.Event()

    def work() -> None:
        while not over.wait(LOOK_S):
            if service.process is not None:
                seen.look(service.process.pid)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def everything_readable(service: Service) -> dict[str, str]:
    """The text of every GET that the service documents for people, for every job."""
    answers = {}
    jobs = service.get("/jobs").json()["jobs"]
    document = service.get("/openapi.json").json()
    for path in (path for path, methods in document["paths"].items() if "get" in methods):
        if path.startswith("/internal/"):
            continue  # for workers, with the token of an attempt
        of_jobs = path.startswith("/jobs/{id}")
        assert of_jobs or "{" not in path, f"{path} needs to be filled in"
        for one in jobs if of_jobs else jobs[:1]:
            url = path.replace("{id}", str(one["id"]))
            response = service.get(url)
            assert response.status_code == 200, (url, response.text)
            answers[url] = f"{response.headers}{response.text}"
    assert len(answers) > 7 * len(jobs)  # a job has so many pages
    return answers


def every_row(database_url: str) -> str:
    """All columns of all tables; bytes as text and as base64."""
    engine = create_engine(make_url(database_url))
    parts: list[str] = []
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for value in (value for row in connection.execute(select(table)) for value in row):
                if isinstance(value, bytes):
                    parts += [value.decode("latin-1"), base64.b64encode(value).decode()]
                else:
                    parts.append(str(value))
    engine.dispose()
    assert parts
    return "\n".join(parts)


def files_under(folder: Path) -> str:
    """All files as they lie there: data, logs, scratch, and a SQLite file's free pages."""
    return "\n".join(
        path.read_bytes().decode("latin-1") for path in sorted(folder.rglob("*")) if path.is_file()
    )
