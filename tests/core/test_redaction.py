"""Secrets stay out of what is stored and printed, whatever field they are in."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.model import redact_url
from encoder_core.redaction import (
    MASK,
    RedactingFilter,
    Redactor,
    escape_pointer,
    merge_secrets,
    split_secrets,
    unescape_pointer,
)
from encoder_core.specs import JobSpec

CANARY = "CANARY"
"""Every secret of a generated request contains it, so whatever contains it is a secret."""

LETTERS = st.characters(min_codepoint=33, max_codepoint=126)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
SECRETS = st.text(LETTERS, max_size=20).map(lambda text: CANARY + text)
URL_SECRETS = st.text("abcXYZ019-._~%2F", max_size=10).map(lambda text: CANARY + text)
HEADER_NAMES = st.text("ABCabc~!#$%&'*+.^_`|-", min_size=1, max_size=12).map(lambda s: "X-" + s)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def urls(draw: st.DrawFn, *schemes: str) -> str:
    user = draw(st.none() | URL_SECRETS)
    password = draw(st.none() | URL_SECRETS)
    login = f"{user}:{password}@" if user and password else f"{user}@" if user else ""
    signed = draw(st.sampled_from(["X-Amz-Signature", "sig", "token", "Signature", "api_key"]))
    query = draw(st.sampled_from(["", "?v=1", "?v=a+b&empty=", f"?v=1&{signed}=", f"?{signed}="]))
    secret = draw(URL_SECRETS) if query.endswith(f"{signed}=") else ""
    place = f"{login}{draw(WORDS)}.example/a%20b{query}{secret}"
    return f"{draw(st.sampled_from(schemes))}://{place}"


@st.composite
def s3(draw: st.DrawFn) -> dict[str, Any]:
    place: dict[str, Any] = {"kind": "s3", "bucket": "bucket-1", "path": draw(WORDS)}
    if draw(st.booleans()):
        place |= {"access_key_id": draw(SECRETS), "access_key_secret": draw(SECRETS)}
        place |= draw(optional(session_token=SECRETS))
    return place | draw(optional(endpoint=urls("http", "https"), region=st.just("eu-west-1")))


@st.composite
def http(draw: st.DrawFn) -> dict[str, Any]:
    place: dict[str, Any] = {"kind": "https", "url": draw(urls("http", "https"))}
    return place | draw(optional(headers=st.dictionaries(HEADER_NAMES, SECRETS, max_size=3)))


@st.composite
def ftp(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"kind": "ftp", "url": draw(urls("ftp", "ftps"))}
    place: dict[str, Any] = {"kind": "ftp", "host": "ftp.example", "path": draw(WORDS)}
    return place | draw(optional(user=SECRETS, password=SECRETS, tls=st.booleans()))


FILES = st.fixed_dictionaries({"kind": st.just("file"), "path": WORDS})
INLINE = st.just({"kind": "inline", "sizeBytes": 3})
PLACES = s3() | http() | ftp() | FILES
OUTPUTS = st.fixed_dictionaries(
    {"destination": PLACES},
    optional={"watermark": st.fixed_dictionaries({"source": PLACES | INLINE})},
)
REQUESTS = st.builds(
    lambda source, outputs, rest: {"source": source, "outputs": outputs, **rest},
    PLACES | INLINE,
    st.lists(OUTPUTS, min_size=1, max_size=4),
    optional(notificationUrl=urls("https"), metadata=st.dictionaries(WORDS, WORDS, max_size=2)),
)


def places_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Whatever a request fetches from or delivers to."""
    outputs = request["outputs"]
    images = [output["watermark"]["source"] for output in outputs if "watermark" in output]
    return [request["source"], *images, *(output["destination"] for output in outputs)]


@given(REQUESTS)
def test_what_is_split_off_is_every_secret_and_merging_gives_the_request_back(
    request: dict[str, Any],
) -> None:
    spec = JobSpec.model_validate(request)
    public, secrets = split_secrets(spec)
    assert CANARY not in json.dumps(public)
    assert merge_secrets(public, secrets) == spec.to_json_with_secrets()
    assert JobSpec.model_validate(merge_secrets(public, secrets)) == spec


@given(REQUESTS)
def test_merging_leaves_the_public_document_alone(request: dict[str, Any]) -> None:
    public, secrets = split_secrets(JobSpec.model_validate(request))
    before = json.dumps(public)
    merge_secrets(public, secrets)
    assert json.dumps(public) == before


