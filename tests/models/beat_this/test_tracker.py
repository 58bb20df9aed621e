"""Beat This!: the same logits and beats as the package beat-this, on the same weights; chunks, peaks, progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beat_this.inference import split_predict_aggregate
from beat_this.model.beat_tracker import BeatThis
from beat_this.model.postprocessor import Postprocessor

from audio import Audio
from models.beat_this.network import BeatThisNetwork
from models.beat_this.tracker import BeatTracker, find_peaks, measure_log_mel
from models.checkpoints.errors import CheckpointError
from testing.signals import copy_to_disk, make_noise
from testing.tiny_beat_this import make_state, write_checkpoint

RATE = 22_050


def make_tracker(**sizes: int) -> BeatTracker:
    return BeatTracker(BeatThisNetwork(make_state(**sizes), "cpu"), "cpu")


def make_reference(state: dict[str, torch.Tensor], dim: int, depth: int) -> Any:
    network = BeatThis(transformer_dim=dim, n_layers=depth).eval()
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize(("dim", "depth", "frames"), [(96, 2, 76), (64, 1, 1600)])
def test_logits_and_beats_are_those_of_the_reference(dim: int, depth: int, frames: int) -> None:
    state = make_state(dim=dim, depth=depth)
    reference = make_reference(state, dim, depth)
    mel = np.abs(make_noise(frames, 128, level=1.0))
    with torch.inference_mode():
        expected = split_predict_aggregate(torch.from_numpy(mel), 1500, 6, "keep_first", reference)
    logits = BeatTracker(BeatThisNetwork(state, "cpu"), "cpu").predict(mel, lambda _: None)
    reference_logits = np.stack([expected["beat"].numpy(), expected["downbeat"].numpy()], axis=1)
    assert np.abs(logits - reference_logits).max() < 1e-4 * max(1.0, float(np.abs(reference_logits).max()))
    beats, downbeats = Postprocessor()(expected["beat"], expected["downbeat"])
    found = find_peaks(reference_logits)
    np.testing.assert_allclose(found.beats, beats)
    np.testing.assert_allclose(found.downbeats, downbeats)


@pytest.mark.parametrize("seconds", [1.0, 3.7, 31.0])
def test_the_spectrogram_is_that_of_torchaudio(seconds: float) -> None:
    from torchaudio.transforms import MelSpectrogram

    audio = Audio(make_noise(1, int(seconds * RATE), level=0.1), RATE)
    transform = MelSpectrogram(
        sample_rate=RATE, n_fft=1024, hop_length=441, f_min=30, f_max=11_000, n_mels=128, mel_scale="slaney",
        normalized="frame_length", power=1,
    )  # fmt: skip
    expected = torch.log1p(1000 * transform(torch.from_numpy(audio.waveform[0])).T).numpy()
    mel = measure_log_mel(audio, lambda _: None)
    assert mel.shape == expected.shape
    np.testing.assert_allclose(mel, expected, atol=1e-3)


def test_audio_on_disk_gives_the_same_beats_and_progress_rises_to_one() -> None:
    tracker, audio = make_tracker(), Audio(make_noise(2, 8 * RATE), RATE)
    fractions: list[float] = []
    first = tracker.track(audio, fractions.append)
    with copy_to_disk(audio) as stored:
        second = tracker.track(stored, lambda _: None)
    np.testing.assert_array_equal(first.beats, second.beats)
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_work_ends_when_progress_raises() -> None:
    class EndedError(Exception):
        pass

    def end(fraction: float) -> None:
        if fraction > 0.2:
            raise EndedError

    with pytest.raises(EndedError):
        make_tracker().track(Audio(make_noise(1, 40 * RATE), RATE), end)


def test_peaks_are_the_highest_frames_around_and_downbeats_are_beats() -> None:
    logits = np.full((200, 2), -5.0, np.float32)
    logits[[10, 12, 50, 51, 90, 130], 0] = [1.0, 2.0, 3.0, 3.0, 0.5, -0.1]
    logits[[13, 92], 1] = [1.0, 2.0]
    found = find_peaks(logits)
    np.testing.assert_allclose(found.beats, [12 / 50, 50.5 / 50, 90 / 50])
    np.testing.assert_allclose(found.downbeats, [12 / 50, 90 / 50])


def test_no_beats_are_found_where_none_is_likely() -> None:
    found = find_peaks(np.full((100, 2), -1.0, np.float32))
    assert not len(found.beats) and not len(found.downbeats)


def test_a_published_file_is_read(tmp_path: Path) -> None:
    state = make_state()
    path = write_checkpoint(
        tmp_path / "final0.ckpt", {name.replace("layers", "_orig_mod.layers"): t for name, t in state.items()}
    )
    mel = np.abs(make_noise(100, 128))
    first = BeatTracker.load(path, device="cpu").predict(mel, lambda _: None)
    np.testing.assert_array_equal(first, make_tracker().predict(mel, lambda _: None))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("frontend.linear.bias", "is missing"),
        ("transformer_blocks.layers.0.0.to_gates.bias", "is missing"),
        ("frontend.blocks.1.conv2d.weight", "is missing"),
    ],
)
def test_a_missing_tensor_is_named(name: str, problem: str) -> None:
    state = make_state()
    del state[name]
    with pytest.raises(CheckpointError, match=problem):
        BeatThisNetwork(state, "cpu")


def test_tensors_that_are_left_over_are_refused() -> None:
    with pytest.raises(CheckpointError, match="left over"):
        BeatThisNetwork(make_state() | {"task_heads.other.weight": torch.zeros(3)}, "cpu")
