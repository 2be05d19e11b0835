"""
S3 and whatever speaks it, with boto3 for the protocol and the checked dialler for the way out.

boto3 signs and parses; each request it wants to send is handed to our own connection pools, so
that an endpoint named in a request is checked like every other host. Retries are ours too: one
policy for all connectors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import boto3
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, SSLError

from encoder_core.egress_http import CONTENT_RANGE, CheckedHttp, host_of
from encoder_core.errors import JobError
from encoder_core.parallel import each
from encoder_core.retry_after import read_retry_after
from encoder_core.specs import S3Destination, S3Location, S3Source
from encoder_core.storage.base import Access, Delivered, Reading, SourceStat, Upload
from encoder_core.storage.failing import (
    RangeIgnored,
    Side,
    failure_of_status,
    with_retries,
)
from encoder_core.storage.files import beside

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

T = TypeVar("T")

CHUNK_BYTES: Final = 256 * 1024
SINGLE_PUT_BYTES: Final = 16 * 1024**2  # below it one request is quicker than the four of multipart
PART_BYTES: Final = 8 * 1024**2
MAX_PARTS: Final = 9_000  # S3 takes 10,000
PARTS_IN_FLIGHT: Final = 4  # each is held in memory while it is sent
DEFAULT_REGION: Final = "us-east-1"

_CHANGED: Final = frozenset({"PreconditionFailed", "412"})
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"})
# Answered with 400, though it was the way that failed and not the request.
_TRANSIENT: Final = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch"}
)
_NO_RANGE: Final = frozenset({"InvalidRange", "416"})
_GONE_UPLOAD: Final = "NoSuchUpload"


class _NoSuchRange(JobError):
    """The object ends before the range that was asked for; an empty one always does."""


class _AsItComes:
    """A response whose `read` gives what is there instead of waiting for all it was asked."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def read(self, amount: int | None = None) -> bytes:
        if amount is None or self._response.chunked:
            return self._response.read(amount, decode_content=False)
        return self._response.read1(amount, decode_content=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)


