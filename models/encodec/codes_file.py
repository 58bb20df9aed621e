"""Codes in a file: a NumPy `.npz` of plain arrays. A file that a caller sends is checked before anything is unpacked.

It holds `codes` (int16 `[K, T]`), `frame_rate`, `sample_rate`, `num_samples`, `model`, `version`, and `scales` if the
codec has them. It is read without `numpy.load`: that unpacks whatever size an entry states, and knows pickles.
Format: numpy/lib/format.py, a zip of `.npy` files.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, InvalidRequestError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.zip_directory import DEFLATED, STORED, Entry, read_directory, unpack
from models.encodec.codes import EncodedAudio
from models.encodec.spec import CodecSpec

VERSION = 1
_MAX_ENTRIES = 32
_MAX_SMALL = 4096  # bytes of every entry but codes and scales
_MAX_HEADER = 1024
_MAX_DIMENSIONS = 4
_LARGEST = 10**12
_MAGIC = b"\x93NUMPY"
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([^'"]*)['"]""")
_DTYPE = re.compile(r"[<>|=]?([iuf][1248]|U\d{1,3})")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,]{0,64})\)""")
_NUMBER = re.compile(r"\d+")
_SURROGATES = 0xD800


@dataclass(frozen=True, slots=True)
class CodesFile:
    """What a file of codes holds.

    Args:
        model: that made the codes; empty if the file does not say.
        sample_rate: of the codec, Hz; None if the file does not say, as `frame_rate`.
    """

    codes: NDArray[np.int16]
    model: str = ""
    num_samples: int | None = None
    scales: NDArray[np.float32] | None = None
    sample_rate: float | None = None
    frame_rate: float | None = None


def write_codes(file: BinaryIO, encoded: EncodedAudio, *, spec: CodecSpec, model: str) -> None:
    """Writes codes with all that is needed to decode them.

    Args:
        spec: of the codec.
        model: its name.
    """
    arrays: dict[str, Any] = {
        "codes": encoded.codes,
        "frame_rate": np.float64(spec.frame_rate),
        "sample_rate": np.int64(spec.sample_rate),
        "num_samples": np.int64(encoded.num_samples),
        "model": np.str_(model),
        "version": np.int64(VERSION),
    }
    if encoded.scales is not None:
        arrays["scales"] = encoded.scales
    np.savez(file, **arrays)


def read_codes(file: BinaryIO, *, max_bytes: int, field: str = "codes") -> CodesFile:
    """Reads a file of codes, of `write_codes` or with at least `codes`.

    Args:
        max_bytes: the most that codes and scales may have after unpacking.
        field: of the request that has the file, for errors.

    Raises:
        InvalidRequestError: `invalid_codes`: it is no such file, or larger.
    """
    try:
        entries = {entry.name: entry for entry in read_directory(file, max_entries=_MAX_ENTRIES)}
        codes = _read_array(file, entries, "codes", "iu", max_bytes=max_bytes)
        scales = _read_array(file, entries, "scales", "f", max_bytes=max_bytes)
        if codes is None:
            raise CheckpointError("it has no array 'codes'")
        check_range(codes)
        if scales is not None and scales.ndim != 1:
            raise CheckpointError(f"its 'scales' have {scales.ndim} dimensions instead of one")
        version = _read_number(file, entries, "version")
        if version is not None and version > VERSION:
            raise CheckpointError(f"its version is {version:g}, and this worker reads {VERSION}")
        samples = _read_number(file, entries, "num_samples")
        return CodesFile(
            np.ascontiguousarray(codes, np.int16),
            model=_read_text(file, entries, "model"),
            num_samples=None if samples is None else int(samples),
            scales=None if scales is None else scales.astype(np.float32),
            sample_rate=_read_number(file, entries, "sample_rate"),
            frame_rate=_read_number(file, entries, "frame_rate"),
        )
    except CheckpointError as error:
        raise InvalidRequestError(
            f"The file in '{field}' cannot be used: {error}. Send the .npz file that encode_audio returned, or the "
            "codes as lists.",
            code=ErrorCode.INVALID_CODES,
            details={"field": field},
        ) from error


def check_range(codes: NDArray[Any]) -> None:
    """Raises `CheckpointError` unless codes are `[K, T]`, not empty, and fit into int16."""
    if codes.ndim != 2:  # noqa: PLR2004  ([K, T])
        raise CheckpointError(f"its codes have {codes.ndim} dimensions instead of two, [codebooks, frames]")
    if codes.size == 0:
        raise CheckpointError("it has no codes")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high > np.iinfo(np.int16).max:
        raise CheckpointError(f"its codes run from {low} to {high}, and a codec's begin with 0")


def _read_array(
    file: BinaryIO, entries: Mapping[str, Entry], name: str, kinds: str, *, max_bytes: int
) -> NDArray[Any] | None:
    """The array `name`, of one of the dtype `kinds`; None if there is none."""
    entry = entries.get(f"{name}.npy")
    if entry is None:
        return None
    if entry.method not in (STORED, DEFLATED) or entry.encrypted:
        raise CheckpointError(f"its '{name}' is packed in a way that is not read")
    if entry.size > max_bytes + _MAX_HEADER:
        raise CheckpointError(f"its '{name}' has {entry.size} bytes, and at most {max_bytes} are read")
    content = bytearray()
    for block in unpack(file, entry):
        content += block
    dtype, shape, is_fortran, start = _read_header(content, name)
    if dtype.kind not in kinds:
        raise CheckpointError(f"its '{name}' is of the type {dtype}")
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise CheckpointError(f"its '{name}' has another size than it states")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _read_header(content: bytearray, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Dtype, shape, order (whether Fortran's) of a `.npy`, and where its data begin."""
    size_format = "<H" if content[6:7] == b"\x01" else "<I"
    begin = 8 + struct.calcsize(size_format)
    if content[:6] != _MAGIC or len(content) < begin:
        raise CheckpointError(f"its '{name}' is not an array")
    (size,) = struct.unpack_from(size_format, content, 8)
    header = content[begin : begin + min(size, _MAX_HEADER)].decode("ascii", "replace")
    descr, order, shape = (pattern.search(header) for pattern in (_DESCR, _ORDER, _SHAPE))
    if descr is None or not _DTYPE.fullmatch(descr[1]):
        raise CheckpointError(f"its '{name}' holds objects or records instead of numbers")
    if order is None or shape is None:
        raise CheckpointError(f"its '{name}' is not a plain array")
    sizes = tuple(map(int, _NUMBER.findall(shape[1])))
    if len(sizes) > _MAX_DIMENSIONS:
        raise CheckpointError(f"its '{name}' has {len(sizes)} dimensions")
    return np.dtype(descr[1]), sizes, order[1] == "True", begin + size


def _read_number(file: BinaryIO, entries: Mapping[str, Entry], name: str) -> float | None:
    array = _read_array(file, entries, name, "iuf", max_bytes=_MAX_SMALL)
    if array is None:
        return None
    if array.size != 1 or not 0 <= (number := float(array.reshape(())[()])) < _LARGEST:
        raise CheckpointError(f"its '{name}' is not one number")
    return number


def _read_text(file: BinaryIO, entries: Mapping[str, Entry], name: str) -> str:
    array = _read_array(file, entries, name, "U", max_bytes=_MAX_SMALL)
    if array is None:
        return ""
    if array.size != 1:
        raise CheckpointError(f"its '{name}' is not one text")
    points = np.frombuffer(array.astype("<U").tobytes(), "<u4")  # an array may hold numbers that are no characters
    return "".join(map(chr, points[(points > 0) & (points < _SURROGATES)]))
