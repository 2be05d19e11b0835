"""Who may ask: keys, the dashboard's login, this machine; and nobody by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from encoder_api.auth import KEY_KNOWN_S, bearer_token, check_exposure
from encoder_api.sessions import COOKIE, Sessions
from encoder_api.settings import ApiSettings
from encoder_core.errors import ConfigurationError
from encoder_db.keys import create_key, list_keys, revoke_key
from encoder_db.store import Store
from tests.api.conftest import KEYS, CheckedClient, ClientMaker, StillClock
from tests.api.samples import job
from tests.db.builders import statements

AddKey = Callable[..., dict[str, str]]
KEY = "a-first-key-of-some-length"
BEARER = {"Authorization": f"Bearer {KEY}"}


# --- Starting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "keys_exist"),
    [
        pytest.param({}, False, id="on loopback"),
        pytest.param({"host": "localhost"}, False, id="on localhost"),
        pytest.param({"host": "::1"}, False, id="on loopback, version 6"),
        pytest.param({"host": "127.8.9.1"}, False, id="on another loopback address"),
        pytest.param({"host": "0.0.0.0", "api_key": KEY}, False, id="with a key in the settings"),
        pytest.param({"host": "0.0.0.0"}, True, id="with a key in the database"),
        pytest.param({"host": "0.0.0.0", "auth": "off"}, False, id="when it is said so"),
    ],
)
def test_it_starts(settings: dict[str, Any], keys_exist: bool) -> None:
    check_exposure(ApiSettings(**settings), keys_exist=keys_exist)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "encoder.example.com"])
def test_it_does_not_start_open_to_the_network(host: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_exposure(ApiSettings(host=host), keys_exist=False)
    for word in ("ENCODER_HOST", "ENCODER_API_KEY", "encoder keys create", "ENCODER_AUTH=off"):
        assert word in str(refused.value)


# --- Keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"Authorization": "Bearer"}, id="no token"),
        pytest.param({"Authorization": "Bearer wrong"}, id="a wrong token"),
        pytest.param({"Authorization": "Bearer enc_aaaaaaaa_" + "b" * 32}, id="an unknown key"),
        pytest.param({"Authorization": "Bearer é".encode("latin-1")}, id="a token of no use"),
        pytest.param({"Authorization": f"Basic {KEY}"}, id="another scheme"),
        pytest.param({"Authorization": KEY}, id="no scheme"),
        pytest.param({"X-API-Key": KEY}, id="another header"),
        pytest.param({"Cookie": f"{COOKIE}={KEY}"}, id="a made-up session"),
    ],
)
def test_without_a_key_nothing_is_said(make_client: ClientMaker, headers: Any) -> None:
    client = make_client(api_key=KEY)
    for method, path in [
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("GET", "/jobs/1"),
        ("DELETE", "/jobs/1"),
        ("POST", "/jobs/1/cancel"),
        ("GET", "/workers"),
        ("GET", "/pools"),
        ("PATCH", "/pools/default"),
        ("GET", "/session"),
    ]:
        response = client.request(method, path, headers=headers)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"].startswith('Bearer realm="encoder"')
        assert KEY not in response.text


def test_a_key_is_not_taken_from_the_query(make_client: ClientMaker) -> None:
    assert make_client(api_key=KEY).get(f"/session?key={KEY}").status_code == 401


def test_the_first_key_may_do_everything(make_client: ClientMaker) -> None:
    client = make_client(api_key=KEY)
    assert client.post("/jobs", json=job(), headers=BEARER).status_code == 202
    change = client.patch("/pools/default", json={"maxConcurrency": 3}, headers=BEARER)
    assert change.status_code == 200


@pytest.mark.parametrize(
    ("scopes", "method", "path", "want"),
    [
        pytest.param(["jobs:read"], "GET", "/jobs", 200, id="a reader reads"),
        pytest.param(["jobs:read"], "POST", "/jobs", 403, id="a reader submits nothing"),
        pytest.param(["jobs:read"], "DELETE", "/jobs/1", 403, id="a reader deletes nothing"),
        pytest.param(["jobs:write"], "POST", "/jobs", 202, id="a writer submits"),
        pytest.param(["jobs:write"], "GET", "/jobs", 403, id="a writer reads nothing"),
        pytest.param(["jobs:write"], "PATCH", "/pools/default", 403, id="pools are for admins"),
        pytest.param(["admin"], "POST", "/jobs", 202, id="an admin does everything"),
    ],
)
def test_scopes(
    client: CheckedClient, add_key: AddKey, scopes: list[str], method: str, path: str, want: int
) -> None:
    body = {"json": job()} if method in ("POST", "PATCH") else {}
    response = client.request(method, path, headers=add_key("one", *scopes), **body)
    assert response.status_code == want


def test_a_revoked_key_is_worth_nothing_moments_later(
    make_client: ClientMaker, store: Store
) -> None:
    clock = StillClock()
    client = make_client(clock=clock)

    def add(name: str) -> str:
        return store.run(lambda tx: create_key(tx, name=name, owner="one", scopes=["admin"]))

    kept, lost = add("kept"), add("lost")
    headers = {"Authorization": f"Bearer {lost}"}
    assert client.get("/jobs", headers=headers).status_code == 200
    with store.begin() as tx:
        revoke_key(tx, next(k.public for k in list_keys(tx) if k.name == "lost"))
    assert client.get("/jobs", headers=headers).status_code == 200  # so that few requests look
    clock.sleep(KEY_KNOWN_S)
    assert client.get("/jobs", headers=headers).status_code == 401
    assert client.get("/jobs", headers={"Authorization": f"Bearer {kept}"}).status_code == 200


def test_the_first_key_closes_the_open_service(client: CheckedClient, add_key: AddKey) -> None:
    headers = add_key("one")
    assert client.get("/jobs").status_code == 401
    assert client.get("/jobs", headers=headers).status_code == 200


def test_off_means_that_nobody_is_asked(make_client: ClientMaker) -> None:
    client = make_client(host="0.0.0.0", auth="off", api_key=KEY)
    response = client.get("/session", headers={"Host": "encoder.example.com"})
    assert response.json() == {
        "name": "open",
        "owner": "default",
        "scopes": ["admin"],
        "loginNeeded": False,
    }


@pytest.mark.parametrize(
    "path", ["/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/"]
)
def test_what_is_said_to_everybody(make_client: ClientMaker, path: str) -> None:
    assert make_client(api_key=KEY).get(path).status_code == 200


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer  ", None),
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER   abc ", "abc"),
        ("Basic abc", None),
    ],
)
def test_the_token_of_a_header(header: str | None, want: str | None) -> None:
    assert bearer_token(header) == want


# --- The dashboard's login -------------------------------------------------------------------


def test_a_login_works_like_the_key_behind_it(make_client: ClientMaker) -> None:
    client = make_client(api_key=KEY)
    response = client.post("/session", json={"key": KEY})
    cookie = response.headers["set-cookie"]
    assert response.status_code == 204
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert KEY not in cookie
    assert client.get("/session").json()["name"] == "ENCODER_API_KEY"
    assert client.post("/jobs", json=job()).status_code == 202
    assert client.delete("/session").status_code == 204
    assert client.get("/session").status_code == 401


def test_a_login_needs_a_key(make_client: ClientMaker) -> None:
    response = make_client(api_key=KEY).post("/session", json={"key": "canary"})
    assert response.status_code == 401
    assert "set-cookie" not in response.headers
    assert "canary" not in response.text


def test_who_asks_is_looked_up_once_for_many_requests(
    make_client: ClientMaker, store: Store, add_key: AddKey
) -> None:
    clock = StillClock()
    client = make_client(clock=clock)
    headers = add_key("one", "jobs:read")

    def lookups() -> int:
        with statements(store) as seen:
            assert client.get("/session", headers=headers).status_code == 200
        return sum("api_keys" in statement for statement in seen)

    assert lookups() > 0
    assert [lookups() for _ in range(3)] == [0, 0, 0]
    clock.sleep(KEY_KNOWN_S)
    assert lookups() == 1


def test_a_login_ends_with_its_key(client: CheckedClient, store: Store) -> None:
    def add(name: str) -> str:
        return store.run(lambda tx: create_key(tx, name=name, owner="one", scopes=["admin"]))

    client.post("/session", json={"key": add("mine")})
    assert client.get("/session").json()["owner"] == "one"
    with store.begin() as tx:
        revoke_key(tx, list_keys(tx)[0].public)
    assert client.get("/session").status_code == 401


def test_a_login_ends_by_time() -> None:
    now_s = 1000.0
    sessions = Sessions(KEYS, hours=1, wall_clock=lambda: now_s)
    cookie = sessions.cookie_for(KEY)
    assert sessions.key_of(cookie) == KEY
    now_s += 3601
    assert sessions.key_of(cookie) is None


@pytest.mark.parametrize("cookie", [None, "", "x", "AAAA", "é", "a" * 10_000])
def test_what_is_no_session(cookie: str | None) -> None:
    assert Sessions(KEYS, hours=1).key_of(cookie) is None


# --- Other web pages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        pytest.param({}, 202, id="no browser"),
        pytest.param({"Origin": "http://127.0.0.1:8080"}, 202, id="our own page"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, 202, id="our own page, as browsers say"),
        pytest.param({"Origin": "http://evil.example"}, 403, id="another site"),
        pytest.param({"Origin": "http://127.0.0.1:9000"}, 403, id="another port"),
        pytest.param({"Origin": "null"}, 403, id="a sandboxed frame"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="another site, as browsers say"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, 403, id="a neighbour"),
    ],
)
def test_other_pages_change_nothing(
    client: CheckedClient, make_client: ClientMaker, headers: dict[str, str], want: int
) -> None:
    assert client.post("/jobs", json=job(), headers=headers).status_code == want
    guarded = make_client(api_key=KEY)
    guarded.post("/session", json={"key": KEY})
    assert guarded.post("/jobs", json=job(), headers=headers).status_code == want
    assert guarded.post("/jobs", json=job(), headers={**headers, **BEARER}).status_code == 202


@pytest.mark.parametrize(
    ("host", "want"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost:8080", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("127.0.0.2", 200),
        ("rebound.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("192.168.1.2:8080", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_while_it_is_open_it_answers_to_names_of_this_machine_only(
    client: CheckedClient, make_client: ClientMaker, host: str, want: int
) -> None:
    assert client.get("/jobs", headers={"Host": host}).status_code == want
    closed = make_client(api_key=KEY)
    assert closed.get("/jobs", headers={"Host": host, **BEARER}).status_code == 200