class _Bucket:
    """One bucket as one request may reach it."""

    def __init__(self, side: Side, location: S3Location, access: Access) -> None:
        self.side = side
        self.name = location.bucket
        self._clock = access.clock
        self._endpoint = location.endpoint.get_secret_value() if location.endpoint else None
        self.region = location.region or access.ambient.region or DEFAULT_REGION
        self.borrows = location.access_key_id is None and _may_borrow(location, access)
        self.anonymous = location.access_key_id is None and not self.borrows
        self._http = CheckedHttp(
            access.dialler,
            connect_timeout_s=access.connect_timeout_s,
            read_timeout_s=access.read_timeout_s,
        )
        self.client = self._make_client(location, access)
        self.host = host_of(self.client.meta.endpoint_url)

    def _make_client(self, location: S3Location, access: Access) -> S3Client:
        path_style = location.force_path_style
        if path_style is None:
            path_style = location.endpoint is not None
        config = Config(
            signature_version=UNSIGNED if self.anonymous else "s3v4",
            s3={"addressing_style": "path" if path_style else "virtual"},
            # Since boto3 1.36 the default adds trailers that many stores other than AWS refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        session = boto3.session.Session(**self._credentials(location, access))
        client: S3Client = session.client(
            "s3", region_name=self.region, endpoint_url=self._endpoint, config=config
        )
        client.meta.events.register("before-send.s3", self._send)  # type: ignore[arg-type]  # the stubs take no answer
        return client

    def _credentials(self, location: S3Location, access: Access) -> dict[str, Any]:
        """The request's own, else the installation's; none leaves the search to boto3."""
        lender = access.ambient if self.borrows else location
        if lender.access_key_id is None or lender.access_key_secret is None:
            return {}
        token = lender.session_token
        return {
            "aws_access_key_id": lender.access_key_id.get_secret_value(),
            "aws_secret_access_key": lender.access_key_secret.get_secret_value(),
            "aws_session_token": token.get_secret_value() if token else None,
        }

    def _send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """botocore's own hook for who sends a request: what is returned here is the answer."""
        headers = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
            # It is not signed, and our pools do not wait for the go-ahead.
            if name.lower() != "expect"
        }
        body: Any = request.body
        host = host_of(request.url)
        try:
            response = self._http.send(request.method, request.url, headers=headers, body=body)
        except SSLError as error:
            raise self.side.fail(
                "rejected", f"The TLS certificate of {host} is not valid."
            ) from error
        except HTTPError as error:
            what = type(error).__name__
            raise self.side.fail("unreachable", f"{host} did not answer ({what}).") from error
        answered: Any = response.headers  # read like a dict of either library
        raw: Any = _AsItComes(response)
        return AWSResponse(request.url, response.status, answered, raw)

    def call(self, operation: Callable[[], T]) -> T:
        """Do one request of the client, again while that may help."""
        return with_retries(lambda: self.call_once(operation), clock=self._clock)

    def call_once(self, operation: Callable[[], T]) -> T:
        """Do one request of the client; failures in our words."""
        try:
            return operation()
        except ClientError as error:
            raise self.failure_of(error) from error
        except BotoCoreError as error:
            raise self._failure_without_answer(error) from error
        except HTTPError as error:
            message = f"{self.host} broke off its answer."
            raise self.side.fail("unreachable", message) from error

    def told(self, answer: Mapping[str, Any], name: str) -> str:
        """What every store says in this answer: one that does not is none."""
        value = answer.get(name)
        if not value:
            raise self.side.fail("rejected", f"{self.host} does not speak S3: no {name}.")
        return str(value)

    def failure_of(self, error: ClientError) -> JobError:
        """By S3's own code where it says more than the status. Its text may repeat a key."""
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        metadata = answer.get("ResponseMetadata", {})
        status = int(metadata.get("HTTPStatusCode", 0))
        if code in _CHANGED and self.side is Side.SOURCE:
            return self.side.fail(
                "changed", f"The source at {self.host} changed while it was read."
            )
        if code in _NO_RANGE:
            return _NoSuchRange("source_rejected", f"{self.host} has no such range.")
        if code in _FULL and self.side is Side.DESTINATION:
            return self.side.fail("full", f"{self.host} answered {code}: there is no room.")
        if status < 300:
            status = 500  # an error inside a 200, as completing a multipart may have
        retry_after = metadata.get("HTTPHeaders", {}).get("retry-after")
        reason = "" if code.isdigit() else code
        if code in _TRANSIENT:
            message = f"{self.host} answered {status} ({code}) for the {self.side.value}."
            wait_s = read_retry_after(retry_after)
            return self.side.fail("unreachable", message, retry_after_s=wait_s)
        failure = failure_of_status(
            self.side, self.host, status, reason=reason, retry_after=retry_after
        )
        if self.anonymous and failure.code.endswith("_denied"):
            message = (
                f"{failure} It was asked without credentials: the request has none, and the"
                " service's own are not for this endpoint, bucket or pool."
            )
            return self.side.fail("denied", message)
        return failure

    def _failure_without_answer(self, error: BotoCoreError) -> JobError:
        name = type(error).__name__
        if "Credentials" in name or "Token" in name:
            return self.side.fail("denied", f"There are no credentials for {self.host} ({name}).")
        if name in ("ParamValidationError", "InvalidRegionError", "InvalidS3AddressingStyleError"):
            return self.side.fail("rejected", f"The request to {self.host} is not valid ({name}).")
        return self.side.fail("unreachable", f"{self.host} did not answer ({name}).")

    def url(self, key: str) -> str:
        path = quote(key, safe="/~")
        if self._endpoint is not None:
            return f"{self._endpoint.rstrip('/')}/{self.name}/{path}"
        return f"https://{self.name}.s3.{self.region}.amazonaws.com/{path}"


def _may_borrow(location: S3Location, access: Access) -> bool:
    """
    Whether the installation's credentials may be used for this request.

    Never for an endpoint that the request names: whoever runs it would get to see them signed.
    """
    ambient = access.ambient
    if location.endpoint is not None:
        return False
    if ambient.buckets is not None and location.bucket not in ambient.buckets:
        return False
    return ambient.access_key_id is not None or ambient.use_chain


class S3SourceConnector:
    parallel = True

    def __init__(self, source: S3Source, access: Access) -> None:
        self.local_path = None
        self._key = source.path.lstrip("/")
        self._bucket = _Bucket(Side.SOURCE, source, access)

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        bucket = self._bucket
        conditions: dict[str, Any] = {"IfMatch": validator} if validator else {}
        if first or end is not None:
            conditions["Range"] = f"bytes={first}-{'' if end is None else end - 1}"
        try:
            answer = bucket.call_once(
                lambda: bucket.client.get_object(Bucket=bucket.name, Key=self._key, **conditions)
            )
        except _NoSuchRange as error:
            if first:
                message = f"The source at {bucket.host} has become shorter."
                raise Side.SOURCE.fail("changed", message) from error
            return Reading(SourceStat(0, None, ranges=False), iter(()))
        body = answer["Body"]
        try:
            return Reading(self._stat(answer, first), self._chunks(body), body.close)
        except JobError:
            body.close()
            raise

    def _stat(self, answer: GetObjectOutputTypeDef, first: int) -> SourceStat:
        length: int | None = answer.get("ContentLength")  # S3 always says it; others may not
        etag = answer.get("ETag", "W/")
        validator = None if etag.startswith("W/") else etag
        match = CONTENT_RANGE.match(answer.get("ContentRange", ""))
        if match is None and first == 0:
            return SourceStat(length, validator, ranges=False)
        host = self._bucket.host
        if answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.OK:
            raise RangeIgnored(host)
        if match is None or int(match[1]) != first or match[3] == "*":
            raise Side.SOURCE.fail("rejected", f"{host} answered another part than asked for.")
        if length not in (None, int(match[2]) + 1 - first):
            raise Side.SOURCE.fail("rejected", f"{host} contradicts itself about a part's length.")
        return SourceStat(int(match[3]), validator, ranges=True)

    def _chunks(self, body: StreamingBody) -> Iterator[bytes]:
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, HTTPError) as error:
            message = f"{self._bucket.host} closed the connection before the end."
            raise Side.SOURCE.fail("truncated", message) from error


