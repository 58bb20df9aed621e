"""Checkpoints made to do harm are refused at once, in little memory, and with our own error only."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import ModelError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.safe_pickle import StorageRef, TensorRef, read_pickle
from models.checkpoints.tensor_loader import read_tensors
from models.checkpoints.zip_directory import ArchiveError, read_directory
from models.rvc.checkpoint import check_checkpoint, read_checkpoint, read_header
from testing import rvc_files
from testing.processes import build_environment
from testing.repository import ROOT

MAX_SECONDS, MAX_MEGABYTES = 1.0, 100
STEPS = 10_000


def make_archive(records: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in records.items():
            made.writestr(f"archive/{name}", data)
    return file.getvalue()


def make_valid_file() -> bytes:
    file = io.BytesIO()
    torch.save(rvc_files.make_content(), file)
    return file.getvalue()


def list_records() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(make_valid_file())) as made:
        return {name.removeprefix("archive/"): made.read(name) for name in made.namelist()}


def replace_pickle(index: bytes) -> bytes:
    return make_archive(list_records() | {"data.pkl": index})


class Shell:
    """Makes an ordinary unpickler run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/rvc-was-here",)


def make_file_with_code() -> bytes:
    file = io.BytesIO()
    torch.save(rvc_files.make_content() | {"info": Shell()}, file)
    return file.getvalue()


def make_deflate_bomb() -> bytes:
    big = {name: bytes(150 << 20) if name == "data/0" else data for name, data in list_records().items()}
    return make_archive(big, method=zipfile.ZIP_DEFLATED)


def forge_stored_size(size: int) -> bytes:
    """The directory and the local headers say that `data/0` is larger than it is."""
    data = bytearray(make_valid_file())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as made:
        info = made.getinfo("archive/data/0")
    at = data.find(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len("archive/data/0")] != b"archive/data/0":
        at = data.find(b"PK\x01\x02", at + 4)
    struct.pack_into("<2L", data, at + 20, size, size)
    struct.pack_into("<2L", data, info.header_offset + 18, size, size)
    return bytes(data)


def forge_storage_count(count: int) -> bytes:
    """A tensor whose index states a storage of `count` items."""
    saved = rvc_files.make_content()
    index = list_records()["data.pkl"]
    number = struct.pack("<H", saved["weight"]["enc_p.emb_phone.weight"].numel())
    marker = b"\x58\x03\x00\x00\x00cpu"
    at = index.find(b"M" + number, index.find(marker))
    long = count.to_bytes(8, "little", signed=True)
    return replace_pickle(index[:at] + b"\x8a\x08" + long + index[at + 3 :])


def make_file_with_config(place: int, value: Any) -> bytes:
    saved = rvc_files.make_content()
    saved["config"][place] = value
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


def make_consistent_giant() -> bytes:
    """A config at its bounds, with tensors that fit it and share one small storage."""
    giant = rvc_files.make_config(inter_channels=1024, hidden_channels=1024, filter_channels=4096, n_layers=32)
    shared = torch.zeros(1)
    weights = {name: shared.expand(shape) for name, shape in rvc_files.list_shapes(giant).items()}
    file = io.BytesIO()
    torch.save(rvc_files.make_content() | {"config": rvc_files.list_config(giant), "weight": weights}, file)
    return file.getvalue()


def make_nested_bomb() -> bytes:
    """Tuples of tuples, each twice the one before, as a dictionary's key: hashing it would take for ever."""
    steps = b"".join(b"q\x00h\x00\x86" for _ in range(5000))
    return replace_pickle(b"\x80\x02})" + steps + b"Ns.")


def make_sparse_file() -> bytes:
    file = io.BytesIO()
    saved = rvc_files.make_content()
    saved["weight"]["emb_g.weight"] = torch.zeros(1, 4).to_sparse()
    torch.save(saved, file)
    return file.getvalue()


