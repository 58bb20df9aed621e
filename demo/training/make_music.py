"""Makes the demo model from nothing: `python -m demo.training.make_music all`, or one step at a time."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from demo.training import checkpoint, clock, codec, evaluate, lm, render
from demo.training.captions import write_captions
from demo.training.compose import compose, encode_midi

STEP_COUNTS = {"codec": 2400, "lm": 2000, "clock": 1900, "more": 1250, "bare": 200, "finish": 3000}
PICTURE = Path(__file__).parents[1] / "spectrograms.png"


def _compose(args: argparse.Namespace) -> None:
    folder = render.BUILD / "midi"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(args.pieces):
        (folder / f"{seed:05}.mid").write_bytes(encode_midi(compose(seed)))


def _captions(args: argparse.Namespace) -> None:
    for seed in range(args.pieces):
        print(*write_captions(compose(seed), 3), sep="\n")


def _render(args: argparse.Namespace) -> None:
    render.render_all(args.pieces)


def _codec(args: argparse.Namespace) -> None:
    codec.train(args.codec_steps)


def _encode(_: argparse.Namespace) -> None:
    lm.encode_all()


def _lm(args: argparse.Namespace) -> None:
    lm.train(args.lm_steps)
    clock.graft(lm.T5_START, lm.T5_CLOCK)
    lm.train(args.clock_steps, lm.T5_CLOCK, peak_lr=1e-3, seed=1)
    lm.train(args.more_steps, lm.T5_CLOCK, peak_lr=8e-4, seed=2)
    _bare(args)


def _bare(args: argparse.Namespace) -> None:
    lm.train_on_sparse_pieces(args.bare_steps)


def _finish(args: argparse.Namespace) -> None:
    rows = lm.choose_decoder_rows(each=80)
    codec.finish_decoder(args.finish_steps, rows, lm.sample_predictions(lm.T5_CLOCK, rows), seed=1)


def _export(_: argparse.Namespace) -> None:
    checkpoint.export()


def _evaluate(args: argparse.Namespace) -> None:
    evaluate.evaluate(evaluate.LOOK_SEED if args.look else evaluate.TEST_SEED)
    if not args.look:
        evaluate.draw_picture(PICTURE)


def _all(args: argparse.Namespace) -> None:
    for step in (_render, _codec, _encode, _lm, _finish, _export, _evaluate):
        step(args)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "compose": _compose, "captions": _captions, "render": _render, "codec": _codec, "lm": _lm,
    "encode": _encode, "bare": _bare, "finish": _finish, "export": _export,
    "evaluate": _evaluate, "all": _all,
}  # fmt: skip


def main() -> None:
    """Read the step and its sizes from the command line and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--pieces", type=int, default=render.PIECES)
    for name, steps in STEP_COUNTS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--look", action="store_true", help="evaluate on the captions used while developing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    STEPS[args.step](args)


if __name__ == "__main__":
    main()
