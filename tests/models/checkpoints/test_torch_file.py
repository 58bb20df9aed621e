"""Files of torch.save: both formats, mapped and copied, and what is made of their tensors."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from models.checkpoints.errors import CheckpointError, UnsafeCheckpointError
from models.checkpoints.safe_pickle import PickledClass, PickledObject, read_pickle
from models.checkpoints.tensor_loader import TensorLoader, read_tensors
from models.checkpoints.weight_norm import fold_weight_norm, use_old_names

STATE = {
    "float": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(5).half(),
    "bfloat": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 4),
}


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_both_formats_give_the_same_tensors(tmp_path: Path, new_format: bool, mapped: bool) -> None:
    torch.save(STATE, tmp_path / "x.bin", _use_new_zipfile_serialization=new_format)
    read = read_tensors(tmp_path / "x.bin", mapped=mapped)
    assert read.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


@pytest.mark.parametrize("length", [10, 60, 400, -1])
def test_a_file_of_the_old_format_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    torch.save(STATE, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "x.bin").write_bytes((tmp_path / "x.bin").read_bytes()[:length])
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "x.bin")


def test_every_byte_of_the_old_format_may_be_wrong(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.bin").read_bytes()
    for position in range(0, len(data), 3):
        (tmp_path / "y.bin").write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            read_tensors(tmp_path / "y.bin")
        except CheckpointError as error:
            assert str(error)


def test_a_mapped_file_may_be_deleted_and_is_not_changed_by_its_reader(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.bin")
    before = (tmp_path / "x.bin").read_bytes()
    read = read_tensors(tmp_path / "x.bin", mapped=True)
    read["float"].zero_()
    assert (tmp_path / "x.bin").read_bytes() == before
    (tmp_path / "x.bin").unlink()
    assert torch.equal(read["half"], STATE["half"])


def test_classes_on_the_list_become_names_and_others_are_refused() -> None:
    data = pickle.dumps({"kind": OmegaConf, "size": OmegaConf.create({"a": 1})}, 2)
    with pytest.raises(UnsafeCheckpointError, match="omegaconf"):
        read_pickle(data, max_steps=10_000)
    for classes in (None, {"omegaconf.*", "collections.defaultdict", "typing.Any", "__builtin__.dict"}):
        value = read_pickle(data, max_steps=10_000, classes=classes).value
        assert isinstance(value["kind"], PickledClass) and isinstance(value["size"], PickledObject)
    with pytest.raises(UnsafeCheckpointError, match="omegaconf"):
        read_pickle(data, max_steps=10_000, classes={"omega.*", "omegaconf"})


def test_reading_a_pickle_imports_nothing_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        value = read_pickle(b"\x80\x02cplanted\nThing\n)R.", max_steps=10, classes=None).value
    finally:
        sys.path.remove(str(tmp_path))
    assert value.name == "planted.Thing" and "planted" not in sys.modules


@pytest.mark.parametrize("parametrized", [True, False])
@pytest.mark.parametrize("dim", [0, 2])
def test_weight_norm_folds_as_torch_does(parametrized: bool, dim: int) -> None:
    layer = torch.nn.Conv1d(4, 6, 5)
    normalize = torch.nn.utils.parametrizations.weight_norm if parametrized else torch.nn.utils.weight_norm
    layer = normalize(layer, dim=dim)
    x = torch.randn(1, 4, 20)
    folded = fold_weight_norm({f"net.{name}": tensor for name, tensor in layer.state_dict().items()})
    assert folded.keys() == {"net.weight", "net.bias"}
    torch.testing.assert_close(torch.nn.functional.conv1d(x, folded["net.weight"], folded["net.bias"]), layer(x))


def test_weight_norm_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CheckpointError, match="weight_g"):
        fold_weight_norm({"a.weight_v": torch.ones(3, 2), "a.weight_g": torch.ones(2, 3)})
    with pytest.raises(CheckpointError, match="twice"):
        use_old_names({"a.weight_g": 1, "a.parametrizations.weight.original0": 2})


def test_a_tensor_is_handed_out_checked_and_as_a_copy() -> None:
    state = {"net.a": torch.ones(3, 2), "net.b": torch.ones(1)}
    loader = TensorLoader(state, "cpu", "net.")
    copy = loader("a", 3, -1)
    copy.zero_()
    assert state["net.a"].sum() == 6 and loader.nbytes == 24
    with pytest.raises(CheckpointError, match="'net.c' is missing"):
        loader("c", 1)
    with pytest.raises(CheckpointError, match=r"\[1\] and not \[2\]"):
        loader("b", 2)
    with pytest.raises(CheckpointError, match="1 tensors are left over, the first is 'net.b'"):
        loader.check_all_used()
