"""`encoder demo`: the main job from end to end, on this machine, in front of your eyes."""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import requests
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from encoder_api.webhooks.signing import read_secrets, sign
from encoder_cli.receiver import Received, Receiver
from encoder_core.errors import ConfigurationError

START_TIMEOUT_S = 30.0
POLL_S = 0.2
FINAL = {"completed", "failed", "canceled"}


class DemoFailed(Exception):
    """The demo did not end well; the message says why."""


def run_demo(*, source: str | None, folder: Path, console: Console) -> None:
    """
    Run one job with two outputs. Raises DemoFailed.

    `source` is a path or a URL; without one, a clip is made with ffmpeg. Everything stays under
    `folder`: `files` (source and outputs), `data` (the database), `encoder.log`.
    """
    for tool in ("ffmpeg", "ffprobe"):
        if shutil.which(tool) is None:
            raise DemoFailed(f"{tool} is not installed; `make setup` installs it")
    files = folder / "files"
    (files / "out").mkdir(parents=True, exist_ok=True)
    request_source = prepare_source(source, files, console)
    with Receiver() as receiver:
        webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        with running_encoder(folder, files, webhook_secret, console) as url:
            job = submit(url, request_source, receiver.url, console)
            final = follow(url, job, console)
            webhook = receiver.wait_for({f"job.{final['status']}"}, timeout_s=10)
            show_webhooks(receiver, webhook, webhook_secret, console)
        if final["status"] != "completed":
            raise DemoFailed(reason_of(final))
    show_outputs(final, files, console)


def prepare_source(source: str | None, files: Path, console: Console) -> dict[str, Any]:
    """The request's `source`: a made clip, a copied file, or the URL as it is."""
    if source and "://" in source:
        scheme = source.partition("://")[0].lower()
        if scheme not in {"http", "https", "ftp"}:
            raise DemoFailed(f"SOURCE may be a path or an http, https or ftp URL, not {scheme}://")
        return {"kind": "ftp" if scheme == "ftp" else scheme, "url": source}
    if source:
        path = Path(source).expanduser()
        if not path.is_file():
            raise DemoFailed(
                f"{path} is not a file; give the path of a video, or an http, https or ftp URL"
            )
        name = "source" + path.suffix.lower()
        try:
            shutil.copyfile(path, files / name)
        except OSError as error:
            raise DemoFailed(f"{path} cannot be copied: {error.strerror}") from error
        return {"kind": "file", "path": name}
    console.print("[dim]Making a clip: 10 s of 720p with sound[/]")
    make_clip(files / "clip.mp4")
    return {"kind": "file", "path": "clip.mp4"}


def make_clip(path: Path) -> None:
    run_tool(
        [
            *("ffmpeg", "-nostdin", "-v", "error", "-y"),
            *("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30:duration=10"),
            *("-f", "lavfi", "-i", "sine=frequency=440:duration=10"),
            *("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"),
            *("-c:a", "aac", str(path)),
        ]
    )


def run_tool(command: list[str]) -> bytes:
    """What it prints. Raises DemoFailed with its last words."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise DemoFailed(f"{command[0]} ended with {done.returncode}: {said[-500:]}")
    return done.stdout


@contextmanager
def running_encoder(
    folder: Path, files: Path, webhook_secret: str, console: Console
) -> Iterator[str]:
    """`encoder up` as a process of its own on a free loopback port, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MYSQL_")},
        "PORT": str(port),
        "ENCODER_HOST": "127.0.0.1",
        "ENCODER_AUTH": "off",
        "ENCODER_DATA_DIR": str(folder / "data"),
        "ENCODER_FILES_ROOT": str(files),
        "ENCODER_WEBHOOK_SECRET": webhook_secret,
        # The webhook receiver of this demo is on loopback, where users' hosts never are.
        "ENCODER_EGRESS_ALLOWED_CIDRS": "127.0.0.0/8,::1/128",
        "QUEUE_POLL_INTERVAL_MS": "200",
    }
    log_path = folder / "encoder.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "encoder_cli", "up"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(url, process, log_path)
        console.print(f"[dim]encoder up listens on {url}[/]")
        try:
            yield url
        except requests.RequestException as error:
            raise DemoFailed(f"encoder up does not answer:\n{tail_of(log_path)}") from error
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = monotonic() + START_TIMEOUT_S
    while monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if client().get(f"{url}/readyz", timeout=2).ok:
                return
        except (requests.ConnectionError, requests.Timeout):
            pass
        sleep(0.1)
    raise DemoFailed(f"encoder up did not start:\n{tail_of(log_path)}")


