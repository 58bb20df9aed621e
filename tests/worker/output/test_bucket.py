"""Uploads to a real S3 server over HTTP, and to servers that fail."""

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
from testing.loopback import Request, Write, serve, whole
from worker.http.connection import NetworkBackend
from worker.output.bucket import Bucket, Uploader, configured, region_of
from worker.settings import Settings

BODY = bytes(range(256)) * 20_000  # 5 MB
KEY, SECRET = "AKIAEXAMPLEEXAMPLE", "geheim/geheim/geheim"


@pytest.fixture
def made(s3: str) -> Bucket:
    """A fresh bucket on the server."""
    name = f"results-{uuid.uuid4().hex[:8]}"
    admin(s3).create_bucket(Bucket=name)
    return bucket(s3, name=name)


def admin(url: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )


def bucket(url: str, *, name: str = "results", trusted: bool = True, region: str = "us-east-1") -> Bucket:
    return Bucket(
        name=name, access_key_id=KEY, secret_access_key=SECRET, endpoint_url=url, region=region, trusted=trusted
    )


def upload(to: Bucket, *, key: str = "job/song.wav", **options: Any) -> str:
    uploader = Uploader(to, allow_private=False, pause_s=0.01, **options)
    return uploader.upload(io.BytesIO(BODY), key=key, content_type="audio/wav")


def failure(to: Bucket, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        upload(to, **options)
    told = str(caught.value.reply())
    assert KEY not in told and SECRET not in told and "127.0.0.1" not in told and "X-Amz" not in told
    return caught.value


def test_a_file_comes_back_through_its_link_byte_for_byte(made: Bucket) -> None:
    answer = requests.get(upload(made), timeout=10)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(BODY).digest()
    assert answer.headers["Content-Type"] == "audio/wav"


def test_a_key_may_hold_any_letters(made: Bucket) -> None:
    link = upload(made, key="job/Lied für Zoë – 歌 (1)+.wav")
    assert requests.get(link, timeout=10).content == BODY
    stored = admin(made.endpoint_url).list_objects_v2(Bucket=made.name)["Contents"]
    assert [entry["Key"] for entry in stored] == ["job/Lied für Zoë – 歌 (1)+.wav"]


def test_the_link_holds_for_seven_days_and_is_signed_for_the_region(s3: str) -> None:
    made = bucket(s3, name=f"r-{uuid.uuid4().hex[:8]}", region="eu-central-1")
    admin(s3).create_bucket(Bucket=made.name)
    link = upload(made)
    assert "X-Amz-Expires=604800" in link
    assert "eu-central-1%2Fs3" in link
    assert SECRET not in link


def test_a_bucket_that_does_not_exist_is_named_by_s3s_own_word(s3: str) -> None:
    error = failure(bucket(s3, name="nowhere"))
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

    with serve(_swallow()) as server:
        uploader = Uploader(bucket(server.url("")), allow_private=False)
        uploader.upload(Counted(BODY), key="k", content_type="audio/wav")
    assert 0 < max(reads) <= 1 << 20 and min(reads) > 0


def _swallow(*statuses: str) -> Any:
    """Reads the whole upload, then answers with the next status, 200 once they are used up."""
    left = list(statuses)

    def answer(request: Request, write: Write) -> None:
        request.body(int(request.headers["content-length"]))
        whole(b"", status=left.pop(0) if left else "200 OK")(request, write)

    return answer


def test_a_server_in_trouble_is_tried_three_times() -> None:
    with serve(_swallow("503 Slow Down", "500 Oops")) as server:
        upload(bucket(server.url("")))
    assert len(server.requests) == 3
    with serve(_swallow(*["503 Slow Down"] * 5)) as server:
        assert failure(bucket(server.url(""))).details["status"] == 503
    assert len(server.requests) == 3


def test_a_refusal_is_not_tried_again() -> None:
    denied = b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>" + KEY.encode() + b"</AWSAccessKeyId></Error>"

    def answer(request: Request, write: Write) -> None:
        request.body(int(request.headers["content-length"]))
        whole(denied, status="403 Forbidden")(request, write)

    with serve(answer) as server:
        error = failure(bucket(server.url("")))
    assert len(server.requests) == 1
    assert error.details == {"status": 403, "reason": "AccessDenied"}


def test_an_answer_before_the_end_of_the_upload_is_heard() -> None:
    with serve(whole(b"<Code>EntityTooLarge</Code>", status="400 Bad Request")) as server:
        error = failure(bucket(server.url("")))
    assert error.error_code == "bucket_upload_failed"


def test_an_endpoint_where_nothing_listens_fails_clearly() -> None:
    with serve(whole(b"")) as server:
        gone = server.url("")
    assert failure(bucket(gone)).error_code == "bucket_upload_failed"


def test_a_stalled_upload_ends_at_its_deadline() -> None:
    with serve(lambda request, write: time.sleep(3)) as server:
        error = failure(bucket(server.url("")), deadline=time.monotonic() + 0.5)
    assert error.error_code == "bucket_upload_failed"


def test_a_cancelled_job_ends_its_upload() -> None:
    def check() -> None:
        raise CancelledError("The job was cancelled.")

    with serve(_swallow()) as server, pytest.raises(CancelledError):
        upload(bucket(server.url("")), check=check)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://169.254.169.254", "http://[::1]:9", "http://localhost:9"]
)
def test_a_requests_own_bucket_may_not_lie_on_a_private_address(url: str) -> None:
    error = failure(bucket(url, trusted=False))
    assert error.error_code == "private_url"


