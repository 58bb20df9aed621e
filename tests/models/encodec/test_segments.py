"""EnCodec in segments with scales, as at 48 kHz, compared with transformers' own on the same random weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio import Audio
from audio.types import Waveform
from errors import CancelledError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import read_config
from models.encodec.codec import Codec
from models.encodec.load import from_folder
from models.encodec.segments import overlap_add
from models.encodec.spec import CodecSpec, Segments, read_spec
from testing.signals import make_noise
from testing.tiny_musicgen import SEGMENTED, write_hub_codec

RATE = 16_000
STRIDE = 15_840  # samples, of segments of a second that overlap by 1 %


def join(blocks: Iterable[Waveform]) -> Waveform:
    return np.concatenate(list(blocks), axis=1)


def load_both(folder: Path, **changes: Any) -> tuple[Codec, Any]:
    """Our codec, and transformers' with the same weights."""
    from transformers import EncodecModel

    write_hub_codec(folder, **(SEGMENTED | changes))
    return Codec(from_folder(folder, "cpu"), codebooks=4), EncodecModel.from_pretrained(folder)


@pytest.mark.parametrize("samples", [1, 100, 7000, RATE, RATE + 1, 2 * STRIDE, 2 * STRIDE + 5, 3 * RATE + 777])
def test_codes_scales_and_audio_equal_transformers(tmp_path: Path, samples: int) -> None:
    ours, theirs = load_both(tmp_path)
    waveform = make_noise(2, samples) * np.linspace(0.1, 2, samples, dtype=np.float32)
    with torch.inference_mode():
        expected = theirs.encode(torch.from_numpy(waveform)[None], bandwidth=1.0)
        padding = expected.last_frame_pad_length
        decoded = theirs.decode(expected.audio_codes, expected.audio_scales, last_frame_pad_length=padding)[0][0]
    encoded = ours.encode_audio(Audio(waveform, RATE), codebooks=4)
    frames = expected.audio_codes[:, 0].transpose(0, 1).flatten(1)  # of all segments, the last one padded
    assert np.array_equal(encoded.codes, frames[:, : frames.shape[1] - padding].numpy())
    assert encoded.scales is not None
    scales = np.array([float(scale) for scale in expected.audio_scales], np.float32)
    np.testing.assert_allclose(encoded.scales, scales, rtol=1e-6)
    found = join(ours.decode_audio(encoded))
    assert found.shape == waveform.shape
    np.testing.assert_allclose(found, decoded[:, :samples].numpy(), atol=1e-5)


def test_a_last_but_one_segment_that_is_short_is_encoded_too(tmp_path: Path) -> None:
    """It has fewer frames than the others if the last one has a few samples; transformers cannot stack them."""
    ours, theirs = load_both(tmp_path, chunk_length_s=0.5, overlap=0.1)
    waveform = make_noise(2, 2 * 7200 + 10)
    with pytest.raises(RuntimeError), torch.inference_mode():
        theirs.encode(torch.from_numpy(waveform)[None])
    encoded = ours.encode_audio(Audio(waveform, RATE), codebooks=4)
    assert encoded.codes.shape[1] == 25 + 23 + 1 and encoded.scales is not None and len(encoded.scales) == 3
    with torch.inference_mode():
        alone = theirs.encode(torch.from_numpy(waveform[:, 7200:])[None, :, :7210], bandwidth=1.0)
    assert np.array_equal(encoded.codes[:, 25:48], alone.audio_codes[0, 0].numpy())
    assert join(ours.decode_audio(encoded)).shape == waveform.shape


def test_segments_without_scales_and_with_weight_norm(tmp_path: Path) -> None:
    ours, theirs = load_both(tmp_path, normalize=False, norm_type="weight_norm")
    waveform = make_noise(2, 2 * RATE)
    encoded = ours.encode_audio(Audio(waveform, RATE), codebooks=4)
    with torch.inference_mode():
        expected = theirs.encode(torch.from_numpy(waveform)[None], bandwidth=1.0)
        padding = expected.last_frame_pad_length
        decoded = theirs.decode(expected.audio_codes, expected.audio_scales, last_frame_pad_length=padding)[0][0]
    assert encoded.scales is None
    np.testing.assert_allclose(join(ours.decode_audio(encoded)), decoded[:, : 2 * RATE].numpy(), atol=1e-5)


def test_a_cancel_ends_the_work_between_segments(tmp_path: Path) -> None:
    ours, _ = load_both(tmp_path)

    def progress(fraction: float) -> None:
        if fraction > 0.5:
            raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError):
        ours.encode_audio(Audio(make_noise(2, 5 * RATE), RATE), codebooks=4, progress=progress)


@pytest.mark.parametrize(
    ("lengths", "stride"), [([10], 4), ([10] * 4, 4), ([10] * 3, 7), ([10] * 3, 10), ([10, 10, 4], 7), ([10, 8, 1], 7)]
)
def test_the_overlap_of_equal_parts_changes_nothing(lengths: list[int], stride: int) -> None:
    sound = torch.arange(50.0)[None].repeat(2, 1)
    parts = [sound[:, index * stride : index * stride + length] for index, length in enumerate(lengths)]
    joined = torch.cat(list(overlap_add(parts, stride=stride)), dim=1)
    torch.testing.assert_close(joined, sound[:, : joined.shape[1]])
    assert joined.shape[1] == max(index * stride + length for index, length in enumerate(lengths))


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_length_s": None},
        {"chunk_length_s": 100.0},
        {"chunk_length_s": 0.001},
        {"overlap": None},
        {"overlap": 1.0},
        {"audio_channels": 3},
        {"codebook_size": 100_000},
        {"target_bandwidths": [0.001]},
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    import json

    write_hub_codec(tmp_path, **SEGMENTED)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(CheckpointError):
        read_spec(read_config(tmp_path))


@pytest.mark.parametrize("segments", [None, Segments(1000, 990, True), Segments(1000, 500, True)])
def test_the_longest_audio_of_a_number_of_frames_has_at_most_these_frames(segments: Segments | None) -> None:
    spec = CodecSpec(16_000, 1, 32, 4, 1024, (1.0,), 1, segments)
    for samples in range(1, 4000, 13):
        frames = spec.count_frames(samples)
        longest = spec.longest_audio(frames)
        assert longest >= samples and spec.count_frames(longest) == frames < spec.count_frames(longest + 1)
    assert spec.longest_audio(0) == 0


@pytest.mark.parametrize(("length", "stride"), [(1000, 990), (1000, 500), (1000, 70), (1000, 1000), (10, 1)])
def test_the_frames_of_all_segments_are_those_of_each(length: int, stride: int) -> None:
    segments = Segments(length, stride, normalize=True)
    for samples in (*range(1, 3000, 17), length, length + 1, stride, stride + 1, 10 * stride):
        lengths = [min(length, samples - start) for start in range(0, samples, stride)]
        counts = segments.count_frames(samples, 32)
        assert counts == [-(-one // 32) for one in lengths] and segments.sum_frames(samples, 32) == sum(counts)
    assert segments.sum_frames(10**15, 32) > 10**13  # at once
