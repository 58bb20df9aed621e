"""Uploads files to an S3 bucket and signs links to them.

boto3 signs; the bytes are sent by our own HTTP client, because a request may name a bucket of its own (`s3Config`),
whose endpoint has to obey the same rules as any other address that callers send.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from errors import DeliveryError, ErrorCode, HttpError
from worker.http.addresses import parse_url
from worker.http.client import HttpClient
from worker.http.connection import INTERNET, NetworkBackend
from worker.http.errors import InvalidUrlError, PrivateAddressError
from worker.settings import Settings

logger = logging.getLogger(__name__)

LINK_S = 7 * 24 * 3600
UPLOAD_TIMEOUT_S = 900.0
ATTEMPTS = 3
SIGNATURE_S = 3600
HTTP_OK, HTTP_SERVER_ERROR = 200, 500
# Field of `Bucket` -> key of RunPod's s3Config.
S3_CONFIG = {
    "access_key_id": "accessId",
    "secret_access_key": "accessSecret",
    "name": "bucketName",
    "endpoint_url": "endpointUrl",
    "region": "region",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
AWS_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?(?P<host>s3[.-](?:[a-z0-9.-]+\.)?amazonaws\.com(?:\.cn)?)")
REGION = re.compile(
    r"(?:^|\.)s3(?:api)?[.-](?:dualstack\.)?(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d+|[a-z]{2}-[a-z]{3}(?=\.scw\.cloud))\."
    r"|^(?P<space>[a-z]{3}\d)\.digitaloceanspaces\.com$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The bucket that results go to.

    Args:
        endpoint_url: empty for AWS.
        trusted: the settings of the worker name the bucket, not a request; it may then have a private address.
    """

    name: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    endpoint_url: str = ""
    region: str = "us-east-1"
    trusted: bool = False

    @property
    def path_style(self) -> bool:
        """Only AWS requires the bucket in the host name; its certificate does not cover names with dots there."""
        return "amazonaws.com" not in (self.endpoint_url or "amazonaws.com") or "." in self.name


def find_bucket(s3_config: Mapping[str, Any] | None, settings: Settings) -> Bucket | None:
    """The request's own bucket, else the bucket of the settings, else None.

    Raises:
        DeliveryError: `bucket_misconfigured`, if a value is missing or not valid; the message names it.
    """
    if s3_config:
        values = {name: s3_config.get(key) or "" for name, key in S3_CONFIG.items()}
        if not all(isinstance(value, str) and value.isprintable() for value in values.values()):
            raise _misconfigured_error("the values of s3Config must be strings")
        return _make_bucket(values, names=S3_CONFIG, trusted=False)
    if not (settings.bucket_endpoint_url or settings.bucket_name):
        return None
    values = {name: getattr(settings, f"bucket_{name}") for name in S3_CONFIG}
    return _make_bucket(values, names={name: f"BUCKET_{name.upper()}" for name in S3_CONFIG}, trusted=True)


def _make_bucket(values: Mapping[str, str], *, names: Mapping[str, str], trusted: bool) -> Bucket:
    """`names` has the name that the user knows each value by, for errors."""
    endpoint, name = _split_endpoint(values["endpoint_url"].strip(), values["name"].strip())
    complete = {**values, "name": name}
    missing = [names[key] for key in ("access_key_id", "secret_access_key", "name") if not complete[key]]
    if missing:
        raise _misconfigured_error(f"{', '.join(missing)} must be set too")
    if not NAME.fullmatch(name):
        raise _misconfigured_error(f"{names['name']} is not a valid bucket name")
    return Bucket(
        name=name,
        access_key_id=values["access_key_id"],
        secret_access_key=values["secret_access_key"],
        endpoint_url=endpoint,
        region=values["region"] or guess_region(endpoint),
        trusted=trusted,
    )


def _split_endpoint(endpoint: str, name: str) -> tuple[str, str]:
    """The endpoint without the bucket, which people also write into its host or path, and the bucket's name."""
    if not endpoint:
        return "", name
    try:
        url = parse_url(endpoint)
    except InvalidUrlError as error:
        raise _misconfigured_error("the endpoint must be a plain http(s):// URL") from error
    aws = AWS_HOST.fullmatch(url.host)
    in_host = (aws["bucket"] or "") if aws else name if name and url.host.startswith(f"{name}.") else ""
    found = {part for part in (name, in_host, url.path.strip("/")) if part}
    if len(found) > 1:
        raise _misconfigured_error("the endpoint contains a path or bucket other than the bucket's name")
    authority = url.authority[len(in_host) + 1 :] if in_host else url.authority
    return f"{url.scheme}://{authority}", next(iter(found), "")


