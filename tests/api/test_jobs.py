"""Jobs over HTTP: submit, list, look at, cancel, try again, delete."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from encoder_api.app import create_app
from encoder_api.conditional import matches
from encoder_api.endpoints import OPERATIONS
from encoder_api.settings import ApiSettings
from encoder_core.failures import failure
from encoder_core.sealing import KeyRing
from encoder_db.blobs import read_blob
from encoder_db.store import Store
from tests.api.conftest import CheckedClient, ClientMaker
from tests.api.samples import job, output
from tests.db import builders as make
from tests.original import ORIGINAL

Headers = dict[str, str]
AddKey = Callable[..., Headers]

UNKNOWN = "01890000-0000-7000-8000-000000000000"


def submit(client: CheckedClient, document: Any = None, **headers: str) -> dict[str, Any]:
    response = client.post("/jobs", json=job() if document is None else document, headers=headers)
    assert response.status_code == 202, response.text
    accepted: dict[str, Any] = response.json()
    return accepted


def marked(source: Any, **fields: Any) -> dict[str, Any]:
    return output(watermark={"source": source, **fields})


# --- Submit ----------------------------------------------------------------------------------


def test_the_original_request_is_accepted(client: CheckedClient) -> None:
    response = client.post("/jobs", json=ORIGINAL)
    accepted = response.json()
    assert response.status_code == 202
    assert set(accepted) == {"id", "uuid", "status"}
    assert accepted["status"] == "queued"
    assert UUID(accepted["uuid"]).version == 7
    assert response.headers["location"] == f"/jobs/{accepted['uuid']}"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param({"kind": "http", "url": "http://example.com/a.mp4"}, id="http"),
        pytest.param({"kind": "https", "url": "https://example.com/a.mp4"}, id="https"),
        pytest.param({"kind": "s3", "bucket": "bucket", "path": "a.mp4"}, id="s3"),
        pytest.param({"kind": "ftp", "url": "ftp://u:p@example.com/a.mp4"}, id="ftp by URL"),
        pytest.param({"kind": "ftp", "host": "example.com", "path": "a.mp4"}, id="ftp by parts"),
        pytest.param({"kind": "inline", "data": "AAAA"}, id="inline"),
    ],
)
def test_every_kind_of_source_is_accepted(client: CheckedClient, source: Any) -> None:
    submit(client, job(source=source))


@pytest.mark.parametrize(
    "destination",
    [
        pytest.param({"kind": "http", "url": "http://example.com/a.mp4"}, id="http"),
        pytest.param(
            {"kind": "https", "url": "https://example.com/a.mp4", "method": "POST"}, id="https"
        ),
        pytest.param({"kind": "s3", "bucket": "bucket", "path": "a.mp4"}, id="s3"),
        pytest.param({"kind": "ftp", "host": "example.com", "path": "a.mp4"}, id="ftp"),
    ],
)
def test_every_kind_of_destination_is_accepted(client: CheckedClient, destination: Any) -> None:
    submit(client, job(outputs=[output(destination=destination)]))


def test_an_inline_source_is_kept_as_bytes(client: CheckedClient, store: Store) -> None:
    data = bytes(range(256)) * 8000
    source = {"kind": "inline", "data": base64.b64encode(data).decode()}
    accepted = submit(client, job(source=source))
    shown = client.get(f"/jobs/{accepted['id']}").json()["source"]
    assert shown == {"kind": "inline", "sizeBytes": len(data)}
    with store.read() as tx:
        assert b"".join(read_blob(tx, accepted["id"], 0)) == data


@pytest.mark.parametrize(
    ("document", "pointer", "code"),
    [
        pytest.param({}, "/source", "required", id="an empty object"),
        pytest.param(
            job(externalId="a "), "/externalId", "invalid", id="a name that ends with a space"
        ),
        pytest.param(
            job(externalId="\ta"), "/externalId", "invalid", id="a name that begins with a tab"
        ),
        pytest.param(job(source={"kind": "ftp"}), "/source", "invalid", id="ftp without a host"),
        pytest.param(
            job(source={"kind": "file", "path": "a"}), "/source/kind", "not_allowed", id="a file"
        ),
        pytest.param(
            job(outputs=[output(), output(destination={"kind": "file", "path": "a"})]),
            "/outputs/1/destination/kind",
            "not_allowed",
            id="to a file",
        ),
        pytest.param(
            job(outputs=[output(), marked({"kind": "file", "path": "a.png"})]),
            "/outputs/1/watermark/source/kind",
            "not_allowed",
            id="an image that is a file",
        ),
        pytest.param(
            job(outputs=[marked({"kind": "inline"})]),
            "/outputs/0/watermark/source/data",
            "missing",
            id="an inline image without data",
        ),
        pytest.param(
            job(outputs=[marked({"kind": "inline", "data": "AAAA", "sizeBytes": 3})]),
            "/outputs/0/watermark/source/sizeBytes",
            "not_allowed",
            id="an inline image that says its size",
        ),
        pytest.param(
            job(outputs=[marked({"kind": "https", "url": "https://example.com/a.png"}, width=9)]),
            "/outputs/0/watermark/width",
            "unknown_field",
            id="a watermark in pixels",
        ),
        pytest.param(
            job(outputs=[marked({"kind": "inline", "data": "AAAA"}, opacity=0)]),
            "/outputs/0/watermark/opacity",
            "out_of_range",
            id="a watermark that nobody sees",
        ),
        pytest.param(
            job(source={"kind": "inline", "data": "not base64!"}),
            "/source/data",
            "invalid",
            id="no base64",
        ),
        pytest.param(
            job(source={"kind": "inline", "sizeBytes": 3}), "", "invalid", id="inline without data"
        ),
        pytest.param(job(outputs=[output()] * 33), "/outputs", "too_long", id="too many outputs"),
        pytest.param(
            job(notificationUrl="http://a b"), "/notificationUrl", "invalid", id="a bad webhook"
        ),
    ],
)
def test_a_wrong_request_is_answered_with_its_field(
    client: CheckedClient, document: Any, pointer: str, code: str
) -> None:
    response = client.post("/jobs", json=document)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (422, "urn:encoder:problem:invalid_request")
    assert (problem["errors"][0]["pointer"], problem["errors"][0]["code"]) == (pointer, code)
    assert problem["instance"] == f"urn:encoder:request:{response.headers['x-request-id']}"


@pytest.mark.parametrize("path", ["/jobs", "/plan"])
def test_a_job_that_would_be_shown_with_more_than_a_mebibyte_is_refused(
    client: CheckedClient, path: str
) -> None:
    answer = client.post(path, json=job(outputs=[large_output()] * 32))
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("", "too_large")
    assert "1048576 are the most: give shorter URLs" in answer.json()["detail"]


def test_the_bytes_of_an_inline_source_are_not_shown_and_do_not_count(
    client: CheckedClient,
) -> None:
    document = job(source={"kind": "inline", "data": "A" * 2_000_000})
    assert client.post("/plan", json=document).status_code == 200
    assert client.post("/jobs", json=document).status_code == 202


def test_files_are_accepted_where_there_is_a_folder_for_them(
    make_client: ClientMaker, tmp_path: Any
) -> None:
    client = make_client(files_root=tmp_path)
    submit(client, job(source={"kind": "file", "path": "in.mp4"}))


def test_a_pool_that_does_not_exist(client: CheckedClient) -> None:
    response = client.post("/jobs", json=job(pool="nowhere"))
    (error,) = response.json()["errors"]
    assert (response.status_code, error["pointer"], error["code"]) == (422, "/pool", "pool_unknown")


def test_an_external_id_is_taken_once(client: CheckedClient) -> None:
    submit(client, job(externalId="mine"))
    response = client.post("/jobs", json=job(externalId="mine"))
    assert response.status_code == 409
    assert response.json()["type"] == "urn:encoder:problem:external_id_taken"


# --- Idempotency -----------------------------------------------------------------------------


def test_the_same_request_with_the_same_key_makes_one_job(client: CheckedClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/jobs", json=ORIGINAL, headers=headers)
    again = client.post("/jobs", json=dict(reversed(ORIGINAL.items())), headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_another_request_with_the_same_key_is_refused(client: CheckedClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    submit(client, job(), **headers)
    response = client.post("/jobs", json=job(priority="high"), headers=headers)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:encoder:problem:idempotency_key_reused"


def test_the_same_request_is_recognised_after_the_secret_key_was_replaced(
    client: CheckedClient, store: Store
) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = submit(client, job(), **headers)
    keys = KeyRing([bytes(32)]).and_earlier(bytes(range(32)))
    with (
        Store(store.engine.url, keys=keys) as rotated,
        CheckedClient(create_app(ApiSettings(), rotated)) as later,
    ):
        again = later.post("/jobs", json=job(), headers=headers)
        other = later.post("/jobs", json=job(priority="high"), headers=headers)
    assert (again.status_code, again.json()) == (202, first)
    assert other.status_code == 422


def test_many_at_once_with_the_same_key_make_one_job(client: CheckedClient) -> None:
    answers: list[Any] = []

    def send() -> None:
        answers.append(client.post("/jobs", json=job(), headers={"Idempotency-Key": "k"}))

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_key_belongs_to_its_owner(client: CheckedClient, add_key: AddKey) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = submit(client, job(), **headers, **add_key("one"))
    second = submit(client, job(priority="low"), **headers, **add_key("two"))
    assert first["id"] != second["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "with\ttab", "café"])
def test_a_bad_key_is_refused(client: CheckedClient, key: str) -> None:
    response = client.post("/jobs", json=job(), headers={b"Idempotency-Key": key.encode()})
    assert response.status_code == 400
    assert response.json()["errors"][0]["parameter"] == "Idempotency-Key"


# --- Look at ---------------------------------------------------------------------------------


def test_a_job_is_found_by_number_and_by_uuid(client: CheckedClient) -> None:
    accepted = submit(client, ORIGINAL)
    by_number = client.get(f"/jobs/{accepted['id']}").json()
    assert client.get(f"/jobs/{accepted['uuid']}").json() == by_number
    assert by_number["status"] == "queued"
    assert by_number["outputs"][0]["spec"]["videoBitrate"] == "2500k"
    assert by_number["outputs"][0]["status"] == "pending"


@pytest.mark.parametrize(
    "ref",
    [
        *("0", "999999", "-1", "1.0", "01x", "9" * 30, "x", "%20", "%00", "1%0a", "²", "1e3"),
        *(UNKNOWN, UNKNOWN[:-1], f"urn:uuid:{UNKNOWN}", "{" + UNKNOWN + "}"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_anything_else_is_no_job(client: CheckedClient, method: str, ref: str) -> None:
    response = client.request(method, f"/jobs/{ref}")
    assert (response.status_code, response.json()["type"]) == (
        404,
        "urn:encoder:problem:not_found",
    )


def test_what_did_not_change_is_not_sent_again(client: CheckedClient) -> None:
    accepted = submit(client)
    one = f"/jobs/{accepted['id']}"
    for path in ("/jobs", f"{one}/outputs", f"{one}/attempts", f"{one}/events", one):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    client.post(f"/jobs/{accepted['id']}/cancel")
    changed = client.get(f"/jobs/{accepted['id']}", headers={"If-None-Match": tag})
    assert changed.json()["status"] == "canceled"


def test_a_page_that_did_not_change_is_not_sent_again_although_its_cursor_is_another(
    client: CheckedClient,
) -> None:
    for _ in range(3):
        submit(client)
    page = client.get("/jobs?limit=2")
    known = {"If-None-Match": page.headers["etag"]}
    again = client.get("/jobs?limit=2", headers=known)
    assert (again.status_code, again.headers["etag"]) == (304, page.headers["etag"])
    submit(client)
    assert client.get("/jobs?limit=2", headers=known).status_code == 200


def test_a_page_that_has_become_the_last_is_sent_again(client: CheckedClient) -> None:
    first = submit(client)["id"]
    for _ in range(2):
        submit(client)
    known = {"If-None-Match": client.get("/jobs?limit=2").headers["etag"]}
    assert client.delete(f"/jobs/{first}").is_success
    assert client.get("/jobs?limit=2", headers=known).json()["nextCursor"] is None


@pytest.mark.parametrize(
    ("header", "want"),
    [
        pytest.param(None, False, id="none given"),
        pytest.param('"a"', True, id="the tag"),
        pytest.param('W/"a"', True, id="a weak form of it"),
        pytest.param('"b", "a"', True, id="in a list"),
        pytest.param("*", True, id="any"),
        pytest.param('"b"', False, id="another"),
        pytest.param("a", False, id="without quotes"),
    ],
)
def test_tags_match(header: str | None, want: bool) -> None:
    assert matches(header, '"a"') is want


def test_the_events_of_a_job(client: CheckedClient) -> None:
    accepted = submit(client)
    client.post(f"/jobs/{accepted['id']}/cancel")
    page = client.get(f"/jobs/{accepted['id']}/events?limit=1").json()
    assert [event["type"] for event in page["events"]] == ["job.queued"]
    rest = client.get(f"/jobs/{accepted['uuid']}/events?after={page['nextAfter']}").json()
    assert [(e["type"], e["sequence"]) for e in rest["events"]] == [("job.canceled", 2)]
    assert rest["nextAfter"] is None
    assert rest["events"][0]["data"]["status"] == "canceled"


def test_the_outputs_of_a_job(client: CheckedClient) -> None:
    accepted = submit(client, job(outputs=[output(), output(height=720)]))
    shown = client.get(f"/jobs/{accepted['uuid']}/outputs").json()
    assert shown["outputs"] == client.get(f"/jobs/{accepted['id']}").json()["outputs"]
    assert [(one["index"], one["status"]) for one in shown["outputs"]] == [
        (0, "pending"),
        (1, "pending"),
    ]


def test_the_attempts_of_a_job_page_by_page(client: CheckedClient, store: Store) -> None:
    accepted = submit(client)
    assert client.get(f"/jobs/{accepted['id']}/attempts").json() == {
        "attempts": [],
        "nextAfter": None,
    }
    for number in range(1, 4):
        claimed = make.running(store)
        make.finish(store, claimed, exit_code=1, failure=failure("source_invalid"))
        if number < 3:
            client.post(f"/jobs/{accepted['id']}/retry")
    page = client.get(f"/jobs/{accepted['uuid']}/attempts?limit=2").json()
    assert [one["number"] for one in page["attempts"]] == [1, 2]
    rest = client.get(f"/jobs/{accepted['id']}/attempts?after={page['nextAfter']}").json()
    assert [one["number"] for one in rest["attempts"]] == [3]
    assert rest["nextAfter"] is None
    ways = f"/jobs/{accepted['id']}/attempts?limit=2", f"/jobs/{accepted['id']}/attempts?limit=3"
    assert [linked(client, way) for way in ways] == [["?limit=2&after=2"], []]
    whole = client.get(f"/jobs/{accepted['id']}").json()["attempts"]
    assert page["attempts"] + rest["attempts"] == whole
    assert {one["failure"]["code"] for one in whole} == {"source_invalid"}


# --- List ------------------------------------------------------------------------------------


def test_the_latest_come_first_page_by_page(client: CheckedClient) -> None:
    numbers = [submit(client)["id"] for _ in range(5)]
    seen: list[int] = []
    query = "limit=2"
    for _ in range(3):
        page = client.get(f"/jobs?{query}").json()
        seen += [job["id"] for job in page["jobs"]]
        query = f"limit=2&cursor={page['nextCursor']}"
    assert seen == numbers[::-1]
    assert page["nextCursor"] is None


def linked(client: CheckedClient, path: str) -> list[str]:
    """Where each page links to, until the last one, which links nowhere."""
    found, origin = [], path.partition("?")[0]
    while "next" in (links := client.get(path).links):
        found.append(links["next"]["url"])
        path = origin + found[-1]
    return found


def test_pages_link_to_the_next_one_by_the_same_filters(client: CheckedClient) -> None:
    for _ in range(3):
        submit(client, job(metadata={"title": "a b"}))
    way = "/jobs?text=https%3A%2F%2F&limit=1"
    pages = linked(client, way)
    assert [page.partition("&cursor=")[0] for page in pages] == [
        "?text=https%3A%2F%2F&limit=1",
        "?text=https%3A%2F%2F&limit=1",
    ]
    events = f"/jobs/{submit(client)['id']}/events?limit=1"
    assert linked(client, events) == []
    client.post(events.replace("events?limit=1", "cancel"))
    assert linked(client, events) == ["?limit=1&after=1"]


def test_pages_of_large_jobs_are_shorter_and_link_to_the_next_one_too(
    client: CheckedClient,
) -> None:
    numbers = [submit(client, job(outputs=[large_output()] * 20))["id"] for _ in range(6)]
    for _ in range(6):
        client.post(f"/jobs/{numbers[-1]}/bump")
    path = "/jobs"
    pages = [path, *(path + link for link in linked(client, path))]
    seen = [one["id"] for page in pages for one in client.get(page).json()["jobs"]]
    assert (len(pages), seen) == (2, numbers[::-1])
    events = f"/jobs/{numbers[-1]}/events"
    assert linked(client, events) == ["?after=5"]


def large_output() -> dict[str, Any]:
    place = {"kind": "https", "url": "https://media.example/?a=" + "🎬" * 2000}
    return output(destination=place, watermark={"source": place})


def test_a_job_that_comes_or_goes_between_pages_is_not_seen_twice(client: CheckedClient) -> None:
    numbers = [submit(client)["id"] for _ in range(4)]
    page = client.get("/jobs?limit=2").json()
    submit(client)
    client.delete(f"/jobs/{numbers[2]}")
    rest = client.get(f"/jobs?limit=2&cursor={page['nextCursor']}").json()
    assert [job["id"] for job in rest["jobs"]] == numbers[1::-1]


def test_filters(client: CheckedClient) -> None:
    one = submit(client, job(externalId="one"))
    two = submit(client, job(externalId="two"))
    client.post(f"/jobs/{one['id']}/cancel")
    for query, want in [
        ("status=queued", [two["id"]]),
        ("status=canceled", [one["id"]]),
        ("status=failed", []),
        ("externalId=one", [one["id"]]),
        ("externalId=three", []),
        ("pool=default", [two["id"], one["id"]]),
        ("pool=other", []),
        ("pool=default&status=queued&externalId=two", [two["id"]]),
    ]:
        assert [job["id"] for job in client.get(f"/jobs?{query}").json()["jobs"]] == want, query


def test_a_text_is_found_wherever_a_job_is_recognised_by_it(client: CheckedClient) -> None:
    one = submit(client, job(externalId="Film 7%", metadata={"title": "Caf\u00e9"}))
    two = submit(client, job(source={"kind": "https", "url": "https://media.example/Bunny.mov"}))
    for text, want in [
        ("bunny.MOV", [two["id"]]),
        ("media.example", [two["id"]]),
        ("film 7%", [one["id"]]),
        ("7_", []),
        ("caf\u00e9", [one["id"]]),
        ("example", [two["id"], one["id"]]),
        ("nothing of the kind", []),
    ]:
        found = client.get("/jobs", params={"text": text}).json()["jobs"]
        assert [job["id"] for job in found] == want, text


def test_jobs_of_a_time(client: CheckedClient) -> None:
    created = client.get(f"/jobs/{submit(client)['id']}").json()["createdAt"]
    for query, count in [
        ({"createdAfter": "2020-01-01T00:00:00Z"}, 1),
        ({"createdAfter": "2020-01-01T00:00:00+02:00", "createdBefore": "2999-01-01T00:00:00Z"}, 1),
        ({"createdAfter": created}, 0),
        ({"createdBefore": created}, 0),
    ]:
        assert len(client.get("/jobs", params=query).json()["jobs"]) == count, query


def test_an_admin_lists_one_owner_and_others_only_themselves(
    client: CheckedClient, add_key: AddKey
) -> None:
    one, two, admin = add_key("one"), add_key("two"), add_key("default", "admin")
    mine = submit(client, job(), **one)
    submit(client, job(), **two)
    for headers, owner, want in [
        (admin, "one", [mine["id"]]),
        (admin, "three", []),
        (one, "one", [mine["id"]]),
        (two, "one", []),
    ]:
        found = client.get(f"/jobs?owner={owner}", headers=headers).json()["jobs"]
        assert [job["id"] for job in found] == want


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("createdAfter=yesterday", "createdAfter"),
        ("createdAfter=2026-01-01T00:00:00", "createdAfter"),
        ("createdBefore=0001-01-01T00:00:00%2B14:00", "createdBefore"),
        ("text=", "text"),
        ("owner=A/B", "owner"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("status=done", "status"),
        ("stauts=failed", "stauts"),
        ("pool=%C3%A9", "pool"),
    ],
)
def test_a_bad_parameter_is_named(client: CheckedClient, query: str, parameter: str) -> None:
    response = client.get(f"/jobs?{query}")
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, parameter)


def test_a_parameter_given_twice_is_refused(client: CheckedClient) -> None:
    assert client.get("/jobs?limit=1&limit=2").status_code == 400


@pytest.mark.parametrize("cursor", ["", "1", "%00", "AAAA", "A" * 5000, "é"])
def test_a_cursor_that_was_made_up_is_refused(client: CheckedClient, cursor: str) -> None:
    response = client.get(f"/jobs?cursor={cursor}")
    assert response.status_code == 400
    assert response.json()["type"] == "urn:encoder:problem:invalid_cursor"


def test_a_cursor_is_bound_to_its_owner_and_filters(client: CheckedClient, add_key: AddKey) -> None:
    one, two = add_key("one"), add_key("two")
    for _ in range(2):
        submit(client, job(), **one)
    cursor = client.get("/jobs?limit=1", headers=one).json()["nextCursor"]
    assert client.get(f"/jobs?cursor={cursor}", headers=one).status_code == 200
    assert client.get(f"/jobs?cursor={cursor}", headers=two).status_code == 400
    assert client.get(f"/jobs?cursor={cursor}&status=queued", headers=one).status_code == 400
    changed = cursor[:-3] + ("AAA" if cursor[-3:] != "AAA" else "BBB")
    assert client.get(f"/jobs?cursor={changed}", headers=one).status_code == 400


# --- Cancel, try again, delete ---------------------------------------------------------------


def test_cancel_a_waiting_job(client: CheckedClient) -> None:
    accepted = submit(client)
    response = client.post(f"/jobs/{accepted['id']}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "canceled")
    again = client.post(f"/jobs/{accepted['id']}/cancel")
    assert again.json()["version"] == response.json()["version"]


def test_try_a_canceled_job_again(client: CheckedClient) -> None:
    accepted = submit(client)
    client.post(f"/jobs/{accepted['id']}/cancel")
    response = client.post(f"/jobs/{accepted['id']}/retry")
    assert (response.status_code, response.json()["status"]) == (202, "queued")


def test_a_job_that_has_not_ended_cannot_be_tried_again(client: CheckedClient) -> None:
    accepted = submit(client)
    response = client.post(f"/jobs/{accepted['id']}/retry")
    assert (response.status_code, response.json()["type"]) == (
        409,
        "urn:encoder:problem:job_not_final",
    )


def test_a_retry_needs_the_credentials_again_once_they_are_destroyed(client: CheckedClient) -> None:
    accepted = submit(client, ORIGINAL)
    client.post(f"/jobs/{accepted['id']}/cancel")
    response = client.post(f"/jobs/{accepted['id']}/retry")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:encoder:problem:credentials_required"
    credentials = {
        f"{place}/{name}": "new"
        for place in ("/source", "/outputs/0/destination")
        for name in ("access_key_id", "access_key_secret")
    }
    given = client.post(f"/jobs/{accepted['id']}/retry", json={"credentials": credentials})
    assert given.json()["status"] == "queued"


def test_delete_a_job(client: CheckedClient) -> None:
    accepted = submit(client)
    response = client.delete(f"/jobs/{accepted['uuid']}")
    assert response.status_code == 200
    assert response.json() == {**accepted, "status": "deleted"}
    for method, path in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/outputs"),
        ("GET", "/attempts"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ]:
        assert client.request(method, f"/jobs/{accepted['id']}{path}").status_code == 404, path
    assert client.get("/jobs").json()["jobs"] == []


# --- Whose job it is -------------------------------------------------------------------------


NEW_CREDENTIALS = {"credentials": {"/source/access_key_id": "new"}}


def test_owners_do_not_learn_of_each_other(client: CheckedClient, add_key: AddKey) -> None:
    one, two = add_key("one"), add_key("two")
    mine = submit(client, job(externalId="x"), **one)
    of_a_job = [operation for operation in OPERATIONS if operation.path.startswith("/jobs/{id}")]
    assert len(of_a_job) > 10
    for ref in (mine["id"], mine["uuid"]):
        for operation in of_a_job:
            path = operation.path.replace("{event}", UNKNOWN)
            body = NEW_CREDENTIALS if path.endswith("/credentials") else None
            response, unknown = (
                client.request(
                    operation.method, path.replace("{id}", str(job)), headers=two, json=body
                )
                for job in (ref, 99999)
            )
            assert response.status_code == 404, path
            assert response.json()["detail"] == unknown.json()["detail"]
    assert client.get("/jobs", headers=two).json()["jobs"] == []
    assert client.get("/jobs?externalId=x", headers=two).json()["jobs"] == []
    submit(client, job(externalId="x"), **two)
    assert client.get(f"/jobs/{mine['id']}", headers=one).json()["status"] == "queued"


def test_an_admin_sees_every_owner(client: CheckedClient, add_key: AddKey) -> None:
    mine = submit(client, job(), **add_key("one"))
    admin = add_key("default", "admin")
    assert client.get(f"/jobs/{mine['id']}", headers=admin).json()["owner"] == "one"


# --- What it costs ---------------------------------------------------------------------------


def test_a_request_makes_a_known_number_of_queries(client: CheckedClient, store: Store) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    def counted(method: str, path: str, document: Any = None) -> int:
        statements.clear()
        assert client.request(method, path, json=document).status_code < 300
        return len([s for s in statements if not s.startswith(("BEGIN", "COMMIT", "PRAGMA"))])

    submit(client)  # the first one makes the owner's queue
    event.listen(store.engine, "before_cursor_execute", note)
    event.listen(store.reads, "before_cursor_execute", note)
    assert counted("POST", "/jobs", ORIGINAL) <= 9  # the record's eight, and the quota
    few = counted("GET", "/jobs")
    for _ in range(5):
        submit(client)
    assert counted("GET", "/jobs") == few <= 2
    assert counted("GET", "/jobs/1") <= 7
    assert counted("GET", "/jobs/1/outputs") == counted("GET", "/jobs/1/attempts") == 2
