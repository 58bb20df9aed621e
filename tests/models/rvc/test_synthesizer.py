"""The synthesizer compared with rvc-python's, on tiny checkpoints in the real format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from errors import ModelError
from models.checkpoints.weight_norm import fold_weight_norm
from models.f0.contour import quantize_f0
from models.rvc.checkpoint import Checkpoint, read_checkpoint
from models.rvc.excitation import FrameNoise, accumulate_phase, generate_sine
from models.rvc.synthesizer import RelativeAttention, Synthesizer, import_network_module
from testing.rvc_reference import Noise, RvcPython, rvc_python
from testing.tensors import TensorSizes, count_tensor_bytes
from testing.tiny_rvc import write_hubert_file, write_voice

FRAMES = 60
CPU = torch.device("cpu")
VOICES = [("v2", 40_000, True), ("v1", 48_000, True), ("v2", 32_000, False), ("v1", 40_000, False)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RvcPython]:
    with rvc_python(write_hubert_file(tmp_path_factory.mktemp("hubert") / "hubert_base.pt")) as rvc:
        yield rvc


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_voice(tmp_path_factory.mktemp("voice"), ("v2", 40_000, True))[1]


def save_voice(root: Path, voice: tuple[str, int, bool]) -> tuple[Path, Checkpoint]:
    version, sample_rate, f0 = voice
    folder = write_voice(root, "tiny", version=version, sample_rate=sample_rate, f0=f0)
    return folder, read_checkpoint(folder / "tiny.pth")


def make_f0(frames: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    f0 = (220 + 40 * np.sin(np.arange(frames) / 7)).astype(np.float32)
    f0[frames // 3 : frames // 2] = 0
    return f0


@torch.inference_mode()
def synthesize(network: Synthesizer, features: torch.Tensor, f0: Any, noises: list[torch.Tensor]) -> torch.Tensor:
    if not network.uses_f0:
        return network.decode(network.sample_latents(features, None, noises[0]), None)
    latents = network.sample_latents(features, torch.from_numpy(quantize_f0(f0))[None], noises[0])
    phase = torch.from_numpy(accumulate_phase(f0, 100))[None]
    noise = noises[1].view(1, len(f0), -1)
    sine = generate_sine(torch.from_numpy(f0)[None], phase, noise, sample_rate=network.sample_rate)
    return network.decode(latents, network.project_excitation(sine))


@pytest.mark.parametrize("voice", VOICES, ids=str)
def test_with_the_same_noise_a_waveform_is_that_of_rvc_python(
    voice: tuple[str, int, bool], reference: RvcPython, tmp_path: Path
) -> None:
    folder, checkpoint = save_voice(tmp_path, voice)
    ours = Synthesizer(checkpoint, precision="float32")
    features = torch.randn(1, FRAMES, ours.width, generator=torch.Generator().manual_seed(1))
    f0, noise = make_f0(FRAMES), Noise(seed=2)
    reference.load(folder)
    given = [features, torch.tensor([FRAMES])]
    if ours.uses_f0:
        given += [torch.from_numpy(quantize_f0(f0))[None], torch.from_numpy(f0)[None]]
    expected = reference.synthesize(*given, torch.tensor([0]), noise=noise)[:, 0]
    got = synthesize(ours, features, f0, noise.drawn)
    assert got.shape == expected.shape == (1, FRAMES * checkpoint.sample_rate // 100)
    assert expected.std() > 0.05
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tile_bytes", [20_000, 100_000])
def test_decoding_in_tiles_gives_the_result_of_decoding_at_once(tile_bytes: int, tiny: Checkpoint) -> None:
    voice = Synthesizer(tiny, precision="float32")
    latents = torch.randn(1, voice.inter_channels, 40, generator=torch.Generator().manual_seed(3))
    excitation = 0.1 * torch.randn(1, 40 * voice.hop_length, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        voice.decoder.tile_bytes = 1 << 40
        at_once = voice.decode(latents, excitation)
        voice.decoder.tile_bytes = tile_bytes
        tiled = voice.decode(latents, excitation)
    torch.testing.assert_close(tiled, at_once, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [3, 11, 700])
def test_windowed_relative_attention_is_that_of_rvc_python(steps: int) -> None:
    attentions = import_network_module("lib.infer_pack.attentions")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        layer = attentions.MultiHeadAttention(16, 16, 2, window_size=10).eval()
        x = torch.randn(2, 16, steps)
    with torch.inference_mode():
        torch.testing.assert_close(RelativeAttention(layer)(x), layer(x, x), atol=1e-5, rtol=0)


def test_no_tensor_of_the_text_encoder_has_an_entry_for_each_pair_of_frames(tiny: Checkpoint) -> None:
    frames, voice = 1500, Synthesizer(tiny, precision="float32")
    with torch.inference_mode(), TensorSizes() as sizes:
        voice.sample_latents(
            torch.zeros(1, frames, voice.width),
            torch.ones(1, frames, dtype=torch.int64),
            torch.zeros(1, voice.inter_channels, frames),
        )
    assert sizes.shapes and not [shape for shape in sizes.shapes if shape[-2:] == (frames, frames)]


def test_decoding_in_bfloat16_has_an_snr_above_30_db(tiny: Checkpoint) -> None:
    exact, reduced = (Synthesizer(tiny, precision=precision) for precision in ("float32", "bfloat16"))
    latents = torch.randn(1, exact.inter_channels, 50, generator=torch.Generator().manual_seed(7))
    excitation = 0.1 * torch.randn(1, 50 * exact.hop_length, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        wanted, got = exact.decode(latents, excitation), reduced.decode(latents, excitation)
    snr_db = 10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum())
    assert snr_db > 30
    assert reduced.memory_bytes < exact.memory_bytes
    for voice in (exact, reduced):
        assert voice.memory_bytes == count_tensor_bytes(voice)


def test_weight_norm_is_folded_into_one_weight(tiny: Checkpoint) -> None:
    direction, length = tiny.weights["dec.ups.0.weight_v"].float(), tiny.weights["dec.ups.0.weight_g"].float()
    folded = fold_weight_norm(tiny.weights)
    expected = direction * length / direction.flatten(1).norm(dim=1).view_as(length)
    torch.testing.assert_close(folded["dec.ups.0.weight"], expected)
    assert not any(name.endswith(("weight_g", "weight_v")) for name in folded)
    assert not any("weight_norm" in name or "parametriz" in name for name in Synthesizer(tiny).state_dict())


@pytest.mark.parametrize("missing", ["dec.conv_post.weight", "enc_p.emb_phone.weight"])
def test_a_checkpoint_without_all_weights_is_refused(tiny: Checkpoint, missing: str) -> None:
    weights = {name: tensor for name, tensor in tiny.weights.items() if name != missing}
    with pytest.raises(ModelError, match=missing) as caught:
        Synthesizer(Checkpoint(tiny.version, tiny.sample_rate, tiny.f0, tiny.config, weights))
    assert caught.value.error_code == "broken_checkpoint"


def test_building_a_voice_prints_nothing_and_draws_no_random_numbers(
    tiny: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.random.get_rng_state()
    Synthesizer(tiny)
    assert torch.equal(before, torch.random.get_rng_state())
    assert capfd.readouterr().out == ""


def test_the_noise_of_a_frame_does_not_depend_on_where_a_draw_starts() -> None:
    noise = FrameNoise(5, 1, 8, CPU)
    whole = noise.draw(-100, 500)
    assert torch.equal(noise.draw(37, 240), whole[137:377])
    assert whole.std() == pytest.approx(1, abs=0.1)
    for other in (FrameNoise(6, 1, 8, CPU), FrameNoise(5, 0, 8, CPU)):
        assert not torch.equal(other.draw(-100, 500), whole)


def test_the_sine_is_continuous_across_a_cut() -> None:
    f0, hop = make_f0(300), 400
    noise = torch.zeros(1, 300, hop)
    phase = accumulate_phase(f0, 100)

    def tone(start: int, end: int) -> torch.Tensor:
        part = torch.from_numpy(f0[start:end])[None], torch.from_numpy(phase[start:end])[None]
        return generate_sine(*part, noise[:, start:end], sample_rate=40_000)

    assert torch.equal(torch.cat([tone(0, 77), tone(77, 300)], dim=1), tone(0, 300))


def test_after_an_hour_the_sine_is_still_in_phase() -> None:
    f0 = np.full(360_000, 220.3, np.float32)
    periods = np.arange(360_000) * (np.float64(f0[0]) / 100) % 1
    error = np.abs(accumulate_phase(f0, 100) - periods)
    assert np.minimum(error, 1 - error).max() < 1e-5
