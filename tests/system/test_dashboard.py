"""The dashboard in a real browser, on the real API and a real database."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydantic import SecretStr

from encoder_api.app import create_app
from encoder_api.server import ApiServer
from encoder_api.settings import ApiSettings
from encoder_core.failures import failure
from encoder_core.reports import (
    Envelope,
    FinalReport,
    Outcome,
    OutputFile,
    OutputReport,
    OutputResult,
    Phase,
    ProgressReport,
    Report,
    SourceInfo,
    SourceReport,
    Started,
)
from encoder_core.retries import RetryLimits
from encoder_core.sealing import KeyRing
from encoder_core.states import OutputStatus
from encoder_db import attempts, migrations, outcomes, queue, reports
from encoder_db.attempts import Claimed
from encoder_db.store import Store

CHROMIUM_OPTIONS = [
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
CANARY = "wJalrXUtnFEMI-canary"
KEY = "enc_dashboard_" + "k" * 32
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\u202e4pm.exe"
HOSTILE_SHOWN = HOSTILE.replace("\u202e", "⟨U+202E⟩")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)  # the page asks every 2 s; two busy cores need the rest
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=CHROMIUM_OPTIONS
        )
        yield browser
        browser.close()


@dataclass
class Service:
    """The API on a port of its own, and a worker played by the test."""

    store: Store
    settings: ApiSettings
    port: int = 0
    _running: list[tuple[ApiServer, threading.Thread]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        server = ApiServer(
            create_app(self.settings, self.store),
            host="127.0.0.1",
            port=self.port,
            shutdown_s=1,
        )
        self.port = server.port
        ready = threading.Event()
        thread = threading.Thread(target=server.run, kwargs={"ready": ready.set})
        thread.start()
        assert ready.wait(20)
        self._running.append((server, thread))

    def stop(self) -> None:
        while self._running:
            server, thread = self._running.pop()
            server.stop()
            thread.join(20)

    def submit(self, **changes: Any) -> int:
        """One job with two outputs, over HTTP as anybody would; returns its number."""
        body = {
            "source": {
                "kind": "s3",
                "bucket": "uploads",
                "path": "2026/keynote.mov",
                "access_key_id": "AKIA-canary",
                "access_key_secret": CANARY,
            },
            "outputs": [output(1080), output(720)],
        }
        headers = {"Authorization": f"Bearer {KEY}"} if self.settings.api_key else {}
        answer = requests.post(f"{self.url}/jobs", json=body | changes, headers=headers, timeout=20)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    def begin(self) -> Claimed:
        """Take the next job and start it."""
        [message] = queue.claim(self.store, engine="local", worker="test", limit=1, lease_s=600)
        claimed = attempts.open_attempt(self.store, message, executor="local", worker="test")
        assert isinstance(claimed, Claimed)
        attempts.mark_starting(self.store, claimed)
        self.report(claimed, Started())
        return claimed

    def report(self, claimed: Claimed, report: Report) -> None:
        answer = reports.apply_report(
            self.store,
            Envelope(
                job_uuid=claimed.job.uuid,
                attempt=claimed.attempt,
                token=SecretStr(claimed.token),
                report=report,
            ),
        )
        assert answer.accepted

    def upload(self, claimed: Claimed, index: int, *, url: str) -> None:
        result = OutputResult(
            files=[
                OutputFile(
                    url=url, size_bytes=48_200_000, sha256="0" * 64, content_type="video/mp4"
                )
            ],
            size_bytes=48_200_000,
            duration_s=634.5,
            container="mp4",
            video_codec="h264",
            width=1920,
            height=1080,
            frame_rate=23.976,
            video_bitrate=2_480_000,
            audio_codec="aac",
        )
        self.report(claimed, OutputReport(index=index, status=OutputStatus.UPLOADED, result=result))

    def fail(self, claimed: Claimed, message: str) -> None:
        because = failure("destination_denied", message, output=1, detail="libx264 said so")
        self.report(claimed, FinalReport(outcome=Outcome.FAILED, failure=because))
        outcomes.finish_attempt(
            self.store,
            claimed.job.id,
            claimed.attempt,
            exit_code=1,
            limits=RetryLimits(),
            jitter=0.0,
        )


def output(height: int) -> dict[str, Any]:
    return {
        "container": "mp4",
        "videoCodec": "libx264",
        "height": height,
        "destination": {"kind": "s3", "bucket": "results", "path": f"keynote_{height}p.mp4"},
    }


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []
    with Store.open(f"sqlite:///{tmp_path / 'encoder.db'}", keys=KeyRing([bytes(32)])) as store:
        migrations.migrate(store)

        def make(**settings: Any) -> Service:
            service = Service(store, ApiSettings(**settings))
            service.start()
            made.append(service)
            return service

        yield make
        for service in made:
            service.stop()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


PageMaker = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[PageMaker]:
    """Open an address. A page that breaks a rule of its security policy fails the test."""
    with browser_pages(browser) as (make, complaints):
        yield make
    assert complaints == []


@contextmanager
def browser_pages(browser: Browser) -> Iterator[tuple[PageMaker, list[str]]]:
    complaints: list[str] = []
    contexts = []

    def make(url: str, *, width: int = 1280, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            # A refused connection and a 401 are what some tests are about.
            lambda said: (
                complaints.append(said.text)
                if said.type == "error" and "Failed to load resource" not in said.text
                else None
            ),
        )
        page.goto(url)
        return page

    try:
        yield make, complaints
    finally:
        for context in contexts:
            context.close()


def row(page: Page, job_id: int) -> Any:
    return page.locator("#rows tr").filter(has=page.locator(f'a[href="#/jobs/{job_id}"]'))


def look_again(page: Page) -> None:
    """Ask the API now instead of after two seconds, as a laptop does that is online again."""
    page.evaluate("dispatchEvent(new Event('online'))")


def test_jobs_appear_and_go_on_without_a_reload(service: Service, open_page: PageMaker) -> None:
    page = open_page(service.url)
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    page.evaluate("window.sameDocument = true")

    job_id = service.submit()
    expect(row(page, job_id)).to_contain_text("keynote.mov")
    expect(row(page, job_id).locator(".chip")).to_have_text("queued")

    claimed = service.begin()
    service.report(
        claimed, ProgressReport(phase=Phase.ENCODING, percent=41.9, speed=1.84, eta_s=95)
    )
    expect(row(page, job_id).locator(".chip")).to_have_text("running")
    expect(row(page, job_id).get_by_role("progressbar")).to_have_attribute("aria-valuenow", "41")
    expect(row(page, job_id)).to_contain_text("encoding · 1.8\u00d7 · 1 m 35 s left")

    service.upload(claimed, 0, url="https://cdn.example.com/keynote_1080p.mp4")
    expect(row(page, job_id).locator(".c-outputs")).to_have_text("1/2")
    assert page.evaluate("window.sameDocument")


def test_the_detail_view_says_what_was_asked_for_and_what_became_of_it(
    service: Service, open_page: PageMaker
) -> None:
    job_id = service.submit(externalId="launch", metadata={"campaign": "spring"})
    claimed = service.begin()
    stream = {
        "codec_type": "video",
        "codec_name": "prores",
        "width": 1920,
        "height": 1080,
        "avg_frame_rate": "24000/1001",
        "bit_rate": "147000000",
    }
    service.report(
        claimed,
        SourceReport(source=SourceInfo(size_bytes=1_200_000_000, duration_s=61, streams=[stream])),
    )
    service.upload(claimed, 0, url="https://cdn.example.com/keynote_1080p.mp4")
    service.fail(claimed, "results refused access (403).")

    page = open_page(f"{service.url}/#/jobs/{job_id}")
    detail = page.locator("#detail")
    expect(detail.get_by_role("heading", name=f"Job {job_id}")).to_be_visible()
    expect(detail.locator(".head .chip")).to_have_text("failed")
    expect(detail.locator(".failure")).to_contain_text("results refused access (403).")
    expect(detail.locator(".failure")).to_contain_text("Check the credentials")
    first, second = detail.locator(".outputs li").all()
    expect(first).to_contain_text("1920 \u00d7 1080 · h264 · 23.98 fps · 2.5 Mb/s · aac")
    expect(first).to_contain_text("48.2 MB · 10:35")
    expect(first.get_by_role("link")).to_have_attribute(
        "href", "https://cdn.example.com/keynote_1080p.mp4"
    )
    expect(second.locator(".chip")).to_have_text("failed")
    for said in (
        "launch",
        "spring",
        "prores · 1920 \u00d7 1080 · 23.98 fps · 147.0 Mb/s",
        "1.2 GB",
        "1:01",
    ):
        expect(detail).to_contain_text(said)
    expect(detail.locator(".timeline .word")).to_have_text(
        ["queued", "starting", "running", "output 1 uploaded", "failed"]
    )
    detail.get_by_text("Request", exact=True).click()
    expect(detail.locator("pre").last).to_contain_text('"path": "2026/keynote.mov"')
    assert CANARY not in page.content()


def test_a_job_that_waits_says_why_and_how_many_come_before_it(
    service: Service, open_page: PageMaker
) -> None:
    service.submit()
    job_id = service.submit()
    page = open_page(f"{service.url}/#/jobs/{job_id}")
    facts = page.locator("#detail .facts").first
    expect(facts).to_contain_text("Its turn comes next or soon in pool default.")
    expect(facts).to_contain_text("1 job before it")


def test_the_events_of_a_large_job_are_shown_although_they_fill_several_pages(
    service: Service, open_page: PageMaker
) -> None:
    image = {"kind": "https", "url": "https://media.example/?a=" + "é" * 4000}
    job = service.submit(outputs=[output(720) | {"watermark": {"source": image}}] * 32)
    for _ in range(8):
        assert requests.post(f"{service.url}/jobs/{job}/bump", timeout=20).ok
    events = requests.get(f"{service.url}/jobs/{job}/events", timeout=20).json()
    assert events["nextAfter"] is not None
    detail = open_page(f"{service.url}/#/jobs/{job}").locator("#detail")
    expect(detail.locator(".timeline .word")).to_have_text(["queued", *["bumped"] * 8])


def test_whatever_a_caller_wrote_is_shown_as_text(service: Service, open_page: PageMaker) -> None:
    job_id = service.submit(
        source={"kind": "ftp", "host": "ftp.example.com", "path": f"/{HOSTILE}"},
        externalId=HOSTILE,
        metadata={"note": HOSTILE},
    )
    claimed = service.begin()
    service.upload(claimed, 0, url=f"javascript:window.hacked=1//{HOSTILE}")
    service.fail(claimed, f"cannot write {HOSTILE}")

    page = open_page(f"{service.url}/#/jobs/{job_id}")
    expect(page.locator("#detail .failure")).to_contain_text(f"cannot write {HOSTILE_SHOWN}")
    expect(page.locator("#detail .facts").first).to_contain_text(HOSTILE_SHOWN)
    expect(page.locator("#detail .address")).to_contain_text("javascript:window.hacked=1")
    expect(row(page, job_id).locator(".said")).to_contain_text(f"cannot write {HOSTILE_SHOWN}")
    assert page.locator("#detail .address a, #detail a.address").count() == 0
    assert page.locator("#page img, #page script").count() == 0
    assert page.evaluate("window.hacked") is None


def test_cancel_retry_and_delete_ask_first(service: Service, open_page: PageMaker) -> None:
    job_id = service.submit()
    page = open_page(f"{service.url}/#/jobs/{job_id}")
    chip = page.locator("#detail .head .chip")

    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Keep it").click()
    look_again(page)
    expect(chip).to_have_text("queued")

    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(chip).to_have_text("canceled")

    page.get_by_role("button", name="Retry", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(page.locator("#toast")).to_be_visible()

    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("#toast")).to_have_text(f"Job {job_id} is deleted.")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()


def test_jobs_are_filtered_by_status_and_by_text(service: Service, open_page: PageMaker) -> None:
    first, second = service.submit(externalId="trailer"), service.submit()
    service.begin()
    page = open_page(service.url)
    page.get_by_role("button", name="Queued").click()
    expect(row(page, first)).to_have_count(0)
    expect(row(page, second)).to_be_visible()

    page.get_by_role("button", name="All").click()
    page.keyboard.press("/")
    page.keyboard.type("trailer keynote")
    expect(row(page, first)).to_be_visible()
    expect(row(page, second)).to_have_count(0)

    page.keyboard.type(" nothing-like-it")
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator("#rows tr")).to_have_count(2)


def test_where_keys_are_in_force_a_login_is_asked_for(
    make_service: Callable[..., Service], open_page: PageMaker
) -> None:
    service = make_service(api_key=SecretStr(KEY))
    job_id = service.submit()
    page = open_page(service.url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#page")).to_be_hidden()

    page.get_by_label("API key").fill("enc_wrong_key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This key is not known, or it was revoked.")

    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(row(page, job_id)).to_be_visible()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    kept = page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, location, document.cookie])"
    )
    assert KEY not in kept

    page.reload()
    expect(row(page, job_id)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_lost_connection_is_said_and_mends_itself(service: Service, open_page: PageMaker) -> None:
    job_id = service.submit()
    page = open_page(service.url)
    expect(row(page, job_id)).to_be_visible()
    service.stop()
    expect(page.locator("#banner")).to_contain_text("connection to the server is lost")
    expect(row(page, job_id)).to_be_visible()
    service.start()
    expect(page.locator("#banner")).to_be_hidden()


def test_a_job_that_is_not_there_is_said_so(service: Service, open_page: PageMaker) -> None:
    page = open_page(f"{service.url}/#/jobs/4711")
    expect(page.locator("#detail")).to_contain_text("There is no such job.")


def test_the_keyboard_is_enough(service: Service, open_page: PageMaker) -> None:
    first, second = service.submit(), service.submit()
    page = open_page(service.url)
    expect(row(page, first)).to_be_visible()
    heading = page.locator("#detail h2")
    page.keyboard.press("j")
    expect(heading).to_have_text(f"Job {second}")
    page.keyboard.press("j")
    expect(heading).to_have_text(f"Job {first}")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator(f'a[href="#/jobs/{first}"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(heading).to_have_text(f"Job {first}")


@pytest.mark.parametrize("width", [375, 800, 1100, 1600])
def test_nothing_is_wider_than_the_window(
    width: int, service: Service, open_page: PageMaker
) -> None:
    job_id = service.submit(
        source={"kind": "https", "url": "https://example.com/" + "long-" * 60 + ".mp4"}
    )
    claimed = service.begin()
    service.upload(claimed, 0, url="https://cdn.example.com/" + "a" * 300)
    service.fail(claimed, "w" * 500)
    page = open_page(service.url, width=width)
    expect(row(page, job_id)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"{service.url}/#/jobs/{job_id}")
    expect(page.locator("#detail .failure")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