def make_file_with_nan() -> bytes:
    saved = rvc_files.make_content()
    saved["weight"]["emb_g.weight"][0, 0] = torch.nan
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


def make_million_entries() -> bytes:
    """A directory of a million entries, all of them the same one."""
    whole = make_archive({"data.pkl": b"\x80\x02}."})
    at = whole.find(b"PK\x01\x02")
    entry = whole[at : whole.find(b"PK\x05\x06")]
    count, size = 1_000_000, len(entry) * 1_000_000
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, at)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, min(size, 0xFFFFFFFF), at, 0)
    return whole[:at] + entry * count + wide + locator + end


def forge_entry_count(count: int) -> bytes:
    data = bytearray(make_archive({"data.pkl": b"\x80\x02}."}))
    struct.pack_into("<2H", data, data.find(b"PK\x05\x06") + 8, count, count)
    return bytes(data)


def make_overlapping_entries() -> bytes:
    """Two names for the same bytes."""
    whole = make_archive({"data.pkl": b"\x80\x02}.", "data/0": b"1234", "data/1": b"1234"})
    data = bytearray(whole)
    entries = [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]
    data[entries[2] + 42 : entries[2] + 46] = data[entries[1] + 42 : entries[1] + 46]
    return bytes(data)


def make_duplicate_entries() -> bytes:
    whole = make_archive({"data.pkl": b"\x80\x02}.", "data/0": b"1234", "data/1": b"1234"})
    return whole.replace(b"archive/data/1", b"archive/data/0")


