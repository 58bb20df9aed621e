"""Uploads over HTTP to an S3 server, and to servers that fail."""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from typing import Any

import boto3
import pytest
import requests

from errors import CancelledError, DeliveryError
from testing.loopback import Request, Write, respond_with, serve
from worker.http.connection import NetworkBackend
from worker.output.bucket import Bucket, Uploader, find_bucket, guess_region
from worker.settings import Settings

BODY = bytes(range(256)) * 20_000  # 5 MB
KEY, SECRET = "AKIAEXAMPLEEXAMPLE", "geheim/geheim/geheim"


@pytest.fixture
def fresh_bucket(s3: str) -> Bucket:
    """An empty bucket on the server."""
    name = f"results-{uuid.uuid4().hex[:8]}"
    connect_admin(s3).create_bucket(Bucket=name)
    return make_bucket(s3, name=name)


def connect_admin(url: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )


def make_bucket(url: str, *, name: str = "results", trusted: bool = True, region: str = "us-east-1") -> Bucket:
    return Bucket(
        name=name, access_key_id=KEY, secret_access_key=SECRET, endpoint_url=url, region=region, trusted=trusted
    )


def upload(to: Bucket, *, key: str = "job/song.wav", **options: Any) -> str:
    uploader = Uploader(to, allow_private=False, pause_s=0.01, **options)
    return uploader.upload(io.BytesIO(BODY), key=key, content_type="audio/wav")


def catch_upload_error(to: Bucket, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        upload(to, **options)
    reply = str(caught.value.to_reply())
    assert KEY not in reply and SECRET not in reply and "127.0.0.1" not in reply and "X-Amz" not in reply
    return caught.value


def test_a_file_comes_back_through_its_link_byte_for_byte(fresh_bucket: Bucket) -> None:
    response = requests.get(upload(fresh_bucket), timeout=10)
    assert response.status_code == 200
    assert hashlib.sha256(response.content).digest() == hashlib.sha256(BODY).digest()
    assert response.headers["Content-Type"] == "audio/wav"


def test_a_key_may_hold_any_letters(fresh_bucket: Bucket) -> None:
    link = upload(fresh_bucket, key="job/Lied für Zoë – 歌 (1)+.wav")
    assert requests.get(link, timeout=10).content == BODY
    stored = connect_admin(fresh_bucket.endpoint_url).list_objects_v2(Bucket=fresh_bucket.name)["Contents"]
    assert [entry["Key"] for entry in stored] == ["job/Lied für Zoë – 歌 (1)+.wav"]


def test_the_link_is_valid_for_seven_days_and_signed_for_the_region(s3: str) -> None:
    fresh_bucket = make_bucket(s3, name=f"r-{uuid.uuid4().hex[:8]}", region="eu-central-1")
    connect_admin(s3).create_bucket(Bucket=fresh_bucket.name)
    link = upload(fresh_bucket)
    assert "X-Amz-Expires=604800" in link
    assert "eu-central-1%2Fs3" in link
    assert SECRET not in link


def test_a_bucket_that_does_not_exist_is_reported_with_the_error_code_of_s3(s3: str) -> None:
    error = catch_upload_error(make_bucket(s3, name="nowhere"))
    assert error.error_code == "bucket_upload_failed"
    assert error.details == {"status": 404, "reason": "NoSuchBucket"}
    assert "NoSuchBucket" in error.message


def test_the_file_is_streamed_and_not_held_in_memory() -> None:
    reads: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            reads.append(size)
            return super().read(size)

    with serve(respond_after_upload()) as server:
        uploader = Uploader(make_bucket(server.url("")), allow_private=False)
        uploader.upload(Counted(BODY), key="k", content_type="audio/wav")
    assert 0 < max(reads) <= 1 << 20 and min(reads) > 0


def respond_after_upload(*statuses: str) -> Any:
    """Reads the whole upload, then responds with the next of `statuses`; after the last one, with 200."""
    remaining = list(statuses)

    def respond(request: Request, write: Write) -> None:
        request.body(int(request.headers["content-length"]))
        respond_with(b"", status=remaining.pop(0) if remaining else "200 OK")(request, write)

    return respond


def test_an_upload_is_tried_three_times_if_the_server_fails() -> None:
    with serve(respond_after_upload("503 Slow Down", "500 Oops")) as server:
        upload(make_bucket(server.url("")))
    assert len(server.requests) == 3
    with serve(respond_after_upload(*["503 Slow Down"] * 5)) as server:
        assert catch_upload_error(make_bucket(server.url(""))).details["status"] == 503
    assert len(server.requests) == 3


def test_an_upload_that_is_denied_is_not_tried_again() -> None:
    denied = b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>" + KEY.encode() + b"</AWSAccessKeyId></Error>"

    def respond(request: Request, write: Write) -> None:
        request.body(int(request.headers["content-length"]))
        respond_with(denied, status="403 Forbidden")(request, write)

    with serve(respond) as server:
        error = catch_upload_error(make_bucket(server.url("")))
    assert len(server.requests) == 1
    assert error.details == {"status": 403, "reason": "AccessDenied"}


def test_a_response_before_the_end_of_the_upload_is_reported() -> None:
    with serve(respond_with(b"<Code>EntityTooLarge</Code>", status="400 Bad Request")) as server:
        error = catch_upload_error(make_bucket(server.url("")))
    assert error.error_code == "bucket_upload_failed"


def test_an_endpoint_that_cannot_be_reached_is_an_upload_error() -> None:
    with serve(respond_with(b"")) as server:
        gone = server.url("")
    assert catch_upload_error(make_bucket(gone)).error_code == "bucket_upload_failed"


def test_a_stalled_upload_ends_at_its_deadline() -> None:
    with serve(lambda request, write: time.sleep(3)) as server:
        error = catch_upload_error(make_bucket(server.url("")), deadline=time.monotonic() + 0.5)
    assert error.error_code == "bucket_upload_failed"


def test_a_cancelled_job_ends_its_upload() -> None:
    def check() -> None:
        raise CancelledError("The job was cancelled.")

    with serve(respond_after_upload()) as server, pytest.raises(CancelledError):
        upload(make_bucket(server.url("")), check=check)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://169.254.169.254", "http://[::1]:9", "http://localhost:9"]
)
def test_a_requests_own_bucket_with_a_private_address_is_refused(url: str) -> None:
    error = catch_upload_error(make_bucket(url, trusted=False))
    assert error.error_code == "private_url"


