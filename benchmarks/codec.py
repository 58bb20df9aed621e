"""EnCodec: our codec against transformers' and audiocraft's on the same random weights of the published sizes.

    python -m benchmarks.codec                        24, 32 and 48 kHz: parity and speed, 20 s of music
    python -m benchmarks.codec --model 48khz --seconds 60
    python -m benchmarks.codec --memory --model 24khz encoding and decoding 1 and 60 minutes: memory and time

Ours works in chunks of 10 s, the reference on the whole, except at 48 kHz, which has segments of 1 s. All run in
float32. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audio import Audio
from audio.types import AudioSource, Waveform
from benchmarks.common import (
    choose_clock,
    make_parser,
    name_device,
    print_result,
    read_peak_bytes,
    run_python,
    set_up,
)
from models.checkpoints.hf_folder import read_config
from models.checkpoints.settings import Settings
from models.encodec.codec import Codec
from models.encodec.codes import EncodedAudio
from models.encodec.load import from_audiocraft, load_codec
from models.encodec.spec import read_spec
from models.musicgen.xp_config import read_xp_config
from testing.tiny_musicgen import codec_settings, fit_codebooks

MODELS: Mapping[str, dict[str, Any]] = {
    "24khz": {},
    "32khz": {
        "sampling_rate": 32_000,
        "num_filters": 64,
        "upsampling_ratios": [8, 5, 4, 4],
        "codebook_size": 2048,
        "target_bandwidths": [2.2],
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    },
    "48khz": {
        "sampling_rate": 48_000,
        "audio_channels": 2,
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "use_causal_conv": False,
        "norm_type": "time_group_norm",
    },
}
"""What differs from transformers' default settings, which are those of the codec at 24 kHz."""
AUDIOCRAFT = "32khz of audiocraft"
LARGEST_ERROR = 1e-5  # of decoded audio whose largest sample is 1
MEMORY_TARGET_MB = 200.0  # that an hour may take more than a minute, codes included
GAIN = 1.6  # of the weights


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our codec beside the reference.

    Args:
        seconds: ours and the reference's: of encoding and of decoding.
        codes: of the whole.
        different: of them, not equal to the reference's.
        distinct: the fewest codes that a codebook uses.
        error: the largest difference of a sample of the audio decoded from the reference's codes, when the largest
            sample is 1.
    """

    encode: tuple[float, float]
    decode: tuple[float, float]
    codes: int
    different: int
    distinct: int
    error: float

    @property
    def is_equal(self) -> bool:
        return self.different == 0 and self.error <= LARGEST_ERROR


Reference = tuple[Callable[[torch.Tensor], EncodedAudio], Callable[[EncodedAudio], Waveform]]
"""Encodes `[1, C, samples]`, and decodes to `[C, samples]`."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    if options.folder is not None:
        print(json.dumps(_measure(options.folder, options.minutes)))
        return
    set_up(options)
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            _measure_memory(options, Path(folder))
        else:
            _compare_all(options, Path(folder))


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=(*MODELS, AUDIOCRAFT), action="append", help="one or several; default: all")
    parser.add_argument("--seconds", type=float, default=20.0, help="of music")
    parser.add_argument("--runs", type=int, default=2, help="of each implementation; the best counts")
    parser.add_argument("--memory", action="store_true", help="only the memory for 1 and for 60 minutes")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _compare_all(options: argparse.Namespace, folder: Path) -> None:
    clock = choose_clock(options.clock)
    rows = {}
    for name in options.model or (*MODELS, AUDIOCRAFT):
        codec, reference = (_load_audiocraft if name == AUDIOCRAFT else _load_transformers)(
            name, folder, options.device
        )
        row = rows[name] = _compare(codec, reference, options, clock)
        speeds = [
            f"{stage} {pair[1] / pair[0]:.2f}" for stage, pair in (("encode", row.encode), ("decode", row.decode))
        ]
        print(
            f"{name:20} {row.different} of {row.codes} codes differ (at least {row.distinct} in use), largest error "
            f"{row.error:.1e}, times as fast: {', '.join(speeds)}",
            flush=True,
        )
    ours, theirs = (sum(row.encode[i] + row.decode[i] for row in rows.values()) for i in (0, 1))
    print_result(
        "codec",
        device=name_device(options),
        ours=ours,
        reference=theirs,
        clock=options.clock,
        seconds_of_music=options.seconds,
        models={name: asdict(row) for name, row in rows.items()},
        parity_met=all(row.is_equal for row in rows.values()),
    )


