"""Probe a source, and plan a job without submitting it."""

from __future__ import annotations

from typing import Any

import pytest

from encoder_core.reports import SourceInfo, SourceReport
from encoder_db.store import Store
from tests.api.conftest import CheckedClient
from tests.api.samples import job, output
from tests.db import builders as make
from tests.original import ORIGINAL

VIDEO = {
    "index": 0, "codec_type": "video", "codec_name": "h264", "width": 640, "height": 360,
    "avg_frame_rate": "25/1", "r_frame_rate": "25/1", "duration": "10.0", "pix_fmt": "yuv420p",
}  # fmt: skip
FFPROBE: dict[str, Any] = {
    "format": {"format_name": "mov,mp4", "duration": "10.0", "size": "99", "nb_programs": 0},
    "streams": [{**VIDEO, "tags": {"handler_name": "x"}, "profile": "High"}],
}


def test_a_probe_is_a_job_without_outputs(client: CheckedClient, store: Store) -> None:
    response = client.post("/probe", json={"source": job()["source"]})
    assert response.status_code == 202
    path = response.headers["location"]
    worker = make.running(store)
    found = SourceInfo(size_bytes=99, duration_s=10.0, container="mov,mp4", streams=[VIDEO])
    make.say(store, worker, SourceReport(source=found))
    make.say(store, worker, make.succeeded())
    make.finish(store, worker)
    shown = client.get(path).json()
    assert (shown["status"], shown["outputs"]) == ("completed", [])
    assert shown["sourceInfo"]["streams"] == [VIDEO]
    plan = client.post("/plan", json=job(probe=shown["sourceInfo"])).json()
    assert plan["assumedSource"] is None
    assert plan["outputs"][0]["durationS"] == 10.0


def test_a_probe_takes_what_a_job_takes(client: CheckedClient) -> None:
    body = {
        "source": {"kind": "inline", "data": "AAAA"},
        "externalId": "mine",
        "notificationUrl": "https://app.example/hook",
        "priority": "high",
    }
    headers = {"Idempotency-Key": "k"}
    first = client.post("/probe", json=body, headers=headers)
    assert client.post("/probe", json=body, headers=headers).json() == first.json()
    assert client.post("/jobs", json=job(), headers=headers).status_code == 422


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/source"),
        ({"source": {"kind": "inline"}}, ""),
        ({"source": job()["source"], "outputs": [output()]}, "/outputs"),
        ({"source": job()["source"], "pool": "nowhere"}, "/pool"),
    ],
)
def test_a_wrong_probe(client: CheckedClient, body: Any, pointer: str) -> None:
    response = client.post("/probe", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer


def test_a_plan_makes_no_job(client: CheckedClient) -> None:
    plan = client.post("/plan", json=ORIGINAL).json()
    assert plan["assumedSource"]["width"] == 1920
    assert plan["outputs"][0]["video"]["width"] == 1280
    assert plan["commands"][0][0].endswith("ffmpeg") or "-i" in plan["commands"][0]
    assert client.get("/jobs").json()["jobs"] == []


def test_a_plan_for_what_ffprobe_printed(client: CheckedClient) -> None:
    plan = client.post("/plan", json=job(probe=FFPROBE)).json()
    assert plan["assumedSource"] is None
    (planned,) = plan["outputs"]
    assert (planned["video"]["width"], planned["video"]["height"]) == (640, 360)
    assert planned["durationS"] == 10.0
    assert "audio_missing" in str(planned["warnings"]) or planned["audio"] is None


def test_what_this_source_makes_impossible_is_said_at_the_output(client: CheckedClient) -> None:
    body = job(outputs=[output(container="mp3"), output()], probe=FFPROBE)
    sound, picture = client.post("/plan", json=body).json()["outputs"]
    assert sound["problems"]
    assert picture["problems"] == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"pool": "nowhere"}, "/pool"),
        ({"outputs": []}, "/outputs"),
        ({"source": {"kind": "file", "path": "a"}}, "/source/kind"),
        ({"probe": {}}, "/probe/streams"),
        ({"probe": {"streams": [{**VIDEO, "width": "wide"}]}}, "/probe/streams/0/width"),
        ({"probe": {"streams": [{**VIDEO, "index": -1}]}}, "/probe/streams/0/index"),
        ({"probe": {"streams": [VIDEO] * 65}}, "/probe/streams"),
    ],
)
def test_a_plan_refuses_what_a_job_would(client: CheckedClient, change: Any, pointer: str) -> None:
    response = client.post("/plan", json=job(**change))
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == pointer
