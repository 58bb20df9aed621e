"""Files of codes: what is written comes back, and no file of a caller takes more memory than it may."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import InvalidRequestError
from models.encodec.codes import EncodedAudio
from models.encodec.codes_file import CodesFile, read_codes, write_codes
from models.encodec.spec import CodecSpec, Segments
from testing.property_tests import examples

SPEC = CodecSpec(48_000, 2, 320, 16, 1024, (24.0,), 1, Segments(48_000, 47_520, normalize=True))
CODES = np.arange(4 * 302, dtype=np.int16).reshape(4, 302) % 1024
LIMIT = 1 << 20


def pack(compressed: Any = False, **arrays: Any) -> io.BytesIO:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file


def pack_raw(name: str = "codes.npy", content: bytes = b"", *, method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file


def make_npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + data


@pytest.mark.parametrize("scales", [None, np.array([0.25, 1.5, 0.01], np.float32)])
def test_codes_come_back_with_all_that_belongs_to_them(scales: Any) -> None:
    file = io.BytesIO()
    write_codes(file, EncodedAudio(CODES, 95_100, scales), spec=SPEC, model="encodec_48khz")
    found = read_codes(file, max_bytes=LIMIT)
    assert np.array_equal(found.codes, CODES) and found.codes.dtype == np.int16
    assert (found.model, found.num_samples, found.sample_rate, found.frame_rate) == (
        "encodec_48khz",
        95_100,
        48_000,
        150,
    )
    assert found.scales is scales is None or found.scales is not None and np.array_equal(found.scales, scales)


def test_the_file_is_read_by_numpy_without_pickles() -> None:
    file = io.BytesIO()
    write_codes(file, EncodedAudio(CODES, 95_100, np.ones(3, np.float32)), spec=SPEC, model="encodec_48khz")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["codes", "frame_rate", "model", "num_samples", "sample_rate", "scales", "version"]
        assert np.array_equal(arrays["codes"], CODES) and arrays["codes"].dtype == np.int16
        assert str(arrays["model"]) == "encodec_48khz" and int(arrays["version"]) == 1


@pytest.mark.parametrize(
    "codes",
    [
        CODES.astype(np.int64),
        CODES.astype(">i4"),
        CODES.astype(np.uint16),
        np.asfortranarray(CODES),
        CODES[:, :1],
        CODES[:1],
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_codes_of_other_programs_are_read(codes: Any, compressed: bool) -> None:
    found = read_codes(pack(compressed, codes=codes), max_bytes=LIMIT)
    assert np.array_equal(found.codes, codes) and found.codes.dtype == np.int16
    assert found == CodesFile(found.codes)  # nothing else is known


REFUSED: dict[str, tuple[Callable[[], io.BytesIO], str]] = {
    "no zip": (lambda: io.BytesIO(b"PK\x03\x04 no zip"), "not a zip file"),
    "nothing": (io.BytesIO, "not a zip file"),
    "cut short": (lambda: io.BytesIO(pack(codes=CODES).getvalue()[:-30]), "cut short"),
    "no codes": (lambda: pack(code=CODES), "no array 'codes'"),
    "many files": (lambda: pack(codes=CODES, **{f"x{i}": CODES for i in range(40)}), "more than 32 files"),
    "an object array": (lambda: pack(codes=np.array([[{}, {}]], object)), "objects or records"),
    "records": (lambda: pack(codes=np.zeros((1, 2), [("a", "i4")])), "objects or records"),
    "floats": (lambda: pack(codes=np.ones((4, 10))), "of the type float64"),
    "one dimension": (lambda: pack(codes=CODES[0]), "1 dimensions"),
    "three dimensions": (lambda: pack(codes=CODES[None]), "3 dimensions"),
    "six dimensions": (lambda: pack(codes=CODES.reshape(1, 1, 1, 1, 4, -1)), "6 dimensions"),
    "no frames": (lambda: pack(codes=CODES[:, :0]), "no codes"),
    "negative codes": (lambda: pack(codes=-CODES), "run from -1023 to 0"),
    "large codes": (lambda: pack(codes=CODES.astype(np.int64) + 2**40), "run from 1099511627776"),
    "a bomb": (
        lambda: pack(compressed=True, codes=np.zeros((4, LIMIT), np.int16)),
        "8388736 bytes, and at most 1048576",
    ),
    "a bomb of scales": (lambda: pack(True, codes=CODES, scales=np.zeros(LIMIT)), "'scales' has 8388736 bytes"),
    "a bomb of a name": (lambda: pack(True, codes=CODES, model="x" * LIMIT), "'model' has 4194432 bytes"),
    "a long name": (lambda: pack(codes=CODES, model="x" * 1000), "'model' holds objects or records"),
    "several names": (lambda: pack(codes=CODES, model=np.array(["a", "b"])), "not one text"),
    "several rates": (lambda: pack(codes=CODES, sample_rate=np.ones(2)), "'sample_rate' is not one number"),
    "no rate": (lambda: pack(codes=CODES, sample_rate=np.float64("nan")), "'sample_rate' is not one number"),
    "a table of scales": (lambda: pack(codes=CODES, scales=np.ones((2, 2))), "2 dimensions instead of one"),
    "a later version": (lambda: pack(codes=CODES, version=2), "its version is 2"),
    "a packing": (lambda: pack_raw(content=b"x", method=zipfile.ZIP_BZIP2), "packed in a way"),
    "no array": (lambda: pack_raw(content=b"x" * 100), "not an array"),
    "an empty array": (lambda: pack_raw(content=b""), "not an array"),
    "no header": (lambda: pack_raw(content=make_npy("{}")), "objects or records"),
    "a nested header": (
        lambda: pack_raw(content=make_npy("{'descr': '<i2', 'shape': " + "(" * 900)),
        "not a plain array",
    ),
    "no shape": (lambda: pack_raw(content=make_npy("{'descr': '<i2', 'fortran_order': False}")), "not a plain array"),
    "a huge shape": (
        lambda: pack_raw(content=make_npy("{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999, 9)}")),
        "another size than it states",
    ),
    "a long shape": (
        lambda: pack_raw(content=make_npy("{'descr': '<i2', 'fortran_order': False, 'shape': (4, 3)}", bytes(100))),
        "another size than it states",
    ),
    "a huge header": (lambda: pack_raw(content=make_npy("{'descr': '<i2'" + " " * 60_000)), "not a plain array"),
    "a header of another version": (lambda: pack_raw(content=make_npy("x", version=9)), "objects or records"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_any_other_file_is_refused_with_the_reason(make: Callable[[], io.BytesIO], reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^The file in 'codes' cannot be used: .*{reason}.*Send") as refused:
        read_codes(make(), max_bytes=LIMIT)
    assert refused.value.error_code == "invalid_codes" and refused.value.details == {"field": "codes"}


def test_an_entry_that_states_less_than_it_holds_is_refused() -> None:
    """A bomb that is hidden in a directory."""
    data = bytearray(pack(compressed=True, codes=np.zeros((4, LIMIT), np.int16)).getvalue())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 1000)
    with pytest.raises(InvalidRequestError, match="larger than it states"):
        read_codes(io.BytesIO(bytes(data)), max_bytes=LIMIT)


@examples(60)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_file_with_changed_bytes_is_read_or_refused(place: int, changed: bytes) -> None:
    file = io.BytesIO()
    write_codes(file, EncodedAudio(CODES[:, :20], 6000, np.ones(1, np.float32)), spec=SPEC, model="encodec_48khz")
    data = bytearray(file.getvalue())
    at = place % len(data)
    data[at : at + len(changed)] = changed
    try:
        found = read_codes(io.BytesIO(bytes(data)), max_bytes=LIMIT)
    except InvalidRequestError as error:
        assert error.error_code == "invalid_codes"
    else:
        assert found.codes.min() >= 0 and found.model.isprintable() is not None


def test_a_name_of_numbers_that_are_no_characters_is_harmless() -> None:
    name = np.frombuffer(np.array([0xD800, 97, 0xFFFFFFF], "<u4").tobytes(), "<U3")
    assert read_codes(pack(codes=CODES, model=name), max_bytes=LIMIT).model == "a"