def test_secrets_are_named_by_json_pointers() -> None:
    spec = JobSpec.model_validate(
        {
            "source": {
                "kind": "http",
                "url": "https://media.example/in.mp4?token=t0ken",
                "headers": {"X~Key": "v4lue"},
            },
            "outputs": [
                {
                    "destination": {
                        "kind": "s3",
                        "bucket": "bucket-1",
                        "path": "out.mp4",
                        "access_key_id": "AKIA",
                        "access_key_secret": "s3cret",
                    }
                }
            ],
        }
    )
    public, secrets = split_secrets(spec)
    assert secrets == {
        "/source/url": "https://media.example/in.mp4?token=t0ken",
        "/source/headers/X~0Key": "v4lue",
        "/outputs/0/destination/access_key_id": "AKIA",
        "/outputs/0/destination/access_key_secret": "s3cret",
    }
    assert public["source"] == {
        "kind": "http",
        "url": "https://media.example/in.mp4?token=***",
        "headers": {"X~Key": {"set": True}},
    }


@given(st.text())
def test_a_step_of_a_pointer_survives_escaping(part: str) -> None:
    assert "/" not in escape_pointer(part)
    assert unescape_pointer(escape_pointer(part)) == part


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        pytest.param("https://a.example/x?v=1", "https://a.example/x?v=1", id="nothing to hide"),
        pytest.param("https://u:p@a.example:8443/x", "https://***@a.example:8443/x", id="a login"),
        pytest.param("ftp://u@a.example/x", "ftp://***@a.example/x", id="a user alone"),
        pytest.param("https://a.example/x#f", "https://a.example/x", id="a fragment"),
        pytest.param(
            "https://b.example/k?X-Amz-Date=1&X-Amz-Signature=f00&X-Amz-Credential=AK%2Fs3",
            "https://b.example/k?X-Amz-Date=1&X-Amz-Signature=***&X-Amz-Credential=***",
            id="signed for AWS",
        ),
        pytest.param(
            "https://b.example/k?sv=2024&se=1&sig=f00%3D",
            "https://b.example/k?sv=2024&se=1&sig=***",
            id="signed for Azure",
        ),
        pytest.param(
            "https://b.example/k?Policy=x&Signature=y&Key-Pair-Id=z",
            "https://b.example/k?Policy=***&Signature=***&Key-Pair-Id=***",
            id="signed for CloudFront",
        ),
        pytest.param(
            "https://b.example/k?ACCESS_TOKEN=x&client_secret=y&Authorization=z",
            "https://b.example/k?ACCESS_TOKEN=***&client_secret=***&Authorization=***",
            id="the usual names, in any case",
        ),
        pytest.param(
            "https://b.example/k?monkey=1&design=2",
            "https://b.example/k?monkey=1&design=2",
            id="names that only contain such a name",
        ),
    ],
)
def test_a_url_is_shown_without_what_opens_it(url: str, shown: str) -> None:
    assert redact_url(url) == shown


SECRET = 'p+s"s/w ör=d%'


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(SECRET, id="as it is"),
        pytest.param(quote(SECRET), id="in a path"),
        pytest.param(quote(SECRET, safe=""), id="quoted whole"),
        pytest.param(quote_plus(SECRET), id="in a form"),
        pytest.param(json.dumps(SECRET)[1:-1], id="in JSON"),
        pytest.param(base64.b64encode(SECRET.encode()).decode()[:-2], id="in base64"),
        pytest.param(
            base64.urlsafe_b64encode(SECRET.encode()).decode()[:-2], id="in base64 for URLs"
        ),
    ],
)
def test_a_known_secret_is_blanked_however_it_is_written(written: str) -> None:
    shown = Redactor([SECRET])(f"before {written} after")
    assert written not in shown
    assert MASK in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@given(st.text(max_size=9), st.text(LETTERS, min_size=8, max_size=24), st.text(max_size=9))
def test_a_secret_inside_base64_is_blanked_at_any_alignment(
    before: str, secret: str, after: str
) -> None:
    whole = base64.b64encode((before + secret + after).encode()).decode()
    shown = Redactor([secret])(whole)
    assert MASK in shown
    # What is left of it are the characters that it shares with its neighbours.
    assert len(shown) <= len(whole) - (len(secret) * 8 // 6 - 3) + len(MASK)


def test_a_secret_within_a_secret_leaves_no_tail() -> None:
    assert Redactor(["pass", "password-long"])("password-long") == MASK


def test_strings_too_short_to_be_secret_are_left_alone() -> None:
    assert Redactor(["abc", ""])("abc abc") == "abc abc"


def test_a_log_record_is_blanked_in_message_fields_and_traceback() -> None:
    redact = RedactingFilter(Redactor(["hunter22"]))
    try:
        raise ValueError("no hunter22 here")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
    record = logging.LogRecord("n", logging.INFO, "p", 1, "said %s", ("hunter22",), caught)
    record.url = "ftp://u:hunter22@a.example"
    assert redact.filter(record)
    text = logging.Formatter("%(message)s %(url)s").format(record)
    assert "hunter22" not in text
    assert text.startswith(f"said {MASK} ftp://u:{MASK}@a.example\nTraceback")
