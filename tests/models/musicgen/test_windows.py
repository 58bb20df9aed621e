"""Windows that slide, loudness that is held over them, the codec's seams, and which numbers a CPU multiplies in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from models.device import cpu_multiplies_bfloat16
from models.encodec import codec as codec_module
from models.encodec.codec import Codec, from_audiocraft, from_folder
from models.musicgen.graphs import STEPS, bucket
from models.musicgen.load import plain_settings, read_package
from models.musicgen.request import MAX_DRIFT_DB
from models.musicgen.windows import loudness_db, sights, steadied
from testing.audiocraft_reference import audiocraft_codec
from testing.tiny_musicgen import Shape, codec_settings, write_checkpoint, write_hub_codec

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 8_000


@settings(deadline=None)
@given(
    window=st.integers(2, 1500),
    stride=st.integers(1, 1499),
    prompt=st.integers(0, 1499),
    new=st.integers(1, 30_000),
)
def test_windows_make_every_frame_once_and_see_no_more_than_the_model_does(
    window: int, stride: int, prompt: int, new: int
) -> None:
    stride, prompt = min(stride, window - 1), min(prompt, window - 1)
    views = sights(prompt=prompt, total=prompt + new, window=window, stride=stride)
    assert views[0].known == prompt and views[-1].end == prompt + new
    for view in views:
        assert 0 <= view.start <= view.known < view.end <= view.start + window
    for before, after in zip(views, views[1:], strict=False):
        assert after.known == before.end and before.start < after.start < after.known


def test_ten_minutes_are_one_window_and_then_a_stride_at_a_time() -> None:
    views = sights(prompt=0, total=30_000, window=1500, stride=900)
    assert len(views) == 1 + -(-(30_000 - 1500) // 900)
    assert all(view.known - view.start == 600 for view in views[1:])


def noise(levels_db: list[float], seconds: float = 2.0) -> Audio:
    generator = np.random.default_rng(0)
    parts = [generator.standard_normal(int(seconds * RATE)) * 10 ** (level / 20) for level in levels_db]
    return Audio(np.concatenate(parts)[None].astype(np.float32), RATE)


def test_a_piece_that_fades_away_over_its_windows_is_held_near_its_beginning() -> None:
    sound = noise([-20.0, -24.0, -28.0, -32.0])
    held, levels = steadied(sound, [0.0, 2.0, 4.0, 6.0])
    assert levels == pytest.approx([-20, -24, -28, -32], abs=0.3)
    middles = [loudness_db(held.waveform[:, int(t * RATE) : int((t + 0.2) * RATE)]) for t in (0.9, 2.9, 4.9, 6.9)]
    assert max(middles) - min(middles) < MAX_DRIFT_DB + 0.5
    assert held.num_samples == sound.num_samples


def test_dynamics_within_the_limit_and_silence_are_left_as_they_are() -> None:
    for sound in (noise([-20.0, -22.0, -18.5]), noise([-20.0, -200.0, -20.0])):
        held, _ = steadied(sound, [0.0, 2.0, 4.0])
        np.testing.assert_array_equal(held.waveform, sound.waveform)


@pytest.mark.parametrize("frames", [1, 7, 130])
@pytest.mark.parametrize("stereo", [False, True])
def test_codes_decode_and_sound_encodes_as_audiocraft_does(tmp_path: Path, frames: int, stereo: bool) -> None:
    folder = write_checkpoint(tmp_path / "model", Shape(stereo=stereo))
    package = read_package(folder / "compression_state_dict.bin")
    model = from_audiocraft(package["best_state"], plain_settings(package["xp.cfg"]), "cpu")
    ours, theirs = Codec(model, codebooks=4, stereo=stereo), audiocraft_codec(folder)
    codes = torch.randint(32, (2, ours.codebooks, frames), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = torch.cat([theirs.decode(side) for side in ours.sides(codes)], dim=1)
        torch.testing.assert_close(ours.decode(codes), wanted, atol=1e-5, rtol=0)
        again = torch.stack([theirs.encode(channel[:, None])[0] for channel in wanted.unbind(1)], dim=2).flatten(1, 2)
        assert torch.equal(ours.encode(wanted), again)


@pytest.mark.parametrize("final", [None, "Tanh"])
def test_a_codec_without_lstm_loads_from_audiocrafts_format(final: str | None) -> None:
    import importlib

    from omegaconf import OmegaConf

    from models.musicgen.audiocraft_import import import_audiocraft

    import_audiocraft()
    config = codec_settings(16_000)
    config["seanet"] |= {"lstm": 0, "pad_mode": "reflect", "n_residual_layers": 2}
    config["seanet"]["decoder"]["final_activation"] = final
    builders = importlib.import_module("audiocraft.models.builders")
    theirs = builders.get_compression_model(OmegaConf.create(config | {"device": "cpu"})).eval()
    ours = Codec(from_audiocraft(theirs.state_dict(), config, "cpu"), codebooks=4)
    codes = torch.randint(32, (1, 4, 50), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours.decode(codes), theirs.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "ReLU"},
        {"norm": "layer_norm"},
        {"channels": 2},
        {"decoder": {"final_activation": "Linear"}},
        {"decoder": {"final_activation": "Tanh", "final_activation_params": {"inplace": True}}},
    ],
)
def test_a_codec_of_another_kind_is_refused(change: dict[str, object]) -> None:
    config = codec_settings(16_000)
    config["seanet"] |= change
    with pytest.raises(ValueError, match="codec with"):
        from_audiocraft({}, config, "cpu")


def test_a_codec_of_the_hub_decodes_in_chunks_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(from_folder(write_hub_codec(tmp_path / "codec"), "cpu"), codebooks=4)
    codes = torch.randint(32, (1, 4, 400), generator=torch.Generator().manual_seed(1))
    told: list[float] = []
    with torch.inference_mode():
        whole = codec.decode(codes)
        monkeypatch.setattr(codec_module, "CHUNK_S", 1.0)
        chunked = codec.decode(codes, on_chunk=told.append)
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)
    assert told == [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]


@settings(deadline=None)
@given(columns=st.integers(1, 40_000))
def test_a_bucket_holds_what_it_is_for(columns: int) -> None:
    assert bucket(columns) >= columns and bucket(bucket(columns)) == bucket(columns)
    assert bucket(1) > STEPS


def test_the_cpus_flags_tell_whether_it_multiplies_bfloat16(tmp_path: Path) -> None:
    for name, text, answer in (
        ("new", "processor: 0\nflags\t\t: fpu avx512f avx512_bf16 avx_vnni\n", True),
        ("amx", "flags : amx_tile amx_bf16\n", True),
        ("old", "flags : fpu avx2 avx512f\n", False),
        ("other", "Features : fp asimd\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert cpu_multiplies_bfloat16(tmp_path / name) is answer
    assert cpu_multiplies_bfloat16(tmp_path / "absent") is False
