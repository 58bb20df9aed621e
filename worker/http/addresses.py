"""URLs and the addresses behind them: parses a URL, resolves its host once, and checks every address."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url as split_url

from worker.http.errors import InvalidUrlError, PrivateAddressError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

MAX_URL_CHARS = 8192
DEFAULT_PORTS = {"http": 80, "https": 443}

NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Networks that some Python releases call global although they are not on the public internet: 6to4 (2002::/16) and
# Teredo (2001::/32) carry an IPv4 address of the sender's choice, 192.88.99/24 is the retired 6to4 relay, 3fff::/20 is
# for documentation, and 192.0.0.192 and 168.63.129.16 are metadata services of two clouds.
NON_PUBLIC_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("2002::/16", "2001::/32", "3fff::/20", "192.88.99.0/24", "192.0.0.0/24", "168.63.129.16/32"),
    )
)


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL: `host` in ASCII without brackets, `path` as it is sent (with its query)."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The `Host` header: host and port, without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(text: str) -> Url:
    """Splits an `http(s)://` URL. Raises `InvalidUrlError` if it is anything else."""
    if len(text) > MAX_URL_CHARS or not text.isprintable():
        raise InvalidUrlError(f"The URL is longer than {MAX_URL_CHARS} characters or contains control characters.")
    try:
        parts = split_url(text)
        port = parts.port
    except (LocationParseError, ValueError):
        raise InvalidUrlError("The URL cannot be parsed.") from None  # the original quotes the URL
    if parts.auth is not None:
        raise InvalidUrlError(
            "The URL contains a user name or password. Give a link that needs none, for example a signed one."
        )
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    if parts.scheme != scheme or not parts.host:
        raise InvalidUrlError("Only http:// and https:// URLs with a host are supported.")
    return Url(scheme, parts.host.strip("[]"), port or DEFAULT_PORTS[scheme], parts.request_uri)


def resolve_host(host: str, port: int) -> list[str]:
    """Every address of `host` by the system's resolver, which also reads numeric spellings such as `0x7f000001`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def resolve_addresses(url: Url, *, resolve: Resolve, allow_private: bool) -> list[Address]:
    """Resolves the URL's host and checks its addresses, of which there is at least one.

    Raises:
        PrivateAddressError: one of them is not public, and `allow_private` is False.
        InvalidUrlError: the host cannot be a name.
        OSError: the name cannot be resolved.
    """
    try:
        addresses = [ipaddress.ip_address(text) for text in resolve(url.host, url.port)]
    except UnicodeError as error:  # a label of the name is too long or empty
        raise InvalidUrlError("The URL's host name is not valid.") from error
    if not addresses:
        raise OSError("the name has no address")
    if not allow_private and not all(map(is_public, addresses)):
        raise PrivateAddressError(
            "The URL points to a private or local address. Give a public one"
            " (ALLOW_PRIVATE_URLS=1 lets a worker use private networks)."
        )
    return addresses


def is_public(address: Address) -> bool:
    """Whether `address` is on the public internet; an IPv4 address inside an IPv6 address is checked as IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.is_site_local:
            return False
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special and not any(address in network for network in NON_PUBLIC_NETWORKS)
