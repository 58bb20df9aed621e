"""HTTP connections to addresses that callers name: each name is resolved once, every address of it is checked, and the
connection goes to the checked address (no DNS rebinding, no proxies from the environment). Knows no redirects.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from errors import ErrorCode, SourceError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[tuple[str, int], float], socket.socket]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CONNECT_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 30.0
POLL_S = 0.25
MAX_URL_CHARS = 8192
DEFAULT_PORTS = {"http": 80, "https": 443}

NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Global by some Python releases' tables, yet not the open internet: 6to4 (2002::/16) and Teredo (2001::/32) carry an
# IPv4 address of the sender's choice, 192.88.99/24 is the retired 6to4 relay, 3fff::/20 is for documents, and
# 192.0.0.192 and 168.63.129.16 are metadata services of two clouds.
INWARD = tuple(
    map(
        ipaddress.ip_network,
        ("2002::/16", "2001::/32", "3fff::/20", "192.88.99.0/24", "192.0.0.0/24", "168.63.129.16/32"),
    )
)


@dataclass(frozen=True)
class Watch:
    """Ends network work: `deadline` is a `time.monotonic()` value, `check` raises where the job must end."""

    deadline: float = math.inf
    check: Callable[[], None] = field(default=lambda: None)

    def patience(self, at_most: float) -> float:
        """Seconds that the next wait may take, `at_most` at the longest; `TimeoutError` past the deadline."""
        self.check()
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("deadline")
        return min(at_most, remaining)


@dataclass(frozen=True)
class Target:
    """A parsed URL: `host` in ASCII without brackets, `path` as it goes on the wire (with its query)."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Splits an `http(s)://` URL; `SourceError` (`unsupported_url`) for all that is not a plain one."""
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    if len(url) > MAX_URL_CHARS or not url.isprintable():
        raise unsupported(f"The URL is longer than {MAX_URL_CHARS} characters or holds control characters.")
    try:
        parts = parse_url(url)
        port = parts.port
    except (LocationParseError, ValueError) as error:
        raise unsupported("The URL cannot be parsed.") from error
    if parts.auth is not None:
        raise unsupported("The URL carries a user name or password. Give a link that needs none, such as a signed one.")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    if parts.scheme != scheme or not parts.host:
        raise unsupported("Only http:// and https:// URLs with a host are read.")
    return Target(scheme, parts.host.strip("[]"), port or DEFAULT_PORTS[scheme], parts.request_uri)


def unsupported(message: str) -> SourceError:
    return SourceError(message, code=ErrorCode.UNSUPPORTED_URL)


def system_addresses(host: str, port: int) -> list[str]:
    """Every address of `host` by the system's resolver, which also reads numeric spellings such as `0x7f000001`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: Address) -> bool:
    """Whether `address` is on the open internet, looking through the IPv6 forms that carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.is_site_local:
            return False
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special and not any(address in network for network in INWARD)


@dataclass(frozen=True)
class Network:
    """How a name becomes a connection.

    Args:
        resolve: `(host, port) -> numeric addresses`.
        dial: `((address, port), timeout in s) -> connected socket`.
        tls: the certificates to trust, by default the system's and certifi's.
    """

    resolve: Resolve = system_addresses
    dial: Dial = socket.create_connection
    tls: ssl.SSLContext | None = None


INTERNET = Network()


def connect(
    target: Target, *, watch: Watch, allow_private: bool, network: Network = INTERNET
) -> http.client.HTTPConnection:
    """Opens a connection to a checked address of `target`.

    Certificates are verified against the name, not the address. Raises `SourceError` (`private_url`), or `OSError`
    where nothing answers. Every later wait on the connection looks at `watch`.
    """
    addresses = _addresses(target, network.resolve)
    if not allow_private and not all(map(is_public, addresses)):
        raise SourceError(
            "The URL points to a private or local address. Give a public one"
            " (ALLOW_PRIVATE_URLS opens private networks to a worker that needs them).",
            code=ErrorCode.PRIVATE_URL,
        )
    connection = http.client.HTTPConnection(target.host, target.port, blocksize=1 << 16)
    connection.auto_open = 0  # it must never resolve the name and dial by itself
    connection.sock = WatchedSocket(_dial(target, addresses, watch, network), watch)
    return connection


def _addresses(target: Target, resolve: Resolve) -> list[Address]:
    try:
        addresses = [ipaddress.ip_address(text) for text in resolve(target.host, target.port)]
    except UnicodeError as error:  # a label that is too long or empty
        raise unsupported("The URL's host name is not a valid one.") from error
    if not addresses:
        raise OSError("the name has no address")
    return addresses


def _dial(target: Target, addresses: Sequence[Address], watch: Watch, network: Network) -> socket.socket:
    failure = OSError("no address answered")
    for address in addresses:
        try:
            plain = network.dial((str(address), target.port), watch.patience(CONNECT_TIMEOUT_S))
        except OSError as error:
            failure = error
        else:
            if target.scheme == "http":
                return plain
            return _secure(plain, target.host, watch, network.tls or _system_tls())
    raise failure


def _secure(plain: socket.socket, host: str, watch: Watch, tls: ssl.SSLContext) -> socket.socket:
    try:
        plain.settimeout(watch.patience(CONNECT_TIMEOUT_S))
        return tls.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


@functools.cache
def _system_tls() -> ssl.SSLContext:
    """The system's trusted roots and certifi's, for slim images that have none."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class WatchedSocket:
    """What `http.client` uses of a socket, with every wait cut into short ones that look at the watch.

    A plain timeout counts from the last byte, so that one byte a second keeps headers or a body going for ever.
    """

    def __init__(self, sock: socket.socket, watch: Watch) -> None:
        self._sock, self._watch, self._holders = sock, watch, 1

    def sendall(self, data: ReadableBuffer) -> None:
        view = memoryview(data)
        while view:
            view = view[self._wait(functools.partial(self._sock.send, view)) :]

    def recv_into(self, buffer: WriteableBuffer) -> int:
        return self._wait(functools.partial(self._sock.recv_into, buffer))

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        self._holders += 1
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Closes the socket with its last holder, as sockets do: a response outlives its connection object."""
        self._holders -= 1
        if self._holders == 0:
            self._sock.close()

    def _wait(self, operation: Callable[[], int]) -> int:
        stalled_at = time.monotonic() + STALL_TIMEOUT_S
        while True:
            self._sock.settimeout(self._watch.patience(POLL_S))
            try:
                return operation()
            except TimeoutError:
                if time.monotonic() >= stalled_at:
                    raise


class _Reader(io.RawIOBase):
    def __init__(self, sock: WatchedSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.close()
