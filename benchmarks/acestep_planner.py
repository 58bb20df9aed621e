"""ACE-Step's planner: our steps against transformers' `generate`, on the same random weights of the published sizes.

    python -m benchmarks.acestep_planner --size 0.6B       # also 1.7B, 4B; --clips 2, --threads 1, --clock cpu
    python -m benchmarks.acestep_planner --folder /tmp/planner      keeps the checkpoint for the next run
    python -m benchmarks.acestep_planner --tiny            a tiny network, to see that it runs

`ours` and `reference` are the seconds for one audio code of each clip with classifier-free guidance, temperature 0.85
and top-p 0.9, in the type that the weights are stored in, bfloat16. Both take turns, so that what else the machine does
slows both down alike. The prompt is left out by the difference between many codes and few; it is printed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.common import Stopwatch, choose_clock, make_parser, name_device, print_result, read_peak_bytes, set_up
from models.acestep.metas import Metas
from models.acestep.planner.catalog import BY_NAME, CATALOG
from models.acestep.planner.checkpoint import read_checkpoint
from models.acestep.planner.engine import CODE_RATE, PlannerEngine
from models.acestep.planner.load import load_engine
from models.acestep.planner.prompts import encode_codes_prompt, encode_unconditional_prompt
from models.acestep.planner.request import CodesRequest, PlannedSong, PlanRequest
from testing.planner_reference import generate_codes, load_reference
from testing.tiny_planner import make_config, make_planner_tokenizer, make_weights, write_tiny_planner

TARGET = 5.0  # times as fast as `generate`
CODES_IN_VOCABULARY = 65_535
FEW = 5  # codes, of which the prompt's share of the time is told
SONG = PlannedSong(
    caption="Upbeat synth pop with a driving bass line, bright arpeggios and a female singer",
    lyrics=None,
    metas=Metas(bpm=118, key="A minor", time_signature=4),
    language="en",
)
REQUEST = CodesRequest(
    caption=SONG.caption or "",
    lyrics="[Verse]\nNeon rivers in the rain\nCarry me to you again\n\n[Chorus]\nWe are running, we are light\n" * 4,
    song=SONG,
    duration=10.0,
    seeds=(0,),
)


@dataclass(frozen=True, slots=True)
class PlannerTimes:
    """What planning takes, in seconds.

    Args:
        code: one audio code of every clip, ours; the median of the turns.
        reference_code: the same by `generate`; None: not measured.
        prompt: reading the prompts, ours.
        plan_token: one token of a plan, ours.
        load: loading the planner.
    """

    code: float
    reference_code: float | None
    prompt: float
    plan_token: float
    load: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    set_up(options)
    with tempfile.TemporaryDirectory() as temporary:
        name = f"acestep-5Hz-lm-{options.size}"
        folder = Path(options.folder or temporary) / name
        if not (folder / "config.json").exists():
            (write_tiny_planner if options.tiny else write_planner)(folder.parent, name)
        watch = Stopwatch(choose_clock(options.clock), options.device)
        times = measure_planner(
            folder, watch, device=options.device, codes=options.codes, clips=options.clips, turns=options.turns
        )
        _print_times(times, options)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__)
    sizes = [card.name.rpartition("-")[2] for card in CATALOG]
    parser.add_argument("--size", choices=sizes, default="0.6B")
    parser.add_argument("--codes", type=int, default=1200 if on_gpu else 50, help="of each clip")
    parser.add_argument("--clips", type=int, default=1, help="drawn together")
    parser.add_argument("--turns", type=int, default=3, help="that each of the two has; 0: the reference has none")
    parser.add_argument("--folder", help="of checkpoints; one that is missing is written there and kept")
    parser.add_argument("--tiny", action="store_true", help="a tiny network instead of a published size")
    return parser.parse_args(arguments)


def write_planner(folder: Path, name: str) -> Path:
    """Writes a planner of a published size with random weights in bfloat16 to `folder / name`, which it returns."""
    target, sizes = folder / name, BY_NAME[name].config
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = make_planner_tokenizer(CODES_IN_VOCABULARY, num_text=sizes.vocab_size - CODES_IN_VOCABULARY)
    tokenizer.save(str(target / "tokenizer.json"))
    config = make_config(tokenizer) | {
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.num_kv_heads,
        "head_dim": sizes.head_dim,
        "torch_dtype": "bfloat16",
    }
    weights = make_weights(config, tokenizer, seed=0)
    save_file({key: value.bfloat16() for key, value in weights.items()}, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(config))  # last: a folder with it is whole
    return target


def measure_planner(  # noqa: PLR0913  (all but two are keywords with defaults)
    folder: Path, watch: Stopwatch, *, device: str, codes: int = 50, clips: int = 1, turns: int = 3
) -> PlannerTimes:
    """Measures a planner, and `generate` of transformers with its weights in between.

    Args:
        codes: of each clip; more than twice `FEW`.
        clips: that are drawn together.
        turns: of each of the two; 0: ours has one, and the reference is not measured.
    """
    started = watch.read()
    engine = load_engine(read_checkpoint(folder), device=device)
    load = watch.read() - started
    reference = load_reference(folder, device) if turns else None
    request = replace(REQUEST, seeds=tuple(range(clips)))
    prompts = (
        encode_codes_prompt(request, engine.vocabulary),
        encode_unconditional_prompt(request.sampling.negative_prompt, engine.vocabulary),
    )

    def ours(count: int) -> None:
        engine.generate_codes(replace(request, duration=count / CODE_RATE))

    def theirs(count: int) -> None:
        generate_codes(
            reference,
            *prompts,
            num_text=engine.vocabulary.num_text,
            num_codes=engine.vocabulary.num_codes,
            steps=count,
            sampling=request.sampling,
            clips=clips,
        )

    own_codes, own_prompts, reference_codes = [], [], []
    ours(codes)  # kernels are chosen, and graphs captured
    for _ in range(max(turns, 1)):
        seconds, few = _time_code(ours, codes, watch)
        own_codes.append(seconds)
        own_prompts.append(few - FEW * seconds)
        if reference is not None:
            reference_codes.append(_time_code(theirs, min(codes, 4 * FEW), watch)[0])
    return PlannerTimes(
        code=statistics.median(own_codes),
        reference_code=statistics.median(reference_codes) if reference_codes else None,
        prompt=statistics.median(own_prompts),
        plan_token=_time_plan_token(engine, watch),
        load=load,
    )


def _time_code(generate: Callable[[int], None], codes: int, watch: Stopwatch) -> tuple[float, float]:
    """Seconds for one code, and for the prompt and `FEW` codes."""
    times = []
    for count in (FEW, codes):
        started = watch.read()
        generate(count)
        times.append(watch.read() - started)
    return (times[1] - times[0]) / (codes - FEW), times[0]


def _time_plan_token(engine: PlannerEngine, watch: Stopwatch) -> float:
    """Seconds for one token that the planner writes into a plan."""
    request = PlanRequest(mode="metas", seed=0, caption=REQUEST.caption, lyrics=REQUEST.lyrics)
    times: list[float] = []
    engine.plan(request, progress=lambda fraction: times.append(watch.read()))
    return statistics.median(after - before for before, after in zip(times[1:], times[2:], strict=False))


def _print_times(times: PlannerTimes, options: argparse.Namespace) -> None:
    for name, seconds in asdict(times).items():
        print(f"{name:16} {'not measured' if seconds is None else f'{1000 * seconds:10.1f} ms'}", flush=True)
    ratio = times.reference_code / times.code if times.reference_code else None
    if ratio is not None and not options.tiny:
        print(f"{ratio:.2f} times as fast as generate (target: {TARGET:g}), for {options.clips} clips at a time")
    figures: dict[str, Any] = {
        "size": "tiny" if options.tiny else options.size,
        "clips": options.clips,
        "codes": options.codes,
        "prompt_s": round(times.prompt, 4),
        "plan_token_s": round(times.plan_token, 5),
        "load_s": round(times.load, 3),
        "peak_gb": round(read_peak_bytes() / 1e9, 2),
    }
    print_result(
        "acestep_planner",
        device=name_device(options),
        ours=times.code,
        reference=times.reference_code,
        **figures,
    )


if __name__ == "__main__":
    main()
