"""Makes the demo content encoder and voices: `python -m demo.training.voices all`, or one step at a time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from demo.training.cpu import prepare_cpu
from demo.training.voices import data, encoder, evaluate, export, features, judges, listener, synthesizer

STEP_COUNTS = {"encoder": 1300, "listener": 500, "decoder": 3800, "prior": 2500, "joint": 900, "judges": 250}


def _sing(args: argparse.Namespace) -> None:
    data.record_lines(args.pieces)


def _encoder(args: argparse.Namespace) -> None:
    encoder.train(args.encoder_steps)
    encoder.export()
    features.extract_features()


def _voices(args: argparse.Namespace) -> None:
    latents, phonemes = synthesizer.compute_line_latents(data.load_lines())
    listener.train(latents, phonemes, args.listener_steps)
    synthesizer.CHECKPOINT.unlink(missing_ok=True)
    for phase in synthesizer.PHASES:
        synthesizer.train(phase, getattr(args, f"{phase}_steps"))
    export.export()


def _judges(args: argparse.Namespace) -> None:
    judges.train(args.judges_steps)


def _evaluate(args: argparse.Namespace) -> None:
    """Sings and trains the judges first, unless an earlier run did."""
    if not (judges.RECOGNISER.exists() and judges.CLASSIFIER.exists()):
        _sing(args)
        _judges(args)
    if not evaluate.evaluate(args.test_lines):
        sys.exit("A bound is not met.")


def _all(args: argparse.Namespace) -> None:
    for step in (_sing, _encoder, _voices, _judges, _evaluate):
        step(args)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "sing": _sing,
    "encoder": _encoder,
    "voices": _voices,
    "judges": _judges,
    "evaluate": _evaluate,
    "all": _all,
}


def main() -> None:
    """Reads the step and its sizes from the command line and runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--pieces", type=int, default=data.TRAINING_PIECES)
    parser.add_argument("--test-lines", type=int, default=data.TEST_PIECES)
    for name, steps in STEP_COUNTS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=steps)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare_cpu(args.threads)
    STEPS[args.step](args)


if __name__ == "__main__":
    main()
