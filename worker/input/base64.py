"""Base64 as callers send it: standard or URL-safe, padded or not, with blanks, bare or in a `data:` URI."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator

SLICE_CHARS = 1 << 20
BLANKS = " \t\r\n\v\f"
URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
DATA_HEADER_CHARS = 512
# A data URI may percent-encode the characters that a URL cannot contain.
ESCAPES = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": "", "%20": ""}


def data_uri_payload(uri: str) -> tuple[str, int] | None:
    """The text of a `data:` URI without percent-encoding, and where its base64 starts; None if it is not base64."""
    comma = uri.find(",", 0, DATA_HEADER_CHARS)
    if comma < 0 or not uri[:comma].lower().rstrip().endswith(";base64"):
        return None
    if uri.find("%", comma) >= 0:
        for escape, character in ESCAPES.items():
            uri = uri.replace(escape, character).replace(escape.lower(), character)
    return uri, comma + 1


def min_decoded_bytes(text: str, start: int) -> int:
    """The fewest bytes that `text[start:]` can decode to, without decoding it."""
    significant = len(text) - start - sum(text.count(blank, start) for blank in BLANKS)
    return (significant - 2) * 3 // 4


def decode_base64(text: str, start: int, check: Callable[[], None], slice_chars: int = SLICE_CHARS) -> Iterator[bytes]:
    """Decodes `text[start:]` slice by slice, so that no copy of the whole text is made.

    Args:
        check: called before each slice; what it raises ends the decoding.

    Raises:
        binascii.Error, UnicodeEncodeError: the text is not base64.
    """
    rest = b""
    for at in range(start, len(text), slice_chars):
        check()
        rest += text[at : at + slice_chars].encode("ascii").translate(URL_SAFE_TO_STANDARD, BLANKS.encode())
        # The last characters are held back, because padding is allowed only there.
        whole = max(0, len(rest) - 4) // 4 * 4
        if rest.find(b"=", 0, whole) >= 0:
            raise binascii.Error("padding inside the data")
        yield binascii.a2b_base64(rest[:whole], strict_mode=True)
        rest = rest[whole:]
    unpadded = rest.rstrip(b"=")
    if len(rest) - len(unpadded) > 2:
        raise binascii.Error("too much padding")
    yield binascii.a2b_base64(unpadded + b"=" * (-len(unpadded) % 4), strict_mode=True)
