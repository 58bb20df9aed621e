"""Presigned URLs of an S3-compatible bucket for inputs that are too large for a request (AWS Signature Version 4).

See "Authenticating Requests: Using Query Parameters" in the documentation of Amazon S3.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from music_worker.errors import ConfigurationError
from music_worker.files import UploadLink

PUT_LIFETIME_S = 3600
GET_LIFETIME_S = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket that large inputs go to; used as the `upload` of a client.

    Args:
        endpoint_url: `https://host`, without the bucket's name.
        prefix: what the keys of the inputs start with.
    """

    endpoint_url: str
    name: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"
    prefix: str = "music-worker-inputs"

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ConfigurationError("The bucket's address must be an http(s) URL without a user name.")
        if not self.name or not self.access_key_id or not self.secret_access_key:
            raise ConfigurationError("A bucket needs its name, an access key id and a secret access key.")

    @classmethod
    def from_env(cls) -> Bucket | None:
        """The bucket of the BUCKET_* variables; None if BUCKET_ENDPOINT_URL is not set."""
        read = os.environ.get
        if not (endpoint_url := read("BUCKET_ENDPOINT_URL")):
            return None
        return cls(
            endpoint_url=endpoint_url,
            name=read("BUCKET_NAME", ""),
            access_key_id=read("BUCKET_ACCESS_KEY_ID", ""),
            secret_access_key=read("BUCKET_SECRET_ACCESS_KEY", ""),
            region=read("BUCKET_REGION") or "us-east-1",
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], secret_access_key: str) -> Bucket:
        """The bucket that `to_dict` describes."""
        known = {name: str(value[name]) for name in ("endpoint_url", "name", "access_key_id", "region", "prefix")}
        return cls(**known, secret_access_key=secret_access_key)

    def to_dict(self) -> dict[str, str]:
        """Everything but the secret."""
        names = ("endpoint_url", "name", "access_key_id", "region", "prefix")
        return {name: getattr(self, name) for name in names}

    def __call__(self, filename: str, size: int) -> UploadLink:
        """Links to upload and to read a new object."""
        key = f"{self.prefix}/{filename}"
        return UploadLink(
            self.presign("PUT", key, lifetime_s=PUT_LIFETIME_S), self.presign("GET", key, lifetime_s=GET_LIFETIME_S)
        )

    def presign(self, method: str, key: str, *, lifetime_s: int, now: datetime | None = None) -> str:
        """A URL that allows `method` on the object `key` for `lifetime_s` seconds, in path style."""
        parts = urlsplit(self.endpoint_url)
        moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        path = f"{parts.path.rstrip('/')}/{quote(self.name, safe='')}/{quote(key, safe='/~')}"
        query = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.access_key_id}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(lifetime_s),
            "X-Amz-SignedHeaders": "host",
        }
        encoded = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
        canonical = "\n".join([method, path, encoded, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signing_key = f"AWS4{self.secret_access_key}".encode()
        for part in (moment[:8], self.region, "s3", "aws4_request"):
            signing_key = hmac.digest(signing_key, part.encode(), "sha256")
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, digest])
        signature = hmac.digest(signing_key, text.encode(), "sha256").hex()
        return f"{parts.scheme}://{parts.netloc}{path}?{encoded}&X-Amz-Signature={signature}"