def _compare(codec: Codec, reference: Reference, options: argparse.Namespace, clock: Callable[[], float]) -> Comparison:
    song = make_song(options.seconds, codec.sample_rate, codec.channels)
    audio = Audio(song, codec.sample_rate)
    waveform = torch.from_numpy(song)[None].to(options.device)
    encode, decode = reference
    times: dict[str, list[float]] = {"ours encode": [], "theirs encode": [], "ours decode": [], "theirs decode": []}

    def measure(name: str, function: Callable[[Any], Any], argument: Any) -> Any:
        started = clock()
        result = function(argument)
        if options.device == "cuda":
            torch.cuda.synchronize()
        times[name].append(clock() - started)
        return result

    for _ in range(options.runs):
        theirs = measure("theirs encode", encode, waveform)
        ours = measure("ours encode", partial(codec.encode_audio, codebooks=codec.codebooks), audio)
        expected = measure("theirs decode", decode, theirs)
        found = measure("ours decode", lambda codes: np.concatenate(list(codec.decode_audio(codes)), axis=1), theirs)
    assert ours.codes.shape == theirs.codes.shape, f"codes of {ours.codes.shape}, and {theirs.codes.shape}"
    best = {name: round(min(values), 4) for name, values in times.items()}
    return Comparison(
        encode=(best["ours encode"], best["theirs encode"]),
        decode=(best["ours decode"], best["theirs decode"]),
        codes=ours.codes.size,
        different=int((ours.codes != theirs.codes).sum()),
        distinct=min(len(np.unique(row)) for row in theirs.codes),
        error=float(np.abs(found - expected).max() / np.abs(expected).max()),
    )


