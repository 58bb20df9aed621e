"""Presigned URLs, held to what botocore makes of the same bucket."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from music_worker import Bucket
from music_worker.errors import ConfigurationError


def test_a_signature_is_that_of_the_published_algorithm() -> None:
    """The URL is that of botocore's S3SigV4QueryAuth for the same bucket at the same moment."""
    bucket = Bucket(
        endpoint_url="https://s3.amazonaws.com",
        name="examplebucket",
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
    url = bucket.presign("GET", "test file~1.txt", lifetime_s=86400, now=datetime(2013, 5, 24, tzinfo=UTC))
    assert url == (
        "https://s3.amazonaws.com/examplebucket/test%20file~1.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=07fccdaf50a6602364d79a3463f39879555f2d72e0f60a96fe1e817676e6c789"
    )


def test_the_keys_are_in_no_repr_and_the_description_has_no_secret() -> None:
    bucket = Bucket(endpoint_url="https://s3", name="b", access_key_id="AKIAX", secret_access_key="hush")
    assert "hush" not in repr(bucket) and "AKIAX" not in repr(bucket) and "hush" not in str(bucket.to_dict())
    assert Bucket.from_dict(bucket.to_dict(), "hush") == bucket
    assert "X-Amz" not in repr(bucket("a.wav", 1))


@pytest.mark.parametrize(
    "fields",
    [{"endpoint_url": "s3.amazonaws.com"}, {"endpoint_url": "https://user:x@s3"}, {"name": ""}, {"access_key_id": ""}],
)
def test_an_incomplete_bucket_is_refused(fields: dict[str, str]) -> None:
    complete = {"endpoint_url": "https://s3", "name": "b", "access_key_id": "k", "secret_access_key": "s"}
    with pytest.raises(ConfigurationError):
        Bucket(**(complete | fields))


def test_the_bucket_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bucket.from_env() is None
    for name, value in {
        "ENDPOINT_URL": "https://s3",
        "NAME": "b",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
    }.items():
        monkeypatch.setenv(f"BUCKET_{name}", value)
    assert Bucket.from_env() == Bucket(endpoint_url="https://s3", name="b", access_key_id="k", secret_access_key="s")
