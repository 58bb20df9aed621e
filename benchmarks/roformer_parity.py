"""The network of RoFormer separation against pymss-core's at full size, on the same random weights and the same noise.

    python -m benchmarks.roformer_parity                       all sizes, half a second of audio
    python -m benchmarks.roformer_parity --model bs256 --seconds 2

The last line is one JSON object; the exit status is 1 if a target is missed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from benchmarks.common import make_parser, name_device, set_up
from models.checkpoints.settings import Settings
from models.roformer.config import read_config
from models.roformer.network import RoformerNetwork
from models.runtime.dtype import Precision
from testing.roformer_reference import ReferenceNetwork, measure_snr_db
from testing.tiny_roformer import Shape, State, make_state

MODELS: Mapping[str, Shape] = {
    "mel384": Shape(kind="mel", dim=384, depth=6, heads=8, dim_head=64),
    "bs256": Shape(kind="bs", dim=256, depth=12, heads=8, dim_head=64),
    "bs512": Shape(kind="bs", dim=512, depth=12, heads=8, dim_head=64),
}
SAMPLE_RATE = 44_100
LARGEST_ERROR = 1e-4  # of full scale, in float32


@dataclass(frozen=True, slots=True)
class Parity:
    """How near the stems are to the reference's.

    Args:
        error: the largest difference of a sample, in float32, when the reference's largest sample is 1.
        snr_db: the reference's level against that of the difference, in float32.
        bfloat16_snr_db: the same with linear layers and attention in bfloat16.
    """

    error: float
    snr_db: float
    bfloat16_snr_db: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=tuple(MODELS), action="append", help="one or several; default: all")
    parser.add_argument("--seconds", type=float, default=0.5, help="of audio")
    options = parser.parse_args(arguments)
    set_up(options)
    rows = {}
    for name in options.model or MODELS:
        rows[name] = measure_parity(MODELS[name], seconds=options.seconds, device=options.device)
        print(
            f"{name:8} largest error {rows[name].error:.1e}, {rows[name].snr_db:.1f} dB in float32, "
            f"{rows[name].bfloat16_snr_db:.1f} dB in bfloat16"
        )
    is_met = all(row.error <= LARGEST_ERROR for row in rows.values())
    print(f"The largest error is to be at most {LARGEST_ERROR:g}: {'met' if is_met else 'MISSED'}")
    figures = {name: asdict(row) for name, row in rows.items()}
    print(json.dumps({"name": "roformer_parity", "device": name_device(options), "models": figures}))
    return 0 if is_met else 1


def measure_parity(shape: Shape, *, seconds: float, device: str, seed: int = 0) -> Parity:
    """Runs both networks once on noise.

    Args:
        shape: the sizes of the network.
        seconds: of audio.
        seed: of the weights and the noise.
    """
    state = make_state(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    mix = (torch.randn(1, 2, int(seconds * SAMPLE_RATE), generator=generator) * 0.2).to(device)
    reference = ReferenceNetwork(shape, state)
    reference.module.to(device)
    expected = reference(mix)
    stems = _separate(shape, state, mix, "float32")
    reduced = _separate(shape, state, mix, "bfloat16")
    error = float((stems - expected).abs().max() / expected.abs().max())
    return Parity(error, measure_snr_db(expected, stems), measure_snr_db(expected, reduced))


def _separate(shape: Shape, state: State, mix: torch.Tensor, precision: Precision) -> torch.Tensor:
    def read(prefixes: Sequence[str]) -> State:
        return {name: tensor for name, tensor in state.items() if name.startswith(tuple(prefixes))}

    settings = {"model": shape.describe(), "training": {"instruments": [str(stem) for stem in range(shape.num_stems)]}}
    config = read_config({name: tuple(tensor.shape) for name, tensor in state.items()}, Settings(settings))
    stems: torch.Tensor = RoformerNetwork(config, read, mix.device, precision)(mix)
    return stems


if __name__ == "__main__":
    sys.exit(main())
