"""
A unique word in every credential field, and none of them comes out anywhere.

The service runs with real places: jobs that succeed, that fail at each side, one whose service is
killed in the middle, those whose credentials are replaced, a probe and a plan. Then everything is
searched: tables, files, logs, answers, webhooks, the command lines and environments of every
process.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from tests.canaries import canary, leaks
from tests.harness.canary_jobs import Places
from tests.harness.readable import every_answer, every_row
from tests.servers.ftp import FtpServer
from tests.servers.http import HttpServer
from tests.servers.s3 import S3Bucket
from tests.servers.webhooks import SECRET, WebhookReceiver
from tests.system.service import FINAL, Service, encoder_up
from tests.system.test_contract import CLIP, LONG_CLIP
from tests.system.test_restart import children_of, is_encoding

Clip = Callable[[str], Path]

OPERATORS_KEY = base64.b64encode(b"thirty-two bytes of a secret key").decode()
API_KEY = "an-api-key-of-the-first-start-0123456789"
LOOK_S = 0.03
TOLD = {
    ("/completed", "job.completed"),
    ("/failed", "job.failed"),
    ("/waiting", "job.completed"),
    ("/retried", "job.failed"),
    ("/retried", "job.completed"),
    ("/probed", "job.completed"),
}


def test_a_word_finds_itself_in_every_form() -> None:
    word = canary("x")
    for before in ("", "a", "ab", "user:"):
        assert leaks(base64.b64encode(f"{before}{word}".encode()).decode(), [word]) == [word]
    assert leaks(f"http://h/?t={quote(word, safe='')}", [word]) == [word]
    escaped = f'{word}"\\é'
    once = json.dumps({"user": escaped})
    assert leaks(once, [escaped]) == leaks(json.dumps(once), [escaped]) == [escaped]
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
    places.serve(clip(CLIP).read_bytes(), clip(LONG_CLIP).read_bytes())
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
        said = {
            **said_of_a_patch(service, places),
            **said_of_retries(service, places),
            **said_of_previews(service, places),
        }

        number = service.submit(places.long())
        service.wait_for(number, is_encoding)
        service.kill()
        left_by_the_killed = files_under(tmp_path)
        service.start()
        job = service.wait_for(number, lambda job: job["status"] in FINAL)
        assert job["status"] == "completed", job

        deliveries = webhook_receiver.wait_for(
            lambda all_: {(d.path.partition("?")[0], d.body["type"]) for d in all_} >= TOLD
        )
        listed = service.get("/jobs").json()["jobs"]
        answers = every_answer(service.get, [job["id"] for job in listed])
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
        **{where: leaks(text, words) for where, text in {**answers, **said}.items()},
    }
    assert {where: what for where, what in found.items() if what} == {}


def said_of_a_patch(service: Service, places: Places) -> dict[str, str]:
    """A job that gets the credentials it needs while it waits; and what is there while it does."""
    assert service.patch("/pools/default", {"stopPolicy": "Hold"}).ok
    number = service.submit(places.outdated("waiting"))
    path = f"/jobs/{number}/credentials"
    told = {}
    for name, new, status in (
        ("no better", places.still_refused("waiting"), 200),
        ("of no such field", {"/source/kind": places.word("waiting-misplaced")}, 422),
        ("that does not fit", {"/source/url": f"no-url-{places.word('waiting-misfit')}"}, 422),
        ("right", places.accepted_at_last("waiting"), 200),
    ):
        response = service.patch(path, {"credentials": new})
        assert response.status_code == status, response.text
        told[f"PATCH of credentials, {name}"] = f"{response.headers}{response.text}"
    told["rows while it waits"] = every_row(service.database_url)
    assert service.patch("/pools/default", {"stopPolicy": "None"}).ok
    job = service.wait_for(number, lambda job: job["status"] in FINAL)
    assert job["status"] == "completed", job
    used = {seen.headers.get("x-key") for seen in places.http.requests}
    assert canary("waiting-new-source-header-key") in used
    assert used.isdisjoint(canary(f"waiting{which}-source-header-key") for which in ("", "-again"))
    return told


def said_of_retries(service: Service, places: Places) -> dict[str, str]:
    """A failed job that is tried again with credentials that are no better, then with the right."""
    number = service.run(places.outdated("retried"))["id"]
    told = {}
    for status, new in (
        ("failed", places.still_refused("retried")),
        ("completed", places.accepted_at_last("retried")),
    ):
        response = service.post(f"/jobs/{number}/retry", {"credentials": new})
        assert response.status_code == 202, response.text
        told[f"retry of one that then is {status}"] = f"{response.headers}{response.text}"
        job = service.wait_for(number, lambda job: job["status"] in FINAL)
        assert job["status"] == status, job
        told[f"rows once it is {status}"] = every_row(service.database_url)
    return told


def said_of_previews(service: Service, places: Places) -> dict[str, str]:
    """A probe, and a plan: what is right, and what is refused."""
    told = {}
    for path, request, status in (
        ("/probe", places.to_probe("probed"), 202),
        ("/probe", {**places.to_probe("refused-probe"), "pool": "nowhere"}, 422),
        ("/plan", places.to_plan(), 200),
        ("/plan", {**places.to_plan(), "pool": "nowhere"}, 422),
    ):
        response = service.post(path, request)
        assert response.status_code == status, response.text
        told[f"POST {path}, {status}"] = f"{response.headers}{response.text}"
        if status == 202:
            number = response.json()["id"]
            job = service.wait_for(number, lambda job: job["status"] in FINAL)
            assert (job["status"], job["outputs"]) == ("completed", []), job
    return told


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


def files_under(folder: Path) -> str:
    """All files as they lie there: data, logs, scratch, and a SQLite file's free pages."""
    return "\n".join(
        path.read_bytes().decode("latin-1") for path in sorted(folder.rglob("*")) if path.is_file()
    )