class S3DestinationConnector:
    at_once = 4

    def __init__(self, destination: S3Destination, access: Access) -> None:
        self._path = destination.path.lstrip("/")
        self._bucket = _Bucket(Side.DESTINATION, destination, access)
        self._before_publish = access.before_publish
        self._content_type = destination.content_type
        asked = {
            "ACL": destination.acl,
            "CacheControl": destination.cache_control,
            "StorageClass": destination.storage_class,
            "ServerSideEncryption": destination.server_side_encryption,
            "SSEKMSKeyId": destination.kms_key_id,
            "Metadata": destination.metadata,
        }
        # What is not asked for is not sent: stores other than AWS refuse what they do not know.
        self._extra = {name: value for name, value in asked.items() if value is not None}

    def begin(self, content_type: str) -> Multipart:
        extra = {"ContentType": self._content_type or content_type, **self._extra}
        return Multipart(self._bucket, self._path, extra, self._before_publish)

    def put(self, upload: Upload) -> Delivered:
        key = self._path if upload.name is None else beside(self._path, upload.name)
        # A content type of the request is for the file it names, not for each of a set.
        own = self._content_type if upload.name is None else None
        extra = {"ContentType": own or upload.content_type, **self._extra}
        if upload.size_bytes < SINGLE_PUT_BYTES:
            self._put_whole(upload, key, extra)
        else:
            self._put_parts(upload, key, extra)
        return Delivered(self._bucket.url(key))

    def _put_whole(self, upload: Upload, key: str, extra: dict[str, Any]) -> None:
        bucket = self._bucket
        data = upload.path.read_bytes()

        def put() -> None:
            self._before_publish()
            bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data, **extra)

        bucket.call(put)

    def _put_parts(self, upload: Upload, key: str, extra: dict[str, Any]) -> None:
        size = max(PART_BYTES, -(-upload.size_bytes // MAX_PARTS))
        offsets = range(0, upload.size_bytes, size)
        parts = Multipart(self._bucket, key, extra, self._before_publish)

        def send(number: int) -> None:
            with upload.path.open("rb") as file:
                data = os.pread(file.fileno(), size, offsets[number - 1])
            parts.send(number, data)

        try:
            each(send, range(1, len(offsets) + 1), at_once=PARTS_IN_FLIGHT)
            parts.complete(len(offsets), upload.size_bytes)
        except BaseException:
            # Parts of an upload that nobody finishes cost money until somebody looks.
            parts.abort()
            raise


class Multipart:
    """An object on its way in parts. There is none before the last word."""

    def __init__(
        self,
        bucket: _Bucket,
        key: str,
        extra: dict[str, Any],
        before_publish: Callable[[], None],
    ) -> None:
        self._bucket = bucket
        self._place: dict[str, Any] = {"Bucket": bucket.name, "Key": key}
        self._before_publish = before_publish
        self._tags: dict[int, str] = {}
        client, place = bucket.client, self._place
        created = bucket.call(lambda: client.create_multipart_upload(**place, **extra))
        place["UploadId"] = bucket.told(created, "UploadId")

    def send(self, number: int, data: bytes) -> None:
        bucket = self._bucket
        answer = bucket.call(
            lambda: bucket.client.upload_part(**self._place, PartNumber=number, Body=data)
        )
        self._tags[number] = bucket.told(answer, "ETag")

    def complete(self, parts: int, size_bytes: int) -> Delivered:
        """A completion whose answer was lost is found out by what is there."""
        bucket = self._bucket
        listed: Any = [
            {"ETag": self._tags[number], "PartNumber": number} for number in range(1, parts + 1)
        ]

        def complete() -> None:
            self._before_publish()
            try:
                bucket.client.complete_multipart_upload(
                    **self._place, MultipartUpload={"Parts": listed}
                )
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code != _GONE_UPLOAD or not self._is_there(size_bytes):
                    raise

        bucket.call(complete)
        return Delivered(bucket.url(self._place["Key"]))

    def _is_there(self, size_bytes: int) -> bool:
        bucket = self._bucket
        head = bucket.client.head_object(Bucket=bucket.name, Key=self._place["Key"])
        return head["ContentLength"] == size_bytes

    def abort(self) -> None:
        with suppress(ClientError, BotoCoreError, HTTPError, JobError):
            # The failure that led here is the one to tell.
            self._bucket.client.abort_multipart_upload(**self._place)
