"""
Jobs with a unique word in every credential field: one that goes well, one that fails at each side,
one that lasts long enough to be killed, and those whose credentials are replaced.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from tests.canaries import canary
from tests.servers.ftp import FtpServer
from tests.servers.http import Fault, HttpServer
from tests.servers.s3 import S3Bucket
from tests.servers.webhooks import Answer, WebhookReceiver

# A PNG of one red pixel.
LOGO: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
INLINE_LOGO: Final = {"kind": "inline", "data": base64.b64encode(LOGO).decode()}


class Places:
    """Requests whose credentials are words of their own, to servers that know what is theirs."""

    def __init__(
        self, s3: S3Bucket, http: HttpServer, ftp: FtpServer, hooks: WebhookReceiver
    ) -> None:
        self.s3, self.http, self.ftp, self.hooks = s3, http, ftp, hooks
        self.canaries: set[str] = set()
        # These servers let in only who has their own; those are as good to search for.
        self._of_servers = {s3.server.root.secret_key, ftp.fields("x")["password"]}

    @property
    def words(self) -> set[str]:
        """All that was given away in requests so far."""
        return self.canaries | self._of_servers

    def word(self, name: str) -> str:
        self.canaries.add(canary(name))
        return canary(name)

    def plain(self, name: str) -> dict[str, Any]:
        """A destination that asks for nothing."""
        return {"kind": "http", "url": f"{self.http.url}/plain/{name}"}

    def signed(self, url: str, name: str) -> str:
        return f"{url}?token={quote(self.word(name), safe='')}"

    def hook(self, name: str) -> str:
        user = quote(self.word(f"{name}-user"), safe="")
        return self.signed(f"{self.hooks.url}/{name}", name).replace("://", f"://hook:{user}@")

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.word(name)}", "X-Key": self.word(f"{name}-key")}

    def serve(self, clip: bytes, long_clip: bytes) -> None:
        """What the sources of the requests are."""
        self.http.serve("/in.mp4", clip)
        self.http.serve("/long.mp4", long_clip)
        self.http.serve("/logo.png", LOGO)
        self.s3.put("in.mp4", clip)

    def all_right(self) -> dict[str, Any]:
        upload = self.signed(f"{self.http.url}/up/a.mp4", "upload")
        return {
            "source": {
                "kind": "http",
                "url": self.signed(f"{self.http.url}/in.mp4", "source"),
                "headers": self.headers("source-header"),
            },
            "outputs": [
                _output(
                    {"kind": "http", "url": upload, "headers": self.headers("put")},
                    watermark={
                        "source": {
                            "kind": "http",
                            "url": self.signed(f"{self.http.url}/logo.png", "image"),
                            "headers": self.headers("image-header"),
                        }
                    },
                ),
                _output(self.s3.fields("a.mp4"), watermark={"source": INLINE_LOGO}),
                _output(self.ftp.fields("a.mp4")),
            ],
            "notificationUrl": self.hook("completed"),
        }

    def from_s3(self) -> dict[str, Any]:
        return {
            "source": self.s3.fields("in.mp4"),
            "outputs": [_output(self.plain("from-s3.mp4"))],
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
                _output(self.plain("a.mp4"), watermark={"source": image}),
                _output(self.plain("b.mp4"), watermark={"source": in_store}),
                _output({**self.s3.fields("no.mp4"), **keys}),
                _output({**self.ftp.fields("no.mp4"), **login}),
                _output({"kind": "http", "url": upload, "headers": self.headers("refused")}),
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
                "outputs": [_output(self.plain("never.mp4"))],
            }

    def outdated(self, name: str) -> dict[str, Any]:
        """Both destinations refuse what it comes with."""
        upload = f"/up/{name}.mp4"
        self.http.misbehave(upload, Fault(status=403))
        login = {"user": self.word(f"{name}-user"), "password": self.word(f"{name}-password")}
        destination = {
            "kind": "http",
            "url": self.signed(self.http.url + upload, f"{name}-upload"),
            "headers": self.headers(f"{name}-upload-header"),
        }
        return {
            **self.to_probe(name),
            "outputs": [
                _output(destination),
                _output({**self.ftp.fields(f"{name}.mp4"), **login}),
            ],
        }

    def still_refused(self, name: str) -> dict[str, str]:
        """New credentials for `outdated`, by JSON pointer, that are no better."""
        return {
            **self._renewed(f"{name}-again", upload=f"/up/{name}.mp4"),
            "/outputs/1/destination/password": self.word(f"{name}-again-password"),
        }

    def accepted_at_last(self, name: str) -> dict[str, str]:
        """New credentials for `outdated` that every server takes from now on."""
        upload = f"/up/{name}.mp4"
        self.http.misbehave(upload)
        right = self.ftp.fields("x")
        return {
            **self._renewed(f"{name}-new", upload=upload),
            "/outputs/1/destination/user": right["user"],
            "/outputs/1/destination/password": right["password"],
        }

    def _renewed(self, name: str, *, upload: str) -> dict[str, str]:
        put = "/outputs/0/destination"
        return {
            "/source/url": self.signed(f"{self.http.url}/in.mp4", f"{name}-source"),
            **_at("/source/headers", self.headers(f"{name}-source-header")),
            f"{put}/url": self.signed(self.http.url + upload, f"{name}-upload"),
            **_at(f"{put}/headers", self.headers(f"{name}-upload-header")),
        }

    def to_probe(self, name: str) -> dict[str, Any]:
        return {
            "source": {
                "kind": "http",
                "url": self.signed(f"{self.http.url}/in.mp4", f"{name}-source"),
                "headers": self.headers(f"{name}-source-header"),
            },
            "notificationUrl": self.hook(name),
        }

    def to_plan(self) -> dict[str, Any]:
        """A job that is never made, so what its servers would say does not matter."""
        keys = {
            "access_key_id": self.word("planned-key-id"),
            "access_key_secret": self.word("planned-key-secret"),
            "session_token": self.word("planned-session"),
        }
        image = {
            "kind": "http",
            "url": self.signed(f"{self.http.url}/logo.png", "planned-image"),
            "headers": self.headers("planned-image-header"),
        }
        in_store = _output({**self.s3.fields("a.mp4"), **keys}, watermark={"source": image})
        request = self.outdated("planned")
        return {**request, "outputs": [*request["outputs"], in_store]}

    def long(self, *, preset: str = "medium") -> dict[str, Any]:
        upload = self.signed(f"{self.http.url}/up/long.mp4", "upload-after-crash")
        return {
            "source": {
                "kind": "http",
                "url": self.signed(f"{self.http.url}/long.mp4", "source-before-crash"),
                "headers": self.headers("crash"),
            },
            "outputs": [
                _output(
                    {"kind": "http", "url": upload, "headers": self.headers("put-after-crash")},
                    preset=preset,
                    width=640,
                    height=360,
                )
            ],
            "notificationUrl": self.hook("crashed"),
        }


def _at(pointer: str, values: dict[str, str]) -> dict[str, str]:
    return {f"{pointer}/{name}": value for name, value in values.items()}


def _output(destination: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "container": "mp4",
        "videoCodec": "libx264",
        "videoBitrate": "300k",
        "audioCodec": "aac",
        "width": 160,
        "height": 90,
        "preset": "ultrafast",
        "destination": destination,
        **changes,
    }