def test_a_requests_own_bucket_that_rebinds_to_a_private_address_is_refused() -> None:
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])

    def refuse_connection(address: tuple[str, int], timeout: float) -> Any:
        assert address[0] == "93.184.215.14"
        raise ConnectionRefusedError

    network = NetworkBackend(resolve=lambda host, port: next(answers), connect=refuse_connection)
    assert (
        catch_upload_error(make_bucket("http://s3.example", trusted=False), network=network).error_code == "private_url"
    )


def test_secrets_are_not_in_the_repr() -> None:
    assert SECRET not in repr(make_bucket("http://h")) and KEY not in repr(make_bucket("http://h"))


# Settings and s3Config


def make_settings(**changes: str) -> Settings:
    return Settings.from_env(
        {
            "BUCKET_ENDPOINT_URL": "https://s3.example.com",
            "BUCKET_ACCESS_KEY_ID": KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET,
            "BUCKET_NAME": "results",
        }
        | {f"BUCKET_{name.upper()}": value for name, value in changes.items()}
    )


def find_bucket_in(settings: Settings, s3_config: dict[str, Any] | None = None) -> Bucket:
    bucket = find_bucket(s3_config, settings)
    assert bucket is not None
    return bucket


@pytest.mark.parametrize(
    ("endpoint", "name", "expected"),
    [
        ("https://s3.example.com", "results", ("https://s3.example.com", "results", "us-east-1")),
        ("https://s3.example.com/", "results", ("https://s3.example.com", "results", "us-east-1")),
        ("https://s3.example.com/results", "results", ("https://s3.example.com", "results", "us-east-1")),
        ("https://s3.example.com:9000/results/", "", ("https://s3.example.com:9000", "results", "us-east-1")),
        ("https://results.s3.example.com", "results", ("https://s3.example.com", "results", "us-east-1")),
        (
            "https://results.s3.eu-west-3.amazonaws.com",
            "",
            ("https://s3.eu-west-3.amazonaws.com", "results", "eu-west-3"),
        ),
        (
            "https://my.results.s3.amazonaws.com",
            "my.results",
            ("https://s3.amazonaws.com", "my.results", "us-east-1"),
        ),
        ("https://s3.amazonaws.com", "results", ("https://s3.amazonaws.com", "results", "us-east-1")),
        ("", "results", ("", "results", "us-east-1")),
    ],
)
def test_the_endpoint_may_contain_the_buckets_name(endpoint: str, name: str, expected: tuple[str, ...]) -> None:
    bucket = find_bucket_in(make_settings(endpoint_url=endpoint, name=name))
    assert (bucket.endpoint_url, bucket.name, bucket.region) == expected
    assert bucket.trusted


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://s3-us-west-2.amazonaws.com", "us-west-2"),
        ("https://s3.dualstack.ap-southeast-2.amazonaws.com", "ap-southeast-2"),
        ("https://s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://abc123.r2.cloudflarestorage.com", "auto"),
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("https://s3.eu-central-2.wasabisys.com", "eu-central-2"),
        ("https://nyc3.digitaloceanspaces.com", "nyc3"),
        ("https://s3.fr-par.scw.cloud", "fr-par"),
        ("https://s3api-eu-ro-1.runpod.io", "eu-ro-1"),
        ("https://minio.example.com", "us-east-1"),
        ("https://s3.my-company.com", "us-east-1"),
        ("", "us-east-1"),
    ],
)
def test_the_region_is_read_from_the_usual_endpoints(endpoint: str, region: str) -> None:
    assert guess_region(endpoint) == region
    assert find_bucket_in(make_settings(endpoint_url=endpoint, region="xy-1")).region == "xy-1"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": ""}, "BUCKET_NAME"),
        ({"access_key_id": ""}, "BUCKET_ACCESS_KEY_ID"),
        ({"access_key_id": "", "secret_access_key": ""}, "BUCKET_ACCESS_KEY_ID, BUCKET_SECRET_ACCESS_KEY"),
        ({"endpoint_url": "https://s3.example.com/other"}, "endpoint"),
        ({"endpoint_url": "https://s3.example.com/?x=results"}, "endpoint"),
        ({"endpoint_url": "https://other.s3.eu-west-1.amazonaws.com"}, "endpoint"),
        ({"endpoint_url": "s3.example.com"}, "endpoint"),
        ({"endpoint_url": "https://u:geheim@s3.example.com"}, "endpoint"),
    ],
)
def test_an_incomplete_bucket_is_an_error_that_names_what_is_missing(changes: dict[str, str], named: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        find_bucket(None, make_settings(**changes))
    assert caught.value.error_code == "bucket_misconfigured"
    assert named in caught.value.message and "geheim" not in caught.value.message


def test_without_settings_there_is_no_bucket() -> None:
    assert find_bucket(None, Settings()) is None
    assert find_bucket({}, Settings()) is None


def test_s3_config_has_priority_over_the_settings_and_is_not_trusted() -> None:
    s3_config = {
        "accessId": "a",
        "accessSecret": "b",
        "bucketName": "theirs",
        "endpointUrl": "https://s3.eu-west-1.amazonaws.com",
    }
    bucket = find_bucket_in(make_settings(), s3_config)
    assert (bucket.name, bucket.access_key_id, bucket.region, bucket.trusted) == ("theirs", "a", "eu-west-1", False)


@pytest.mark.parametrize(
    "s3_config",
    [
        {"accessId": "a"},
        {"accessId": 1, "accessSecret": "b", "bucketName": "c"},
        {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": ["x"]},
        {"accessId": "a\r\n", "accessSecret": "b", "bucketName": "c"},
        {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "file:///etc"},
        {"bucketName": "c", "endpointUrl": "https://s3.example.com"},
    ],
)
def test_an_incomplete_s3_config_is_an_error(s3_config: dict[str, Any]) -> None:
    with pytest.raises(DeliveryError) as caught:
        find_bucket(s3_config, make_settings())
    assert caught.value.error_code == "bucket_misconfigured"


@pytest.mark.parametrize("name", ["a/b", "..", "A B", "x" * 64, "ü", "a\\b", "a?b", "../b"])
def test_an_invalid_bucket_name_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        find_bucket(None, make_settings(name=name))
    assert caught.value.error_code == "bucket_misconfigured"
