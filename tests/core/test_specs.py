"""What a request may say: the original's example, every limit, and what is refused where."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from encoder_core.model import MAX_URL_BYTES
from encoder_core.specs import (
    MAX_INLINE_BYTES,
    MAX_OUTPUTS,
    Container,
    InlineSource,
    JobRequest,
    JobSpec,
    OutputSpec,
    Priority,
    S3Destination,
    S3Source,
    Source,
    VideoSettings,
    parse_bitrate,
)
from tests.original import ORIGINAL

SOURCE = {"kind": "https", "url": "https://media.example/in.mp4"}
DESTINATION = {"kind": "https", "url": "https://media.example/out.mp4"}


def a_request(**changes: Any) -> dict[str, Any]:
    """A valid request; a change of None takes the field away."""
    whole = {"source": SOURCE, "outputs": [an_output()], **changes}
    return {name: value for name, value in whole.items() if value is not None}


def an_output(**changes: Any) -> dict[str, Any]:
    return {"destination": DESTINATION, **changes}


def refusal_of(request: dict[str, Any]) -> list[tuple[str, str]]:
    """Where a request is refused and what is said: `[("outputs.0.width", "…")]`."""
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate(request)
    return [
        (".".join(str(part) for part in error["loc"]), error["msg"].removeprefix("Value error, "))
        for error in refused.value.errors(include_url=False)
    ]


@pytest.mark.parametrize("field", ["audioChannels", "frameRate"])
def test_true_is_not_the_number_one(field: str) -> None:
    assert refusal_of(a_request(outputs=[an_output(**{field: True})])) == [
        (f"outputs.0.{field}", "must be a number, and not true or false")
    ]


def test_the_original_request_is_accepted_and_comes_back_unchanged() -> None:
    request = JobRequest.model_validate(ORIGINAL)
    assert request.to_json_with_secrets() == {
        **ORIGINAL,
        "pool": "default",
        "priority": "normal",
    }


def test_what_is_left_out_has_the_documented_default() -> None:
    request = JobRequest.model_validate(a_request())
    assert (request.pool, request.priority) == ("default", Priority.NORMAL)
    assert request.outputs[0].container is Container.MP4
    assert request.outputs[0].video_codec is None


@pytest.mark.parametrize(
    ("text", "bits_per_s"),
    [
        pytest.param("2500k", 2_500_000, id="thousands"),
        pytest.param("2500K", 2_500_000, id="thousands, upper case"),
        pytest.param("2.5M", 2_500_000, id="millions with a fraction"),
        pytest.param("1.001k", 1_001, id="a fraction down to the bit"),
        pytest.param("2500000", 2_500_000, id="bits per second"),
        pytest.param("1k", 1_000, id="the least"),
        pytest.param("1000M", 1_000_000_000, id="the most"),
        pytest.param("1000000000", 1_000_000_000, id="the most, in bits per second"),
    ],
)
def test_bit_rates(text: str, bits_per_s: int) -> None:
    assert parse_bitrate(text) == bits_per_s


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "2500 k",
        "2500kbit",
        "-1k",
        "1e6",
        "0",
        "999",
        "1001M",
        "2,5M",
        "2500k\n",
        "\u0662k",
    ],
)
def test_what_is_no_bit_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_bitrate(text)


def test_a_bit_rate_may_be_a_number() -> None:
    assert VideoSettings.model_validate({"videoBitrate": 2_500_000}).video_bitrate == "2500000"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("LibX264", "libx264"),
        ("libvpx-vp9", "libvpx-vp9"),
        ("libaom-av1", "libaom-av1"),
        ("pcm_s16le", "pcm_s16le"),
    ],
)
def test_codecs_are_names_of_ffmpeg_in_any_case(said: str, kept: str) -> None:
    assert VideoSettings.model_validate({"videoCodec": said}).video_codec == kept


OUTPUT = "outputs.0"


@pytest.mark.parametrize(
    ("output", "where"),
    [
        pytest.param({"videoCodec": "-i"}, "videoCodec", id="a codec that is an argument"),
        pytest.param({"videoCodec": "x264 -i"}, "videoCodec", id="a codec with a space"),
        pytest.param({"container": "avi"}, "container", id="an unknown container"),
        pytest.param({"width": 15}, "width", id="too narrow"),
        pytest.param({"height": 16385}, "height", id="too high"),
        pytest.param({"frameRate": 0}, "frameRate", id="no frames"),
        pytest.param({"frameRate": float("nan")}, "frameRate", id="a frame rate that is no number"),
        pytest.param({"crf": 64}, "crf", id="crf out of its range"),
        pytest.param({"audioChannels": 9}, "audioChannels", id="too many channels"),
        pytest.param({"audioSampleRate": 7999}, "audioSampleRate", id="a sample rate too low"),
        pytest.param({"videoBitrate": "fast"}, "videoBitrate", id="a bit rate in words"),
        pytest.param({"videoBitRate": "2500k"}, "videoBitRate", id="a misspelt field"),
        pytest.param({"clip": {"start": -1}}, "clip.start", id="a clip before the beginning"),
        pytest.param({"clip": {"duration": 0}}, "clip.duration", id="an empty clip"),
        pytest.param(
            {"container": "hls", "renditions": []}, "renditions", id="a ladder without rungs"
        ),
        pytest.param(
            {"container": "jpg", "thumbnails": {"at": []}}, "thumbnails.at", id="no instants"
        ),
    ],
)
def test_a_wrong_field_of_an_output_is_named(output: dict[str, Any], where: str) -> None:
    places = [place for place, _ in refusal_of(a_request(outputs=[an_output(**output)]))]
    assert places == [f"{OUTPUT}.{where}"]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        pytest.param(
            {"crf": 23, "videoBitrate": "1M"},
            (OUTPUT, "give crf or videoBitrate, not both; cap a crf with maxBitrate"),
            id="two kinds of rate control",
        ),
        pytest.param(
            {"renditions": [{"height": 720}]},
            (OUTPUT, "renditions are for hls and dash"),
            id="a ladder in a file",
        ),
        pytest.param(
            {"thumbnails": {"count": 3}},
            (OUTPUT, "thumbnails are for jpg and png"),
            id="thumbnails in a film",
        ),
        pytest.param(
            {"container": "png", "thumbnails": {"count": 3, "at": [1.0]}},
            (f"{OUTPUT}.thumbnails", "give exactly one of count, intervalSeconds and at"),
            id="thumbnails chosen twice",
        ),
        pytest.param(
            {"container": "png", "thumbnails": {}},
            (f"{OUTPUT}.thumbnails", "give exactly one of count, intervalSeconds and at"),
            id="thumbnails not chosen",
        ),
    ],
)
def test_fields_that_exclude_one_another(output: dict[str, Any], said: tuple[str, str]) -> None:
    assert refusal_of(a_request(outputs=[an_output(**output)])) == [said]


@pytest.mark.parametrize(
    ("source", "places"),
    [
        pytest.param({"kind": "gopher"}, ["source"], id="an unknown kind"),
        pytest.param({}, ["source"], id="no kind"),
        pytest.param({"kind": "http"}, ["source.http.url"], id="http without a url"),
        pytest.param(
            {"kind": "s3", "bucket": "b-1"}, ["source.s3.path"], id="an object without a path"
        ),
        pytest.param(
            {"kind": "s3", "bucket": "../etc", "path": "x"},
            ["source.s3.bucket"],
            id="a bucket that is a path",
        ),
        pytest.param(
            {"kind": "s3", "bucket": "b-1", "path": "x", "access_key_id": "A"},
            ["source.s3"],
            id="half of a pair of keys",
        ),
        pytest.param(
            {"kind": "s3", "bucket": "b-1", "path": "x", "session_token": "T"},
            ["source.s3"],
            id="a session without its keys",
        ),
        pytest.param({"kind": "ftp"}, ["source.ftp"], id="ftp without a place"),
        pytest.param(
            {"kind": "ftp", "host": "ftp.example"}, ["source.ftp"], id="ftp without a path"
        ),
        pytest.param(
            {"kind": "ftp", "url": "ftp://ftp.example/a", "path": "b"},
            ["source.ftp"],
            id="ftp with two places",
        ),
        pytest.param(
            {"kind": "ftp", "url": "http://ftp.example/a"},
            ["source.ftp.url"],
            id="ftp with a web address",
        ),
        pytest.param({"kind": "inline", "data": "a b"}, ["source.inline.data"], id="no base64"),
        pytest.param({"kind": "inline"}, [""], id="inline without data"),
        pytest.param(
            {"kind": "inline", "data": "AAAA", "sizeBytes": 3},
            [""],
            id="what only the service may set",
        ),
    ],
)
def test_a_wrong_source_is_refused_where_it_is_wrong(
    source: dict[str, Any], places: list[str]
) -> None:
    assert [place for place, _ in refusal_of(a_request(source=source))] == places


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/a",
        "https://",
        "https:///path",
        "https://exa mple.com/",
        "https://example.com/\nHost: other",
        "https://example.com\\@other.example/",
        "https://[::1",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com/" + "a" * 8192,
        "https://example.com/" + "é" * 4096,
        "example.com/a.mp4",
        "",
    ],
)
def test_an_address_that_two_parsers_could_read_differently_is_refused(url: str) -> None:
    refused = refusal_of(a_request(source={"kind": "http", "url": url}))
    assert [place for place, _ in refused] == ["source.http.url"]


@pytest.mark.parametrize("text", ["🎬", "é", ":", "%", "a&", "sig&"])
def test_the_longest_address_is_still_shown_when_all_of_it_is_quoted(text: str) -> None:
    begin = "https://example.com/?"
    room = (MAX_URL_BYTES - len(begin)) // len(text.encode())
    asked = JobSpec.model_validate(a_request(notificationUrl=begin + text * room))
    shown = asked.to_json()["notificationUrl"]
    assert MAX_URL_BYTES < len(shown) <= 3 * MAX_URL_BYTES


@pytest.mark.parametrize(
    "path",
    ["", "/", "///", "..", "a/../b", "/../etc/passwd", "a\x00b", "a\r\nb", "a\x7f", "é" * 513],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    refused = refusal_of(a_request(source={"kind": "s3", "bucket": "b-1", "path": path}))
    assert [place for place, _ in refused] == ["source.s3.path"]


@pytest.mark.parametrize("path", ["a", "/a/b.mp4", "a..b/c", "…/film (1).mp4", "é" * 512])
def test_other_paths_are_taken_as_they_are(path: str) -> None:
    source = S3Source.model_validate({"kind": "s3", "bucket": "b-1", "path": path})
    assert source.path == path


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Host": "other"}, id="the host"),
        pytest.param({"content-length": "1"}, id="the length"),
        pytest.param({"Range": "bytes=0-"}, id="the range"),
        pytest.param({"X Y": "1"}, id="a name with a space"),
        pytest.param({"X-A": "1\r\nX-B: 2"}, id="a value with a line break"),
        pytest.param({"X-A": ""}, id="an empty value"),
        pytest.param({f"X-{n}": "1" for n in range(33)}, id="too many"),
    ],
)
def test_headers_that_are_not_the_callers_are_refused(headers: dict[str, str]) -> None:
    assert refusal_of(a_request(source={**SOURCE, "headers": headers}))


def test_an_inline_source_may_be_as_large_as_documented_and_no_larger() -> None:
    largest = base64.b64encode(bytes(MAX_INLINE_BYTES)).decode()
    source = InlineSource.model_validate({"kind": "inline", "data": largest})
    assert source.data == largest
    one_more = base64.b64encode(bytes(MAX_INLINE_BYTES + 1)).decode()
    assert refusal_of(a_request(source={"kind": "inline", "data": one_more})) == [
        (
            "source.inline.data",
            f"must decode to at most {MAX_INLINE_BYTES} bytes; give larger files by URL",
        )
    ]


def test_a_job_has_1_to_32_outputs() -> None:
    JobRequest.model_validate(a_request(outputs=[an_output()] * MAX_OUTPUTS))
    too_many = refusal_of(a_request(outputs=[an_output()] * (MAX_OUTPUTS + 1)))
    assert [place for place, _ in too_many] == ["outputs"]
    assert [place for place, _ in refusal_of(a_request(outputs=[]))] == ["outputs"]


def test_a_stored_job_may_have_no_outputs_because_it_is_a_probe() -> None:
    assert JobSpec.model_validate(a_request(outputs=[])).outputs == []


def test_a_stored_inline_source_keeps_only_its_size() -> None:
    spec = JobSpec.model_validate(a_request(source={"kind": "inline", "sizeBytes": 3}))
    assert spec.to_json()["source"] == {"kind": "inline", "sizeBytes": 3}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"pool": "No Pool"}, "pool", id="a pool that is no label"),
        pytest.param({"pool": "a" * 64}, "pool", id="a pool's name too long"),
        pytest.param({"priority": "urgent"}, "priority", id="an unknown priority"),
        pytest.param({"externalId": ""}, "externalId", id="an empty name of the caller's"),
        pytest.param({"externalId": "x" * 129}, "externalId", id="a name too long"),
        pytest.param(
            {"metadata": {f"k{n}": "v" for n in range(33)}}, "metadata", id="too much metadata"
        ),
        pytest.param({"metadata": {"k": "v" * 513}}, "metadata.k", id="metadata too long"),
        pytest.param({"notificationUrl": "ftp://a.example"}, "notificationUrl", id="a bad hook"),
        pytest.param({"notifyUrl": "https://a.example"}, "notifyUrl", id="a misspelt field"),
    ],
)
def test_the_rest_of_a_request_is_checked_too(changes: dict[str, Any], where: str) -> None:
    assert [place for place, _ in refusal_of(a_request(**changes))] == [where]


def test_a_refusal_never_repeats_the_value() -> None:
    request = a_request(
        source={"kind": "s3", "bucket": "b-1", "path": "x", "access_key_id": "CANARY\x01"}
    )
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate(request)
    assert "CANARY" not in str(refused.value)


def test_a_model_prints_no_secret() -> None:
    destination = S3Destination.model_validate(ORIGINAL["outputs"][0]["destination"])
    assert "EXAMPLEKEY" not in repr(destination)


def test_http_and_https_are_one_kind_of_source() -> None:
    kinds = [
        TypeAdapter[Source](Source).validate_python({**SOURCE, "kind": kind}).kind
        for kind in ("http", "https")
    ]
    assert kinds == ["http", "https"]


def test_every_field_of_an_output_has_its_camel_case_name_on_the_wire() -> None:
    schema = OutputSpec.model_json_schema()
    assert all("_" not in name for name in schema["properties"])


class TestWhatAnObjectIsStoredWith:
    FIELDS = {"kind": "s3", "bucket": "out", "path": "clip.mp4"}

    def refusal(self, **more: Any) -> str:
        destination = {**self.FIELDS, **more}
        [(_, why)] = refusal_of(a_request(outputs=[{"destination": destination}]))
        return why

    def test_a_key_without_its_kind_of_encryption_is_refused(self) -> None:
        why = "kmsKeyId needs serverSideEncryption aws:kms"
        assert self.refusal(kmsKeyId="alias/a") == why
        assert self.refusal(kmsKeyId="alias/a", serverSideEncryption="AES256") == why

    def test_metadata_has_two_kilobytes(self) -> None:
        S3Destination.model_validate(
            {**self.FIELDS, "metadata": {"ab": "x" * 1023, "b": "y" * 1022}}
        )
        why = self.refusal(metadata={"ab": "x" * 1023, "b": "y" * 1023})
        assert why == "names and values must have at most 2048 bytes"

    @pytest.mark.parametrize(
        "more",
        [
            pytest.param({"metadata": {"a": "b\r\nX-Amz-Acl: public-read"}}, id="in metadata"),
            pytest.param({"metadata": {"a\r\nb": "c"}}, id="in a name"),
            pytest.param({"cacheControl": "no-store\r\nX: y"}, id="in cacheControl"),
            pytest.param({"storageClass": "STANDARD\n"}, id="in storageClass"),
        ],
    )
    def test_no_header_can_be_smuggled(self, more: dict[str, Any]) -> None:
        assert self.refusal(**more)
