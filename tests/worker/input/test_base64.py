"""Base64 in every spelling that callers use, decoded slice by slice."""

from __future__ import annotations

import base64
import binascii
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.input.base64 import decode_base64, min_decoded_bytes


@given(data=st.binary(min_size=1, max_size=400), urlsafe=st.booleans(), padded=st.booleans(), width=st.integers(1, 80))
def test_base64_of_any_bytes_decodes_to_those_bytes(data: bytes, urlsafe: bool, padded: bool, width: int) -> None:
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data).decode()
    text = "\n".join(textwrap.wrap(text if padded else text.rstrip("="), width))
    for size in (1, 7, 1 << 20):
        assert b"".join(decode_base64(text, 0, lambda: None, slice_chars=size)) == data


@given(data=st.binary(min_size=1, max_size=400), padded=st.booleans(), width=st.integers(1, 80))
def test_the_size_is_known_before_decoding_and_never_too_large(data: bytes, padded: bool, width: int) -> None:
    text = base64.b64encode(data).decode()
    text = "data:," + "\n".join(textwrap.wrap(text if padded else text.rstrip("="), width))
    assert len(data) - 2 <= min_decoded_bytes(text, len("data:,")) <= len(data)


@pytest.mark.parametrize("slice_chars", [4, 8, 12, 1 << 20])
def test_base64_joined_from_padded_pieces_is_refused_wherever_the_slices_end(slice_chars: int) -> None:
    for text in ("QQ==" + "QUJD" * 5, "QUJDQQ==QUJD", "QUI=QUJDQUJD"):
        with pytest.raises(binascii.Error):
            list(decode_base64(text, 0, lambda: None, slice_chars=slice_chars))
