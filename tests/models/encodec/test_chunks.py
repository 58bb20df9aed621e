"""EnCodec over long audio in chunks: the same codes and the same audio as of the whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio import Audio
from audio.types import AudioSource, Waveform
from errors import CancelledError
from models.encodec.codec import Codec
from models.encodec.codes import EncodedAudio
from models.encodec.load import from_folder
from models.encodec.network import EnCodec
from models.encodec.seanet import apply
from testing.signals import make_noise
from testing.tiny_musicgen import write_hub_codec

RATE = 16_000
SETTINGS: dict[str, dict[str, Any]] = {
    "causal": {"use_causal_conv": True},
    "not causal": {},
    "zeros at the ends": {"pad_mode": "constant"},
    "trimmed on both sides": {"use_causal_conv": True, "trim_right_ratio": 0.3},
    "without a shortcut": {"use_conv_shortcut": False, "num_residual_layers": 3, "num_lstm_layers": 1},
    "wide kernels": {"kernel_size": 9, "last_kernel_size": 5, "residual_kernel_size": 5, "num_residual_layers": 3},
    "short frames": {"upsampling_ratios": [5, 3, 2], "target_bandwidths": [10.68]},
}


def load(folder: Path, **changes: Any) -> EnCodec:
    return from_folder(write_hub_codec(folder, **changes), "cpu")


def make_audio(samples: int, channels: int = 1) -> Audio:
    return Audio(make_noise(channels, samples), RATE)


def join(blocks: Iterable[Waveform]) -> Waveform:
    return np.concatenate(list(blocks), axis=1)


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_codes_and_audio_of_chunks_equal_those_of_the_whole(tmp_path: Path, changes: dict[str, Any]) -> None:
    network = load(tmp_path, **changes)
    audio = make_audio(5 * RATE + 123)
    whole = Codec(network, codebooks=4, chunk_s=100.0)
    expected = whole.encode_audio(audio, codebooks=4)
    assert expected.codes.shape == (4, -(-audio.num_samples // network.config.hop_length))
    assert min(len(np.unique(row)) for row in expected.codes) > 16  # of 32
    waveform = join(whole.decode_audio(expected))
    assert waveform.shape == audio.waveform.shape and waveform.std() > 1e-3
    for chunk_s in (0.1, 0.5, 1.7):
        chunked = Codec(network, codebooks=4, chunk_s=chunk_s)
        found = chunked.encode_audio(audio, codebooks=4)
        assert np.array_equal(found.codes, expected.codes) and found.num_samples == audio.num_samples
        np.testing.assert_allclose(join(chunked.decode_audio(expected)), waveform, atol=1e-5)


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_no_frame_depends_on_more_frames_than_the_context(tmp_path: Path, changes: dict[str, Any]) -> None:
    """How far the change of one frame reaches, far from the ends."""
    network = load(tmp_path, **changes)
    config, frames, changed = network.config, 80, 40
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        samples = torch.randn(1, 1, frames, config.hop_length, generator=generator)
        other = samples.clone()
        other[..., changed, :] += 1
        found = [apply(network.encoder.before, one.flatten(2)) for one in (samples, other)]
        check_reach(found, frames, changed, config.encoder_context)
        hidden = torch.randn(1, config.filters * 2 ** len(config.ratios), frames, generator=generator)
        other = hidden.clone()
        other[..., changed] += 1
        check_reach(
            [apply(network.decoder.after, one) for one in (hidden, other)], frames, changed, config.decoder_context
        )


def check_reach(found: list[torch.Tensor], frames: int, changed: int, context: int) -> None:
    """Compares two results of which the frame `changed` of the input differed."""
    difference = (found[0] - found[1]).abs().amax((0, 1)).view(frames, -1).amax(1)
    reach = int((difference.nonzero() - changed).abs().max())
    assert 0 < reach <= context <= 2 * reach + 2


def test_interleaved_channels_are_encoded_in_chunks(tmp_path: Path) -> None:
    network, audio = load(tmp_path), make_audio(3 * RATE, channels=2)
    expected = Codec(network, codebooks=4, stereo=True, chunk_s=100.0).encode_audio(audio, codebooks=8)
    codec = Codec(network, codebooks=4, stereo=True, chunk_s=1.0)
    assert np.array_equal(codec.encode_audio(audio, codebooks=8).codes, expected.codes)
    for channel in (0, 1):
        mono = Codec(network, codebooks=4).encode_audio(Audio(audio.waveform[channel : channel + 1], RATE), codebooks=4)
        assert np.array_equal(expected.codes[channel::2], mono.codes)
    fewer = codec.encode_audio(audio, codebooks=4)
    assert np.array_equal(fewer.codes, expected.codes[:4])
    assert join(codec.decode_audio(fewer)).shape == audio.waveform.shape


def test_fewer_codebooks_are_the_first_ones(tmp_path: Path) -> None:
    codec, audio = Codec(load(tmp_path), codebooks=4), make_audio(RATE)
    assert np.array_equal(
        codec.encode_audio(audio, codebooks=2).codes, codec.encode_audio(audio, codebooks=4).codes[:2]
    )


class LongAudio(AudioSource):
    """An hour that is computed as it is read; the longest part that was read at once is kept."""

    longest = 0

    def __init__(self) -> None:
        super().__init__(RATE, 1, 3600 * RATE)

    def read(self, start: int, count: int) -> Waveform:
        self.longest = max(self.longest, count)
        stop = min(start + count, self.num_samples)
        return np.sin(np.arange(start, stop, dtype=np.float32) / 7)[None] * np.float32(0.1)


def test_of_long_audio_only_chunks_are_read_and_a_cancel_ends_the_work(tmp_path: Path) -> None:
    network, source, reported = load(tmp_path), LongAudio(), []

    def progress(fraction: float) -> None:
        reported.append(fraction)
        if len(reported) == 4:
            raise CancelledError("The job was cancelled.")

    codec = Codec(network, codebooks=4)
    with pytest.raises(CancelledError):
        codec.encode_audio(source, codebooks=4, progress=progress)
    assert reported == pytest.approx([0, 1 / 360, 2 / 360, 3 / 360])
    assert source.longest <= 11 * RATE
    reported.clear()
    blocks = codec.decode_audio(EncodedAudio(np.zeros((4, 180_000), np.int16), source.num_samples), progress=progress)
    with pytest.raises(CancelledError):
        assert max(block.shape[1] for block in blocks) <= 11 * RATE
    assert reported == pytest.approx([0, 1 / 360, 2 / 360, 3 / 360])


@pytest.mark.parametrize("samples", [1, 2, 319, 320, 321, 1600])
@pytest.mark.parametrize("causal", [False, True])
def test_the_shortest_audio_comes_back_at_its_length(tmp_path: Path, samples: int, causal: bool) -> None:
    codec = Codec(load(tmp_path, use_causal_conv=causal), codebooks=4)
    encoded = codec.encode_audio(make_audio(samples), codebooks=4)
    assert encoded.codes.shape == (4, -(-samples // 320)) and encoded.scales is None
    assert join(codec.decode_audio(encoded)).shape == (1, samples)
