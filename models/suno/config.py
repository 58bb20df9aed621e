"""How to reach a Suno provider, as values; the environment is read in worker/settings.py."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Each provider has a host of its own for uploads. A key is never sent to another provider's host.
UPLOAD_HOSTS = {
    "api.sunoapi.org": "https://sunoapiorg.redpandaai.co",
    "api.kie.ai": "https://kieai.redpandaai.co",
}
# Providers require a callback URL. This one resolves to nothing (RFC 2606), because results are polled.
CALLBACK_URL = "https://callback.invalid/suno"
TOKEN_MISSING = "SUNO_API_TOKEN is not set"


@dataclass(frozen=True, slots=True)
class SunoConfig:
    """How to reach a provider.

    Args:
        token: the API key; it is left out of the repr.
        base_url: the API's URL; `https://`, or `http://` on this machine or with `allow_private_urls`.
        upload_url: the upload service's URL; empty = the one that belongs to `base_url`.
        callback_url: sent with every submission because providers require it; nothing has to listen there.
        submissions_per_minute: maximum number of submissions in any 60 s.
        download_timeout_s: time limit for the download of one clip, in seconds.
        max_clip_bytes: maximum size of one clip's file.
        allow_private_urls: whether clips may be downloaded from private addresses.
    """

    token: str = field(repr=False)
    base_url: str = "https://api.sunoapi.org"
    upload_url: str = ""
    callback_url: str = CALLBACK_URL
    submissions_per_minute: int = 10
    download_timeout_s: float = 120.0
    max_clip_bytes: int = 200_000_000
    allow_private_urls: bool = False

    @property
    def api_root(self) -> str:
        """The API's URL without a trailing slash."""
        return self.base_url.strip().rstrip("/")

    @property
    def upload_root(self) -> str:
        """The upload service's URL without a trailing slash."""
        explicit = self.upload_url.strip().rstrip("/")
        return explicit or UPLOAD_HOSTS.get(urlsplit(self.api_root).hostname or "", self.api_root)

    def find_problem(self) -> str | None:
        """Why this configuration cannot work, or None; names the variable to change, never its value."""
        if not self.token.strip():
            return TOKEN_MISSING
        if not all("!" <= character <= "~" for character in self.token.strip()):
            return "SUNO_API_TOKEN contains characters that an API key cannot contain; set it to the key alone"
        if self.submissions_per_minute < 1:
            return "SUNO_RATE_LIMIT must be 1 or more"
        for name, url in (("SUNO_API_BASE_URL", self.api_root), ("SUNO_UPLOAD_BASE_URL", self.upload_root)):
            if not self._is_valid(url):
                return f"{name} must be an https:// URL without user name, query or fragment"
        if not self.callback_url.startswith(("https://", "http://")):
            return "SUNO_CALLBACK_URL must be an http:// or https:// URL"
        return None

    def _is_valid(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            return False
        if not host or parts.username is not None or parts.query or parts.fragment:
            return False
        return parts.scheme == "https" or (parts.scheme == "http" and (self.allow_private_urls or _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