HOSTILE: dict[str, Callable[[], bytes]] = {
    "code in the pickle": make_file_with_code,
    "deflate bomb": make_deflate_bomb,
    "compressed": lambda: make_archive(list_records(), method=zipfile.ZIP_DEFLATED),
    "sizes forged in the zip": lambda: forge_stored_size(0xFFFF_FFF0),
    "sizes forged a little": lambda: forge_stored_size(100_000),
    "sizes forged in the index": lambda: forge_storage_count(1 << 39),
    "negative size": lambda: forge_storage_count(-1),
    "absurd config": lambda: make_file_with_config(13, 2**31),
    "absurd layers": lambda: make_file_with_config(6, 10**9),
    "config of nested lists": lambda: make_file_with_config(11, [[[[[1]]]]]),
    "giant that fits its config": make_consistent_giant,
    "nested bomb": make_nested_bomb,
    "deep lists": lambda: replace_pickle(b"\x80\x02}" + b"(" * 90_000 + b"l" * 90_000 + b"."),
    "deep tuples": lambda: replace_pickle(b"\x80\x02)" + b"\x85" * 90_000 + b"."),
    "endless": lambda: replace_pickle(b"\x80\x02" + b"}" * 900_000 + b"."),
    "long index": lambda: replace_pickle(b"\x80\x02" + b"}" * 30_000_000 + b"."),
    "huge number": lambda: replace_pickle(
        b"\x80\x02\x8b" + struct.pack("<i", 20_000_000) + b"\xff" * 20_000_000 + b"."
    ),
    "number as text": lambda: replace_pickle(b"\x80\x02I" + b"9" * 900_000 + b"\n."),
    "text longer than the file": lambda: replace_pickle(b"\x80\x02X\xff\xff\xff\xff."),
    "memo far away": lambda: replace_pickle(b"\x80\x02}r\xff\xff\xff\xff."),
    "memo that is not there": lambda: replace_pickle(b"\x80\x02j\xff\xff\xff\xff."),
    "sparse tensor": make_sparse_file,
    "not a number": make_file_with_nan,
    "million entries": make_million_entries,
    "million entries stated": lambda: forge_entry_count(0xFFFE),
    "fewer entries stated": lambda: forge_entry_count(0),
    "overlapping entries": make_overlapping_entries,
    "duplicate entries": make_duplicate_entries,
    "two indexes": lambda: make_archive({"data.pkl": b"\x80\x02}.", "x/data.pkl": b"\x80\x02}."}),
    "no index": lambda: make_archive({"data/0": b""}),
    "itself": lambda: replace_pickle(b"\x80\x02}q\x00X\x06\x00\x00\x00weighth\x00s."),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_reader_refuses_a_hostile_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "voice.pth"
    path.write_bytes(HOSTILE[name]())
    for read in (check_checkpoint, read_checkpoint):
        with pytest.raises(ModelError) as caught:
            read(path)
        assert caught.value.error_code == "broken_checkpoint" and len(caught.value.message) < 600
        assert str(tmp_path) not in caught.value.message
    assert not Path("/tmp/rvc-was-here").exists()


MEASURE = """
import json, re, sys, time
from pathlib import Path
import numpy
from errors import ModelError
from models.rvc.checkpoint import check_checkpoint, read_checkpoint
def peak():  # ru_maxrss would count the process that this one was started from
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
base = peak()
for path in sys.argv[1:]:
    for read in (check_checkpoint, read_checkpoint):
        started = time.process_time()
        try:
            read(Path(path))
        except ModelError as error:
            message = error.message
        took = time.process_time() - started
        print(json.dumps([path, took, peak() - base, message, "torch" in sys.modules]))
"""


def test_a_hostile_file_is_refused_in_under_a_second_and_100_megabytes_without_torch(tmp_path: Path) -> None:
    paths = []
    for name, make in HOSTILE.items():
        paths.append(tmp_path / f"{name}.pth")
        paths[-1].write_bytes(make())
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=build_environment(tmp_path),
        check=True,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lines) == 2 * len(HOSTILE)
    for path, seconds, megabytes, _, torch_loaded in lines:
        assert seconds < MAX_SECONDS and megabytes < MAX_MEGABYTES and not torch_loaded, path


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"cos\nsystem\n", "os.system"),
        (b"cbuiltins\neval\n", "builtins.eval"),
        (b"c__builtin__\ngetattr\n", "__builtin__.getattr"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "_rebuild_sparse_tensor"),
        (b"(ios\nsystem\n", "0x69"),
        (b"(X\x02\x00\x00\x00os\x93", "0x93"),
        (b"\x82\x01", "0x82"),
        (b"ccollections\nOrderedDict\n)\x81", "no tensor"),
        (b"ccollections\nOrderedDict\n]\x85R", "no tensor"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "tensor"),
        (b"ctorch._utils\n_rebuild_parameter\n}\x85R", "no tensor"),
        (b"]}b", "no tensor"),
        (b"NQ", "damaged"),
        (b"(((", "damaged"),
        (b"}]Ns", "damaged"),
        (b"}(Nu", "damaged"),
        (b"R", "damaged"),
        (b"t", "damaged"),
        (b"\x87", "damaged"),
        (b"a", "damaged"),
        (b"\x80\x04", "protocol"),
        (b"\x8a\xff", "large number"),
        (b"c" + b"x" * 300, "damaged"),
        (b"K", "cut short"),
        (b"X\x01\x00\x00\x00\xff", "damaged"),
    ],
)
def test_the_pickle_reader_follows_no_other_instruction(tail: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.")):
        read_pickle(b"\x80\x02" + tail + b".", max_steps=STEPS)


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n("
    b"(X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
)


@pytest.mark.parametrize(
    "tail",
    [
        b"K\x00K\x07\x85K\x01\x85tR",  # one item too many
        b"K\x01K\x06\x85K\x01\x85tR",  # an offset too far
        b"J\xff\xff\xff\xffK\x06\x85K\x01\x85tR",  # before the beginning
        b"K\x00J\xff\xff\xff\xff\x85K\x01\x85tR",  # a negative length
        b"K\x00K\x06\x85J\xff\xff\xff\xff\x85tR",  # backwards
        b"K\x00\x88\x85K\x01\x85tR",  # a truth value for a length
        b"K\x00K\x06\x85)tR",  # no stride
        b"K\x00(" + b"K\x01" * 9 + b"t(" + b"K\x01" * 9 + b"ttR",  # nine dimensions
        b"K\x00NK\x01\x85tR",
        b"tR",
    ],
)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tail: bytes) -> None:
    fine = read_pickle(b"\x80\x02" + TENSOR + b"K\x00K\x02K\x03\x86K\x03K\x01\x86tR.", max_steps=STEPS).value
    assert fine == TensorRef(StorageRef("float16", "0", 6), 0, (2, 3), True)
    with pytest.raises(CheckpointError, match="a tensor in its index"):
        read_pickle(b"\x80\x02" + TENSOR + tail + b".", max_steps=STEPS)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
        ),
        max_leaves=20,
    )
)
def test_plain_values_are_read_as_pickle_wrote_them(value: Any) -> None:
    assert read_pickle(pickle.dumps(value, 2), max_steps=STEPS).value == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, any_class: bool) -> None:
    try:
        read_pickle(b"\x80\x02" + data, max_steps=STEPS, classes=None if any_class else ())
    except CheckpointError as error:
        assert str(error)


