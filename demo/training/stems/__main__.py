"""Makes the demo's separation models: `python -m demo.training.stems all`, or one step at a time."""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch

from demo.training.cpu import prepare_cpu
from demo.training.stems import checkpoint, dataset, evaluate, htdemucs, roformer
from demo.training.stems.training import Schedule

STEPS = {"half-rate": 1700, "full-rate": 700, "refine": 1500, "vocals": 1400, "karaoke": 2700}
PEAK_RATES = {"half-rate": 1e-3, "full-rate": 7e-4, "refine": 6e-4, "vocals": 2e-3, "karaoke": 1.2e-3}


def _render(args: argparse.Namespace) -> None:
    for split in (dataset.TRAIN, dataset.DEVELOPMENT, dataset.TEST):
        dataset.render_split(replace(split, pieces=min(split.pieces, args.pieces or split.pieces)))


def _schedule(args: argparse.Namespace, name: str) -> Schedule:
    return Schedule(args.steps or STEPS[name], args.minutes, PEAK_RATES[name])


def _half_rate(args: argparse.Namespace) -> None:
    htdemucs.train_at_half_rate(_schedule(args, "half-rate"))


def _full_rate(args: argparse.Namespace) -> None:
    htdemucs.train_at_full_rate(_schedule(args, "full-rate"))


def _refine(args: argparse.Namespace) -> None:
    htdemucs.refine(_schedule(args, "refine"))


def _vocals(args: argparse.Namespace) -> None:
    roformer.train_roformer(roformer.TASKS["vocals"], _schedule(args, "vocals"))


def _karaoke(args: argparse.Namespace) -> None:
    roformer.train_roformer(roformer.TASKS["karaoke"], _schedule(args, "karaoke"))


def _export(_: argparse.Namespace) -> None:
    """Write the weights of every training that has begun."""
    stages = (
        (htdemucs.STATE, dataset.SAMPLE_RATE),
        (htdemucs.FULL_RATE_STATE, dataset.SAMPLE_RATE),
        (htdemucs.HALF_RATE_STATE, dataset.SAMPLE_RATE // 2),
    )
    if latest := next(((state, rate) for state, rate in stages if state.exists()), None):
        checkpoint.export_demucs(latest[0], htdemucs.build_network(latest[1]), htdemucs.NAME)
    for task in roformer.TASKS.values():
        if task.state.exists():
            checkpoint.export_roformer(task.state, task.settings, task.name)


def _evaluate(args: argparse.Namespace) -> None:
    split = dataset.DEVELOPMENT if args.look else dataset.TEST
    if (checkpoint.WEIGHTS / "demucs" / htdemucs.NAME).is_dir():
        evaluate.evaluate_demucs(split)
    for task in roformer.TASKS.values():
        if (checkpoint.WEIGHTS / "roformer" / task.name).is_dir():
            evaluate.evaluate_roformer(task, split)


def _all(args: argparse.Namespace) -> None:
    for step in (_render, _half_rate, _full_rate, _refine, _vocals, _karaoke, _export, _evaluate):
        step(args)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "render": _render, "half-rate": _half_rate, "full-rate": _full_rate, "refine": _refine, "vocals": _vocals,
    "karaoke": _karaoke, "export": _export, "evaluate": _evaluate, "all": _all,
}  # fmt: skip


def main() -> None:
    """Read the step and its size from the command line and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=COMMANDS)
    parser.add_argument("--pieces", type=int, help="render so many pieces of each split at most, to try the commands")
    parser.add_argument("--steps", type=int, help="training steps; default: as in demo/stems.md")
    parser.add_argument("--minutes", type=float, help="end a training after so many minutes at the latest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--look", action="store_true", help="evaluate on the mixes that settings were chosen by")
    args = parser.parse_args()
    prepare_cpu(args.threads)
    torch.set_flush_denormal(True)  # for the whole process, so not in what tests call
    COMMANDS[args.step](args)


if __name__ == "__main__":
    main()
