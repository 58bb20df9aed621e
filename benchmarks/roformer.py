"""RoFormer separation: our network and chunks against pymss-core's network with the published chunks, on the same
random weights of the published sizes.

    python -m benchmarks.roformer                     Mel-Band RoFormer 384x6, 16 s of music (a minute on a GPU)
    python -m benchmarks.roformer --model bs256 --seconds 8
    python -m benchmarks.roformer --device cuda
    python -m benchmarks.roformer --memory            memory for 1 and for 60 minutes of music, with a stub network

The reference runs in float32, as its users run it; ours in the precision that the device calls for (the signal-to-error
ratio against the reference is printed, in float32 as well). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from audio import Audio
from audio.types import AudioSource, Waveform
from benchmarks.common import choose_clock, make_parser, name_device, print_result, read_peak_bytes, run_python, set_up
from models.checkpoints.settings import Settings
from models.roformer.config import read_config
from models.roformer.engine import RoformerSeparator
from models.roformer.network import RoformerNetwork, TensorReader
from models.runtime.dtype import Precision
from models.separation import Mix
from testing.roformer_demix import separate_song
from testing.roformer_reference import ReferenceNetwork, measure_snr_db
from testing.tiny_roformer import Shape, State, make_state

SAMPLE_RATE = 44_100
CHUNK = 352_800
NUM_OVERLAP = 2
STEMS = ("vocals",)  # that the network gives; the reference does not compute the rest of the mix
MODELS: Mapping[str, Shape] = {
    "mel384": Shape(kind="mel", dim=384, depth=6, heads=8, dim_head=64),
    "bs256": Shape(kind="bs", dim=256, depth=12, heads=8, dim_head=64),
    "bs512": Shape(kind="bs", dim=512, depth=12, heads=8, dim_head=64),
}
CPU_TARGET, GPU_TARGET = 2.0, 3.0  # times as fast as the reference
PARITY_TARGET_DB = 60.0  # in float32
MEMORY_TARGET_MB = 100.0  # that an hour may take more than a minute


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    if options.stub_minutes is not None:
        print(json.dumps(_separate_with_stub(options.stub_minutes)))
        return
    set_up(options)
    if options.memory:
        _measure_memory(options)
    else:
        _compare(options)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=tuple(MODELS), default="mel384")
    parser.add_argument("--seconds", type=float, default=60.0 if on_gpu else 16.0, help="of music")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 2, help="of each implementation; the best counts")
    parser.add_argument("--memory", action="store_true", help="only the memory for 1 and for 60 minutes")
    parser.add_argument("--stub-minutes", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _compare(options: argparse.Namespace) -> None:
    shape = MODELS[options.model]
    state = make_state(shape)
    song = _make_song(options.seconds)
    functions = {
        "ours": _load_ours(shape, state, options.device, "auto"),
        "reference": _load_reference(shape, state, options.device),
    }
    clock, seconds, stems = choose_clock(options.clock), {name: list[float]() for name in functions}, {}
    for run in range(options.runs + (options.device == "cuda") * 2):
        for name, function in functions.items():
            started = clock()
            stems[name] = function(song)
            seconds[name].append(clock() - started)
            print(f"{options.model:8} run {run + 1} {name:10} {seconds[name][-1]:9.3f} s", flush=True)
    exact = _load_ours(shape, state, options.device, "float32")(song)
    expected = torch.from_numpy(stems["reference"])
    assert expected.shape == exact.shape, f"stems of {exact.shape}, and the reference's of {tuple(expected.shape)}"
    snr_db = {
        "float32": round(measure_snr_db(expected, torch.from_numpy(exact)), 1),
        "default": round(measure_snr_db(expected, torch.from_numpy(stems["ours"])), 1),
    }
    ours, reference = min(seconds["ours"]), min(seconds["reference"])
    target = GPU_TARGET if options.device == "cuda" else CPU_TARGET
    print(f"{reference / ours:.2f} times as fast as pymss-core (target {target:g}); signal to error {snr_db} dB")
    print_result(
        f"roformer {options.model}",
        device=name_device(options),
        ours=ours,
        reference=reference,
        clock=options.clock,
        seconds_of_music=options.seconds,
        real_time=round(options.seconds / ours, 3),
        all_ours=[round(one, 3) for one in seconds["ours"]],
        all_reference=[round(one, 3) for one in seconds["reference"]],
        snr_db=snr_db,
        target_met=reference / ours >= target,
        parity_met=snr_db["float32"] >= PARITY_TARGET_DB,
    )


def _make_song(seconds: float) -> Waveform:
    """Chords and noise, stereo, nowhere silent: `[2, T]`."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal((2, len(t)))
    chord = sum(np.sin(2 * np.pi * frequency * t) for frequency in (220, 277, 330))
    return np.asarray(0.1 * chord + 0.05 * noise, np.float32)