def make_song(seconds: float, sample_rate: int, channels: int) -> Waveform:
    """Chords with a beat and noise, nowhere silent: `[C, T]`."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    chord = sum(np.sin(2 * np.pi * frequency * (1 + times // 2 % 4 / 8) * times) for frequency in (220, 277, 330))
    beat = np.exp(-8 * (times * 2 % 1)) * np.sin(2 * np.pi * 55 * times)
    noise = np.random.default_rng(0).standard_normal((channels, len(times)))
    return np.asarray(0.1 * chord + 0.2 * beat + 0.05 * noise, np.float32)


def write_codec(name: str, folder: Path, **changes: Any) -> Path:
    """The folder of a codec of the published size with random weights, in transformers' format.

    `changes` are settings of transformers' `EncodecConfig`.
    """
    from transformers import EncodecConfig, EncodecModel

    target = folder / name
    config = EncodecConfig(**(MODELS[name] | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = EncodecModel(config)
        model.eval()
        fit_codebooks(model, channels=config.audio_channels, hop_length=config.hop_length, gain=GAIN)
    model.save_pretrained(target)
    return target


def _load_transformers(name: str, folder: Path, device: str) -> tuple[Codec, Reference]:
    from transformers import EncodecModel

    path = write_codec(name, folder)
    spec = read_spec(read_config(path))
    theirs: Any = EncodecModel.from_pretrained(path)
    theirs.to(device)
    bandwidth = theirs.config.target_bandwidths[-1]

    def encode(waveform: torch.Tensor) -> EncodedAudio:
        with torch.inference_mode():
            codes, scales, padding = theirs.encode(waveform, bandwidth=bandwidth, return_dict=False)
        flat = codes[:, 0].transpose(0, 1).flatten(1)
        return EncodedAudio(
            flat[:, : flat.shape[1] - padding].to(torch.int16).cpu().numpy(),
            waveform.shape[-1],
            np.array([float(scale) for scale in scales], np.float32) if scales[0] is not None else None,
        )

    def decode(encoded: EncodedAudio) -> Waveform:
        codes = torch.from_numpy(encoded.codes).to(device, torch.long)
        counts = spec.segments.count_frames(encoded.num_samples, spec.hop_length) if spec.segments else [codes.shape[1]]
        padding = counts[0] - counts[-1]
        padded = torch.nn.functional.pad(codes, (0, padding))
        frames = padded.view(len(codes), len(counts), -1).transpose(0, 1)[:, None]
        scales: list[Any] = [None]
        if encoded.scales is not None:
            scales = list(torch.from_numpy(encoded.scales).to(device)[:, None])
        with torch.inference_mode():
            audio = theirs.decode(frames, scales, last_frame_pad_length=padding, return_dict=False)[0]
        waveform: Waveform = audio[0, :, : encoded.num_samples].cpu().numpy()
        return waveform

    return load_codec(path, spec, device), (encode, decode)


def _load_audiocraft(name: str, folder: Path, device: str) -> tuple[Codec, Reference]:
    """MusicGen's own codec, in audiocraft's format."""
    from omegaconf import OmegaConf

    from models.musicgen.audiocraft_import import import_audiocraft

    import_audiocraft()
    settings = codec_settings(32_000)
    settings["seanet"] |= {"n_filters": 64, "dimension": 128}
    settings["rvq"] |= {"bins": 2048}
    builders = importlib.import_module("audiocraft.models.builders")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = builders.get_compression_model(OmegaConf.create(settings | {"device": "cpu"})).eval()
        fit_codebooks(theirs, channels=1, hop_length=640, gain=GAIN)
    network = from_audiocraft(theirs.state_dict(), Settings(read_xp_config(settings)), device)
    theirs.to(device)

    def encode(waveform: torch.Tensor) -> EncodedAudio:
        with torch.inference_mode():
            codes = theirs.encode(waveform)[0][0]
        return EncodedAudio(codes.to(torch.int16).cpu().numpy(), waveform.shape[-1])

    def decode(encoded: EncodedAudio) -> Waveform:
        with torch.inference_mode():
            audio = theirs.decode(torch.from_numpy(encoded.codes)[None].to(device, torch.long))
        waveform: Waveform = audio[0, :, : encoded.num_samples].cpu().numpy()
        return waveform

    return Codec(network, codebooks=len(network.codebooks)), (encode, decode)


def _measure_memory(options: argparse.Namespace, folder: Path) -> None:
    """An hour is measured with a network of an eighth of the width, which has the chunks and codes of the whole one."""
    name = (options.model or ["24khz"])[0]
    paths = {
        "whole": write_codec(name, folder / "whole"),
        "narrow": write_codec(name, folder / "narrow", num_filters=4),
    }
    rows = []
    for network, minutes in (("whole", 1.0), ("narrow", 1.0), ("narrow", 60.0)):
        output = run_python("-m", "benchmarks.codec", "--folder", str(paths[network]), "--minutes", str(minutes))
        rows.append({"network": network, **json.loads(output)})
        row = rows[-1]
        print(
            f"{name} {network:6} {minutes:4.0f} min: {row['peak_mb']:6.0f} MB, with {row['codes_mb']:.1f} MB of codes; "
            f"encoding {row['encode_s']:.1f} s, decoding {row['decode_s']:.1f} s",
            flush=True,
        )
    more_mb = rows[2]["peak_mb"] - rows[1]["peak_mb"]
    print_result(
        f"codec memory {name}",
        device=name_device(options),
        ours=rows[2]["encode_s"] + rows[2]["decode_s"],
        reference=None,
        rows=rows,
        target_met=more_mb <= MEMORY_TARGET_MB,
    )


def _measure(folder: Path, minutes: float) -> dict[str, float]:
    """Encodes and decodes music; peak memory of this process in MB, and seconds."""
    spec = read_spec(read_config(folder))
    codec = load_codec(folder, spec, "cpu")
    song = _LongSong(minutes * 60, spec.sample_rate, spec.channels)
    started = time.perf_counter()
    encoded = codec.encode_audio(song, codebooks=min(spec.codebooks, 8))
    between = time.perf_counter()
    total = sum(block.shape[1] for block in codec.decode_audio(encoded))
    assert total == encoded.num_samples == round(minutes * 60 * spec.sample_rate), "the audio is as long as the song"
    return {
        "minutes": minutes,
        "peak_mb": round(read_peak_bytes() / 1e6, 1),
        "codes_mb": round(encoded.codes.nbytes / 1e6, 1),
        "encode_s": round(between - started, 2),
        "decode_s": round(time.perf_counter() - between, 2),
    }


class _LongSong(AudioSource):
    """Ten seconds of music again and again, made when they are read."""

    def __init__(self, seconds: float, sample_rate: int, channels: int) -> None:
        super().__init__(sample_rate, channels, round(seconds * sample_rate))
        self._part = make_song(10.0, sample_rate, channels)

    def read(self, start: int, count: int) -> Waveform:
        end = min(start + count, self.num_samples)
        return self._part[:, np.arange(start, end) % self._part.shape[1]]


if __name__ == "__main__":
    main()
