"""Where the provider is and with which key, as values; the environment is read elsewhere."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Each provider takes files on a host of its own; a key goes to no other provider's host.
UPLOAD_HOSTS = {
    "api.sunoapi.org": "https://sunoapiorg.redpandaai.co",
    "api.kie.ai": "https://kieai.redpandaai.co",
}
# Providers insist on a callback; results are polled for, so this one goes nowhere (RFC 2606).
CALLBACK = "https://callback.invalid/suno"
TOKEN_ABSENT = "SUNO_API_TOKEN is not set"


@dataclass(frozen=True)
class SunoConfig:
    """How to reach a provider.

    Args:
        token: its key; never in a repr.
        base_url: its API, `https://` (plain `http://` to this machine only, or with `allow_private_urls`).
        upload_url: its upload service; empty = the one that belongs to `base_url`.
        callback_url: what the provider insists on being given; nothing has to listen there.
        submissions_per_minute: most submissions in any 60 s.
        download_timeout_s, max_take_bytes: bounds of one result's download.
        allow_private_urls: results may lie at private addresses.
    """

    token: str = field(repr=False)
    base_url: str = "https://api.sunoapi.org"
    upload_url: str = ""
    callback_url: str = CALLBACK
    submissions_per_minute: int = 10
    download_timeout_s: float = 120.0
    max_take_bytes: int = 200_000_000
    allow_private_urls: bool = False

    @property
    def api(self) -> str:
        """The API's address without a slash at its end."""
        return self.base_url.strip().rstrip("/")

    @property
    def uploads(self) -> str:
        """The upload service's address without a slash at its end."""
        given = self.upload_url.strip().rstrip("/")
        return given or UPLOAD_HOSTS.get(urlsplit(self.api).hostname or "", self.api)

    def problem(self) -> str | None:
        """Why no provider can be reached with this configuration; names the setting to change, never its value."""
        if not self.token.strip():
            return TOKEN_ABSENT
        if not all("!" <= character <= "~" for character in self.token.strip()):
            return "SUNO_API_TOKEN holds characters that no key has; set it to the bare key"
        if self.submissions_per_minute < 1:
            return "SUNO_RATE_LIMIT must be 1 or more"
        for name, url in (("SUNO_API_BASE_URL", self.api), ("SUNO_UPLOAD_BASE_URL", self.uploads)):
            if not self._usable(url):
                return f"{name} must be an https:// address without user name, query or fragment"
        if not self.callback_url.startswith(("https://", "http://")):
            return "SUNO_CALLBACK_URL must be an http(s):// address"
        return None

    def _usable(self, url: str) -> bool:
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