def test_a_requests_own_bucket_may_not_rebind_to_a_private_address() -> None:
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])

    def refused(address: tuple[str, int], timeout: float) -> Any:
        assert address[0] == "93.184.215.14"
        raise ConnectionRefusedError

    network = NetworkBackend(resolve=lambda host, port: next(answers), connect=refused)
    assert failure(bucket("http://s3.example", trusted=False), network=network).error_code == "private_url"


def test_secrets_are_in_no_repr() -> None:
    assert SECRET not in repr(bucket("http://h")) and KEY not in repr(bucket("http://h"))


# What the settings and s3Config say


def environment(**changes: str) -> Settings:
    return Settings.from_env(
        {
            "BUCKET_ENDPOINT_URL": "https://s3.example.com",
            "BUCKET_ACCESS_KEY_ID": KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET,
            "BUCKET_NAME": "results",
        }
        | {f"BUCKET_{name.upper()}": value for name, value in changes.items()}
    )


def found(settings: Settings, s3_config: dict[str, Any] | None = None) -> Bucket:
    bucket = configured(s3_config, settings)
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
def test_the_buckets_name_may_stand_in_the_endpoint(endpoint: str, name: str, expected: tuple[str, ...]) -> None:
    bucket = found(environment(endpoint_url=endpoint, name=name))
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
    assert region_of(endpoint) == region
    assert found(environment(endpoint_url=endpoint, region="xy-1")).region == "xy-1"


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
def test_a_bucket_described_by_halves_is_an_error_that_names_what_is_missing(
    changes: dict[str, str], named: str
) -> None:
    with pytest.raises(DeliveryError) as caught:
        configured(None, environment(**changes))
    assert caught.value.error_code == "bucket_misconfigured"
    assert named in caught.value.message and "geheim" not in caught.value.message


def test_nothing_set_is_no_bucket() -> None:
    assert configured(None, Settings()) is None
    assert configured({}, Settings()) is None


def test_s3_config_comes_before_the_settings_and_is_not_trusted() -> None:
    given = {
        "accessId": "a",
        "accessSecret": "b",
        "bucketName": "theirs",
        "endpointUrl": "https://s3.eu-west-1.amazonaws.com",
    }
    bucket = found(environment(), given)
    assert (bucket.name, bucket.access_key_id, bucket.region, bucket.trusted) == ("theirs", "a", "eu-west-1", False)


@pytest.mark.parametrize(
    "given",
    [
        {"accessId": "a"},
        {"accessId": 1, "accessSecret": "b", "bucketName": "c"},
        {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": ["x"]},
        {"accessId": "a\r\n", "accessSecret": "b", "bucketName": "c"},
        {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "file:///etc"},
        {"bucketName": "c", "endpointUrl": "https://s3.example.com"},
    ],
)
def test_an_s3_config_that_is_not_whole_is_an_error(given: dict[str, Any]) -> None:
    with pytest.raises(DeliveryError) as caught:
        configured(given, environment())
    assert caught.value.error_code == "bucket_misconfigured"


@pytest.mark.parametrize("name", ["a/b", "..", "A B", "x" * 64, "ü", "a\\b", "a?b", "../b"])
def test_a_bucket_name_that_is_none_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        configured(None, environment(name=name))
    assert caught.value.error_code == "bucket_misconfigured"