def guess_region(endpoint: str) -> str:
    """The region that the usual providers have in their endpoints; `us-east-1` if there is none."""
    host = parse_url(endpoint).host if endpoint else ""
    if host.endswith(".r2.cloudflarestorage.com"):
        return "auto"
    found = REGION.search(host)
    return (found["region"] or found["space"]) if found else "us-east-1"


class Uploader:
    """Puts files into one bucket; safe to use from several threads.

    Args:
        deadline: `time.monotonic()` value at which uploads end.
        check: raises when the job must end.
        allow_private: also lets a bucket that a request names have a private address.
        pause_s: wait before the second attempt, doubled for each later one.
    """

    def __init__(  # noqa: PLR0913  (all but the bucket by keyword)
        self,
        bucket: Bucket,
        *,
        deadline: float = math.inf,
        check: Callable[[], None] = lambda: None,
        allow_private: bool,
        network: NetworkBackend = INTERNET,
        pause_s: float = 1.0,
    ) -> None:
        self._bucket, self._deadline, self._check, self._pause_s = bucket, deadline, check, pause_s
        self._http = HttpClient(allow_private=allow_private or bucket.trusted, network=network)
        self._signer = _make_signer(bucket)

    def upload(self, file: BinaryIO, *, key: str, content_type: str) -> str:
        """Sends `file`, from its start, to `key` and returns a link that opens it for seven days.

        Raises `DeliveryError` (`bucket_upload_failed`, `bucket_misconfigured`, `private_url`); it never contains a key
        or a host.
        """
        url = self._sign("put_object", key, SIGNATURE_S, ContentType=content_type)
        failure = _upload_error("")
        for attempt in range(ATTEMPTS):
            if attempt:
                logger.warning("attempt %d to upload to the bucket failed", attempt)
                self._pause(self._pause_s * 2 ** (attempt - 1))
            try:
                status, reason = self._put(url, file, content_type)
            except HttpError as error:
                if isinstance(error, PrivateAddressError):
                    raise DeliveryError(
                        f"The bucket's endpoint is not allowed. {error}", code=ErrorCode.PRIVATE_URL
                    ) from error
                failure = _upload_error("it could not be reached, or the connection broke")
                continue
            if status == HTTP_OK:
                return self._sign("get_object", key, LINK_S)
            failure = _upload_error(f"it answered HTTP {status} {reason}".rstrip(), status=status, reason=reason)
            if status < HTTP_SERVER_ERROR:
                break
        raise failure

    def _sign(self, method: str, key: str, seconds: int, **headers: str) -> str:
        from botocore.exceptions import BotoCoreError

        parameters = {"Bucket": self._bucket.name, "Key": key, **headers}
        try:
            return str(self._signer.generate_presigned_url(method, Params=parameters, ExpiresIn=seconds))
        except (BotoCoreError, ValueError) as error:
            raise _misconfigured_error("its name or endpoint is not valid") from error

    def _put(self, url: str, file: BinaryIO, content_type: str) -> tuple[int, str]:
        """One attempt; returns the HTTP status and S3's own code for what went wrong."""
        response = self._http.request(
            "PUT",
            url,
            headers={"Content-Type": content_type},
            body=file,
            timeout_s=self._deadline - time.monotonic(),
            check=self._check,
        )
        code = re.search(rb"<Code>([A-Za-z0-9]{1,64})</Code>", response.body[:4096])
        return response.status, code[1].decode() if code else ""

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            self._check()
            if time.monotonic() >= self._deadline:
                raise _upload_error("its time is up")
            time.sleep(min(0.1, remaining))


def _make_signer(bucket: Bucket) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if bucket.path_style else "virtual"},
        # Most other S3 servers do not support the checksums that boto3 otherwise adds.
        request_checksum_calculation="when_required",
    )
    try:
        return boto3.session.Session(region_name=bucket.region).client(
            "s3",
            endpoint_url=bucket.endpoint_url or None,
            aws_access_key_id=bucket.access_key_id,
            aws_secret_access_key=bucket.secret_access_key,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise _misconfigured_error("its endpoint or region is not valid") from error


def _misconfigured_error(reason: str) -> DeliveryError:
    return DeliveryError(f"The bucket cannot be used as configured: {reason}.", code=ErrorCode.BUCKET_MISCONFIGURED)


def _upload_error(problem: str, **details: Any) -> DeliveryError:
    return DeliveryError(
        f"The upload to the bucket failed: {problem}. Check its keys, name, region and endpoint, or choose another"
        " 'delivery'.",
        code=ErrorCode.BUCKET_UPLOAD_FAILED,
        details=details,
    )
