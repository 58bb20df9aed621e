"""What the machine says about its devices."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from errors import DeviceError
from models.device import cpu_multiplies_bfloat16, prepare_device
from testing.repository import ROOT


def test_the_flags_of_a_cpu_tell_whether_it_multiplies_bfloat16(tmp_path: Path) -> None:
    for name, text, answer in (
        ("new", "processor: 0\nflags\t\t: fpu avx512f avx512_bf16 avx_vnni\n", True),
        ("amx", "flags : amx_tile amx_bf16\n", True),
        ("old", "flags : fpu avx2 avx512f\n", False),
        ("other", "Features : fp asimd\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert cpu_multiplies_bfloat16(tmp_path / name) is answer
    assert cpu_multiplies_bfloat16(tmp_path / "absent") is False


@pytest.mark.parametrize(("device", "expected"), [("cpu", True), ("cuda", False)])
def test_attention_on_a_gpu_is_not_computed_by_cudnn(device: str, expected: bool) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    with contextlib.suppress(DeviceError):  # on a machine without a GPU
        prepare_device(device)
    assert torch.backends.cuda.cudnn_sdp_enabled() is expected  # type: ignore[no-untyped-call]


def test_every_loader_prepares_the_device() -> None:
    """Which no other test notices on a machine without a GPU."""
    loaders = {
        "models/acestep/load.py",
        "models/acestep/planner/load.py",
        "models/beat_this/tracker.py",
        "models/demucs/family.py",
        "models/encodec/family.py",
        "models/f0/crepe.py",
        "models/f0/fcpe.py",
        "models/f0/rmvpe.py",
        "models/hubert/encoder.py",
        "models/musicgen/load.py",
        "models/musicgen/multiband_diffusion.py",
        "models/roformer/family.py",
        "models/rvc/converter.py",
    }
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "models").rglob("*.py")
        if "prepare_device(" in path.read_text() and path.name != "device.py"
    }
    assert callers == loaders


def test_a_gpu_that_torch_cannot_use_asks_for_another_worker() -> None:
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    with pytest.raises(DeviceError) as failed:
        prepare_device("cuda")
    reply = failed.value.to_reply()
    assert (reply["error_code"], reply["refresh_worker"]) == ("device_unavailable", True)
