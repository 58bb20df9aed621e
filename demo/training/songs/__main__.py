"""Makes the demo checkpoint of ACE-Step from nothing: `python -m demo.training.songs all`, or one step at a time."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from demo.training.cpu import prepare_cpu
from demo.training.songs import dit, evaluate, export, finish, render, vae

STEPS: dict[str, Callable[[argparse.Namespace], object]] = {
    "render": lambda args: render.render_all(args.pieces),
    "vae": lambda args: vae.train(args.vae_steps, minutes=args.minutes),
    "encode": lambda _: vae.encode_all(),
    "codes": lambda args: dit.train_codes(args.codes_steps, minutes=args.minutes),
    "dit": lambda args: dit.train(args.dit_steps, minutes=args.minutes),
    "finish": lambda args: finish.train(args.finish_steps, minutes=args.minutes),
    "export": lambda _: export.export(),
    "evaluate": lambda args: evaluate.evaluate(evaluate.LOOK_SEED if args.look else evaluate.TEST_SEED),
}


def main() -> None:
    """Runs one step, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m demo.training.songs", description=__doc__)
    parser.add_argument("step", choices=[*STEPS, "all"])
    parser.add_argument("--pieces", type=int, default=render.PIECES)
    parser.add_argument("--vae-steps", type=int, default=1100)
    parser.add_argument("--codes-steps", type=int, default=150)
    parser.add_argument("--dit-steps", type=int, default=1000)
    parser.add_argument("--finish-steps", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=600.0, help="Ends a training after so many minutes.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads.")
    parser.add_argument("--look", action="store_true", help="Evaluates captions other than the published ones.")
    args = parser.parse_args()
    prepare_cpu(args.threads)
    for name in STEPS if args.step == "all" else [args.step]:
        STEPS[name](args)


if __name__ == "__main__":
    main()
