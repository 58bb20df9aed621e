"""Makes the demo MusicGen from nothing: `python -m demo.training.music all`, or one step at a time."""

import argparse
from collections.abc import Callable
from pathlib import Path

from demo.training.captions import write_captions
from demo.training.compose import compose, encode_midi
from demo.training.cpu import prepare_cpu
from demo.training.music import checkpoint, clock, codec, evaluate, lm, pieces, window_clock

STEP_COUNTS = {
    "codec": 2400,
    "lm": 2000,
    "clock": 1900,
    "more": 1250,
    "bare": 200,
    "extend": 350,
    "windows": 2200,
    "attacks": 1000,
    "finish": 3000,
}
PICTURE = Path(__file__).parents[2] / "music.png"


def _compose(args: argparse.Namespace) -> None:
    folder = pieces.BUILD / "midi"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(args.pieces):
        (folder / f"{seed:05}.mid").write_bytes(encode_midi(compose(seed)))


def _captions(args: argparse.Namespace) -> None:
    for seed in range(args.pieces):
        print(*write_captions(compose(seed), 3), sep="\n")


def _render(args: argparse.Namespace) -> None:
    pieces.render_all(args.pieces)


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


def _extend(args: argparse.Namespace) -> None:
    window_clock.extend(args.extend_steps)


def _windows(args: argparse.Namespace) -> None:
    lm.train_on_windows(args.windows_steps)


def _attacks(args: argparse.Namespace) -> None:
    lm.train_on_attacks(args.attacks_steps)


def _resume(_: argparse.Namespace) -> None:
    checkpoint.resume()


def _finish(args: argparse.Namespace) -> None:
    rows = lm.choose_decoder_rows(each=80)
    codec.finish_decoder(args.finish_steps, rows, lm.sample_predictions(lm.T5_WINDOW, rows), seed=1)


def _export(_: argparse.Namespace) -> None:
    checkpoint.export()


def _evaluate(args: argparse.Namespace) -> None:
    evaluate.evaluate(evaluate.LOOK_SEED if args.look else evaluate.TEST_SEED, share=args.share)
    if not args.look:
        evaluate.draw_picture(PICTURE)


def _all(args: argparse.Namespace) -> None:
    for step in (_render, _codec, _encode, _lm, _extend, _windows, _attacks, _finish, _export, _evaluate):
        step(args)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "compose": _compose, "captions": _captions, "render": _render, "codec": _codec, "lm": _lm,
    "encode": _encode, "bare": _bare, "resume": _resume, "extend": _extend, "windows": _windows,
    "attacks": _attacks, "finish": _finish, "export": _export, "evaluate": _evaluate, "all": _all,
}  # fmt: skip


def main() -> None:
    """Read the step and its sizes from the command line and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--pieces", type=int, default=pieces.PIECES)
    for name, steps in STEP_COUNTS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--look", action="store_true", help="evaluate on the captions used while developing")
    parser.add_argument("--share", type=float, default=1.0, help="part of the captions to evaluate on")
    args = parser.parse_args()
    prepare_cpu(args.threads)
    STEPS[args.step](args)


if __name__ == "__main__":
    main()