VALID = make_valid_file()


@pytest.fixture(scope="module")
def mutant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "voice.pth"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_valid_file_with_bytes_changed_is_read_or_refused(mutant: Path, data: st.DataObject) -> None:
    """Most changes are in the index and in the directory; only our own error may be raised."""
    index, directory = VALID.find(b"\x80\x02}"), VALID.find(b"PK\x01\x02")
    places = st.integers(0, index + 4000) | st.integers(directory, len(VALID) - 1) | st.integers(0, len(VALID) - 1)
    changed = bytearray(VALID)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        changed[at] = value
    cut = data.draw(st.none() | st.integers(0, len(VALID)))
    mutant.write_bytes(bytes(changed)[:cut])
    try:
        read_checkpoint(mutant)
    except ModelError as error:
        assert error.message and str(mutant.parent) not in error.message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3))
def test_a_file_of_other_weights_with_bytes_changed_is_read_or_refused(
    mutant: Path, places: list[tuple[int, int]]
) -> None:
    file = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(3), "b": torch.ones(2, 2).half()}, "cfg": [Shell]}, file)
    changed = bytearray(file.getvalue())
    for at, value in places:
        changed[at % len(changed)] = value
    mutant.write_bytes(bytes(changed))
    try:
        assert read_tensors(mutant)
    except CheckpointError as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"PK\x05\x06", b"PK\x06\x07", b"PK\x01\x02"]))
def test_any_directory_is_read_or_refused(data: bytes, mark: bytes) -> None:
    half = len(data) // 2
    try:
        read_directory(io.BytesIO(data[:half] + mark + data[half:]), max_entries=10)
    except ArchiveError as error:
        assert str(error)


def test_a_directory_that_disagrees_with_the_files_is_refused(tmp_path: Path) -> None:
    data = bytearray(VALID)
    at = data.find(b"archive/data.pkl")
    data[at : at + 7] = b"ARCHIVE"
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ModelError, match="contradicts"):
        read_header(tmp_path / "a.pth")


def test_two_directories_that_disagree_are_refused(tmp_path: Path) -> None:
    data = bytearray(VALID)
    at = data.find(b"PK\x06\x06")
    assert at > 0, "torch writes a zip64 record"
    (count,) = struct.unpack_from("<Q", data, at + 24)
    struct.pack_into("<2Q", data, at + 24, count - 1, count - 1)
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ModelError, match="two directories"):
        read_header(tmp_path / "a.pth")


def test_numbers_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(make_archive(list_records() | {"byteorder": b"big"}))
    with pytest.raises(ModelError, match="little-endian"):
        read_header(tmp_path / "a.pth")


def test_a_valid_file_written_by_zipfile_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(make_archive(list_records()))
    assert isinstance(OrderedDict(read_checkpoint(tmp_path / "a.pth").weights), OrderedDict)
