"""URLs, and which addresses are on the public internet."""

from __future__ import annotations

import ipaddress
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.http.addresses import Url, is_public, parse_url
from worker.http.errors import InvalidUrlError


@pytest.mark.parametrize(
    ("text", "url", "host_header"),
    [
        ("http://example.com", Url("http", "example.com", 80, "/"), "example.com"),
        ("HTTPS://EXAMPLE.com:443/a?b=1#part", Url("https", "example.com", 443, "/a?b=1"), "example.com"),
        ("https://example.com:80/", Url("https", "example.com", 80, "/"), "example.com:80"),
        ("http://[::1]:8080/a b", Url("http", "::1", 8080, "/a%20b"), "[::1]:8080"),
    ],
)
def test_a_url_is_split_into_what_is_connected_to_and_what_is_sent(text: str, url: Url, host_header: str) -> None:
    assert parse_url(text) == url
    assert url.authority == host_header


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "ftp://example.com/", "http://a:secret@b/", "http://secret:port/", "http://a/\n", "http://"],
)
def test_anything_but_a_plain_http_url_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(InvalidUrlError) as caught:
        parse_url(text)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_public_as_its_ipv6_forms(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    public = is_public(address)
    assert is_public(ipaddress.IPv6Address(0xFFFF << 32 | number)) == public
    assert is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)) == public
    assert not is_public(ipaddress.IPv6Address(0x2002 << 112 | number << 80))
    assert public <= (not (address.is_private or address.is_multicast or address.is_reserved))


@pytest.mark.parametrize(
    "address",
    [
        "3fff::1",
        "2001::1",
        "2002:808:808::1",
        "fec0::1",
        "192.88.99.1",
        "192.0.0.192",
        "168.63.129.16",
        "::",
        "ff02::1",
    ],
)
def test_addresses_that_only_some_python_releases_call_global_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