def tail_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


def client() -> requests.Session:
    """One that goes to loopback itself, whatever proxy the environment names."""
    session = requests.Session()
    session.trust_env = False
    return session


def submit(url: str, source: dict[str, Any], webhook: str, console: Console) -> int:
    request = {
        "source": source,
        "outputs": [
            {
                "container": "mp4",
                "videoCodec": "libx264",
                "videoBitrate": f"{kbps}k",
                "audioCodec": "aac",
                "audioBitrate": "128k",
                "height": height,
                "preset": "veryfast",
                "destination": {"kind": "file", "path": f"out/video_{height}p.mp4"},
            }
            for height, kbps in ((720, 2500), (360, 800))
        ],
        "notificationUrl": webhook,
    }
    response = client().post(f"{url}/jobs", json=request, timeout=30)
    if response.status_code != 202:
        raise DemoFailed(f"POST /jobs answered {response.status_code}: {response.text}")
    accepted = response.json()
    console.print(f"[bold]POST /jobs[/] → 202 {json.dumps(accepted)}", soft_wrap=True)
    return int(accepted["id"])


def follow(url: str, job: int, console: Console) -> dict[str, Any]:
    """Show the job's progress until it ends; its final document."""
    columns = (
        TextColumn("{task.fields[status]:<10}"),
        BarColumn(bar_width=40),
        TextColumn("{task.percentage:>5.1f} %"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress, client() as session:
        task = progress.add_task("job", total=100, status="queued", note="")
        while True:
            response = session.get(f"{url}/jobs/{job}", timeout=10)
            response.raise_for_status()
            document: dict[str, Any] = response.json()
            now = document["progress"] or {}
            status = document["status"]
            speed = f"{now['speed']:.1f}x" if now.get("speed") else ""
            progress.update(
                task,
                completed=100 if status == "completed" else now.get("percent", 0),
                status=status,
                note=" ".join(filter(None, [now.get("phase"), speed])),
            )
            if status in FINAL:
                return document
            sleep(POLL_S)


def show_webhooks(
    receiver: Receiver, final: Received | None, webhook_secret: str, console: Console
) -> None:
    if final is None:
        raise DemoFailed("the final webhook did not come")
    types = [received.event["type"] for received in receiver.received()]
    if not is_signed(final, webhook_secret):
        raise DemoFailed("the webhook's signature does not verify")
    console.print(
        f"[bold]Webhooks[/] {' → '.join(types)} [dim](signature verified)[/]", soft_wrap=True
    )


def is_signed(webhook: Received, secret: str) -> bool:
    """Whether the webhook is from whoever has the secret; what every receiver should check."""
    expected = sign(
        read_secrets(secret),
        message_id=webhook.headers["webhook-id"],
        timestamp=int(webhook.headers["webhook-timestamp"]),
        body=webhook.body,
    )
    return hmac.compare_digest(expected, webhook.headers["webhook-signature"])


def show_outputs(job: dict[str, Any], files: Path, console: Console) -> None:
    """A path has its line to itself: it is of use only as a whole."""
    for output in job["outputs"]:
        path = files / output["spec"]["destination"]["path"]
        console.print(escape(os.path.relpath(path)), style="bold", soft_wrap=True)
        console.print("  " + ", ".join(describe(path)))


def describe(path: Path) -> tuple[str, str, str, str]:
    """What ffprobe says of a file: video, audio, duration, size."""
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", str(path)]
    probe = json.loads(run_tool(command))
    video = next((s for s in probe["streams"] if s["codec_type"] == "video"), None)
    audio = next((s for s in probe["streams"] if s["codec_type"] == "audio"), None)
    return (
        f"{video['codec_name']} {video['width']}x{video['height']}" if video else "no video",
        f"{audio['codec_name']} {audio['channels']}ch" if audio else "no audio",
        f"{float(probe['format']['duration']):.2f} s",
        f"{int(probe['format']['size']) / 1e6:.2f} MB",
    )


def reason_of(job: dict[str, Any]) -> str:
    failure = job.get("failure")
    if not failure:
        return f"the job ended {job['status']}"
    detail = f"\n{failure['detail']}" if failure.get("detail") else ""
    return f"{failure['code']}: {failure['message']} {failure['hint']}{detail}"


def check_demo_folder(folder: Path) -> Path:
    """The folder, made if it is missing. Raises ConfigurationError when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make {folder}: {error.strerror}") from error
    return folder.resolve()