def _load_ours(shape: Shape, state: State, device: str, precision: Precision) -> Callable[[Waveform], Waveform]:
    """A function that gives the stems `[S, 2, T]` of a song."""
    engine = RoformerSeparator(_build_network(shape, state, device, precision))

    def run(song: Waveform) -> Waveform:
        blocks = engine.separate(Mix(Audio(song, SAMPLE_RATE), SAMPLE_RATE), STEMS)
        return np.concatenate(list(blocks), axis=-1)

    return run


def _build_network(shape: Shape, state: State, device: str, precision: Precision) -> RoformerNetwork:
    stated = {
        "audio": {"chunk_size": CHUNK, "sample_rate": SAMPLE_RATE},
        "model": shape.describe(),
        "training": {"instruments": ["vocals"], "target_instrument": "vocals"},
        "inference": {"num_overlap": NUM_OVERLAP},
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return RoformerNetwork(read_config(shapes, Settings(stated)), _make_reader(state), device, precision)


def _make_reader(state: State) -> TensorReader:
    def read(prefixes: Sequence[str]) -> Mapping[str, torch.Tensor]:
        return {name: tensor for name, tensor in state.items() if name.startswith(tuple(prefixes))}

    return read


def _load_reference(shape: Shape, state: State, device: str) -> Callable[[Waveform], Waveform]:
    """As `_load_ours`, with pymss-core's network and the published chunks."""
    network = ReferenceNetwork(shape, state)
    network.module.to(device)
    separate = partial(
        separate_song, lambda chunk: network(chunk.to(device)).cpu(), chunk_size=CHUNK, num_overlap=NUM_OVERLAP
    )

    def run(song: Waveform) -> Waveform:
        stems: Waveform = separate(torch.from_numpy(song)).numpy()
        return stems

    return run


def _measure_memory(options: argparse.Namespace) -> None:
    rows = [
        json.loads(run_python("-m", "benchmarks.roformer", "--stub-minutes", f"{minutes}", "--device", "cpu"))
        for minutes in (1.0, 60.0)
    ]
    for row in rows:
        print(f"{row['minutes']:4.0f} min: {row['peak_mb']:6.0f} MB, {row['seconds']:.1f} s", flush=True)
    more_mb = rows[1]["peak_mb"] - rows[0]["peak_mb"]
    print_result(
        "roformer memory",
        device=name_device(options),
        ours=rows[1]["seconds"],
        reference=None,
        rows=rows,
        target_met=more_mb <= MEMORY_TARGET_MB,
    )


def _separate_with_stub(minutes: float) -> dict[str, float]:
    """Separates music with a network that halves it; peak memory of this process in MB, and seconds."""
    engine = RoformerSeparator(_StubNetwork())
    started, total = time.perf_counter(), 0
    for block in engine.separate(Mix(_LongSong(minutes * 60), SAMPLE_RATE), engine.stems):
        total += block.shape[-1]
    assert total == round(minutes * 60 * SAMPLE_RATE), "the stems are as long as the song"
    peak_mb = round(read_peak_bytes() / 1e6, 1)
    return {"minutes": minutes, "peak_mb": peak_mb, "seconds": round(time.perf_counter() - started, 2)}


class _StubNetwork(RoformerNetwork):
    """A network whose only stem is half of the mix."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        shape = Shape(kind="bs")
        self.config = _build_network(shape, make_state(shape), "cpu", "float32").config
        self.device = torch.device("cpu")

    def forward(self, mix: torch.Tensor, columns: Sequence[int] | None = None) -> torch.Tensor:
        """Mixes `[B, 2, T]` to stems `[B, 1, 2, T]`."""
        return 0.5 * mix[:, None]


class _LongSong(AudioSource):
    """A repeated second of music, made when it is read."""

    def __init__(self, seconds: float) -> None:
        super().__init__(SAMPLE_RATE, 2, round(seconds * SAMPLE_RATE))
        self._second = _make_song(1.0)

    def read(self, start: int, count: int) -> Waveform:
        end = min(start + count, self.num_samples)
        return self._second[:, np.arange(start, end) % SAMPLE_RATE]


if __name__ == "__main__":
    main()
