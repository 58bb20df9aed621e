"""analyze: how accurate it is on pieces whose truth is known, and how long it takes, beside librosa's stock functions.

    python -m benchmarks.analyze                 # 200 pieces of 30 s
    python -m benchmarks.analyze --pieces 20     # fewer

The pieces are composed and rendered from seeds (needs fluidsynth and fluid-soundfont-gm, see demo/music.md); none of
the 200 was used while the analysis was developed. librosa's side: `beat.beat_track`, the mean of `feature.chroma_cqt`
against the Krumhansl-Kessler profiles, and its median between beats against the 24 major and minor triads. The time is
that of one minute of stereo at 44.1 kHz.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context

import numpy as np

from audio import Audio
from audio.analysis.chords import TRIADS
from audio.analysis.music import analyze_music
from audio.dsp.resample import resample
from audio.types import AudioSource
from benchmarks.common import SAMPLE_RATE, make_parser, name_device, print_result, set_up
from benchmarks.rendered_pieces import Estimate, Score, TimedChord, can_render, make_piece, score
from operations.analyze.run import count_clipping, list_silence, measure_loudness, measure_spectrum

FIRST_SEED = 1_700_000
LIBROSA_RATE = 22_050
MINUTE_S = 60.0
# Krumhansl and Kessler 1982.
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
TARGETS = {
    "tempo right": 0.90,
    "beats F": 0.85,
    "key right": 0.75,
    "key right, fifth or relative": 0.90,
    "chord roots": 0.60,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--pieces", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="another one for pieces to tune with")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="of each implementation on a minute; the best counts")
    options = parser.parse_args(arguments)
    if not can_render():
        sys.exit("FluidSynth or its soundfont was not found: install fluidsynth and fluid-soundfont-gm, and try again.")
    set_up(options)
    scores = measure_accuracy(options)
    ours, theirs = ([row[side] for row in scores] for side in (0, 1))
    figures, reference = summarize(ours), summarize(theirs)
    print_tables(figures, reference, ours)
    seconds, reference_seconds, levels_seconds = measure_time(options)
    print(f"\none minute: beats, key and chords {seconds:.2f} s, librosa {reference_seconds:.2f} s;", end=" ")
    print(f"loudness, silence, spectrum and clipping {levels_seconds:.2f} s more (at most 5 s together)")
    print_result(
        "analyze",
        device=name_device(options),
        ours=seconds,
        reference=reference_seconds,
        levels=round(levels_seconds, 2),
        pieces=len(scores),
        accuracy=figures,
        librosa=reference,
    )


def measure_accuracy(options: argparse.Namespace) -> list[tuple[Score, Score]]:
    """Our score and librosa's for each piece."""
    seeds = range(options.first_seed, options.first_seed + options.pieces)
    with get_context("spawn").Pool(options.processes) as pool:
        return pool.map(score_piece, seeds, chunksize=5)


def score_piece(seed: int) -> tuple[Score, Score]:
    piece = make_piece(seed)
    return score(piece, estimate(piece.audio)), score(piece, estimate_with_librosa(piece.audio))


def estimate(audio: Audio) -> Estimate:
    """What the worker says."""
    music = analyze_music(audio, lambda _: None)
    return Estimate(
        bpm=music.tempo.bpm if music.tempo else None,
        beats=music.beats.tolist(),
        downbeats=music.downbeats.tolist(),
        key=(music.keys[0].tonic, music.keys[0].mode) if music.keys else None,
        chords=[(one.start, one.end, one.root, TRIADS.get(one.quality, "")) for one in music.chords],
    )


def estimate_with_librosa(audio: Audio) -> Estimate:
    """What librosa's stock functions say; they find no downbeats."""
    import librosa

    waveform = resample(audio, LIBROSA_RATE).waveform.mean(axis=0)
    tempo, beats = librosa.beat.beat_track(y=waveform, sr=LIBROSA_RATE, units="time")
    chroma = librosa.feature.chroma_cqt(y=waveform, sr=LIBROSA_RATE)
    mean = chroma.mean(axis=1)
    keys = [(tonic, mode) for mode in PROFILES for tonic in range(12)]
    likeness = [np.corrcoef(np.roll(PROFILES[mode], tonic), mean)[0, 1] for tonic, mode in keys]
    edges = np.concatenate(([0.0], beats, [audio.duration]))
    frames = librosa.time_to_frames(edges, sr=LIBROSA_RATE)
    chords: list[TimedChord] = []
    for number in range(len(edges) - 1):
        if frames[number + 1] > frames[number]:
            median = np.median(chroma[:, frames[number] : frames[number + 1]], axis=1)
            sums = {
                (root, name): sum(median[(root + step) % 12] for step in steps)
                for name, steps in (("major", (0, 4, 7)), ("minor", (0, 3, 7)))
                for root in range(12)
            }
            root, name = max(sums, key=lambda one: sums[one])
            chords.append((float(edges[number]), float(edges[number + 1]), root, name))
    bpm = float(np.ravel(tempo)[0])
    return Estimate(bpm or None, list(beats), [], keys[int(np.argmax(likeness))], chords)


def summarize(scores: Sequence[Score]) -> dict[str, float]:
    """Shares and means over all pieces; those of keys and chords over the pieces that have them."""
    tonal = [one for one in scores if one.key is not None]

    def share(rows: Sequence[Score], is_good: Callable[[Score], bool]) -> float:
        return round(sum(map(is_good, rows)) / max(len(rows), 1), 3)

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / max(len(values), 1), 3)

    return {
        "tempo right": share(scores, lambda one: one.tempo == "right"),
        "tempo octave": share(scores, lambda one: one.tempo == "octave"),
        "beats F": mean([one.beats for one in scores]),
        "downbeats F": mean([one.downbeats for one in scores]),
        "key right": share(tonal, lambda one: one.key == "right"),
        "key right, fifth or relative": share(tonal, lambda one: one.key in ("right", "fifth", "relative")),
        "chord roots": mean([one.roots for one in tonal if one.roots is not None]),
        "chord triads": mean([one.triads for one in tonal if one.triads is not None]),
    }


def print_tables(ours: dict[str, float], reference: dict[str, float], scores: Sequence[Score]) -> None:
    print(f"{'':30} {'ours':>7} {'librosa':>8} {'target':>7}")
    for name, value in ours.items():
        target = f"{TARGETS[name]:7.2f}" if name in TARGETS else ""
        print(f"{name:30} {value:7.3f} {reference[name]:8.3f} {target}")
    print(f"\n{'arrangement':16} {'pieces':>6} {'tempo':>6} {'beats':>6} {'key':>6} {'roots':>6}")
    for arrangement in sorted({one.arrangement for one in scores}):
        rows = [one for one in scores if one.arrangement == arrangement]
        figures = summarize(rows)
        tonal = f"{figures['key right']:6.2f} {figures['chord roots']:6.2f}" if rows[0].key is not None else ""
        print(f"{arrangement:16} {len(rows):6} {figures['tempo right']:6.2f} {figures['beats F']:6.2f} {tonal}")


def measure_time(options: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds for a minute: ours, librosa's for the same, ours for all other features but the pitch."""
    pieces = [make_piece(options.first_seed + number).audio for number in range(2)]
    minute = np.concatenate([resample(piece, SAMPLE_RATE).waveform for piece in pieces], axis=1)
    audio = Audio(np.repeat(minute[:, : int(MINUTE_S * SAMPLE_RATE)], 2, axis=0), SAMPLE_RATE)

    def measure(work: Callable[[], object]) -> float:
        times = []
        for _ in range(options.runs):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    def measure_levels(source: AudioSource) -> None:
        measure_loudness(source)
        list_silence(source, threshold_db=-60.0, min_silence=0.5)
        measure_spectrum(source)
        count_clipping(source)

    return (
        measure(lambda: analyze_music(audio, lambda _: None)),
        measure(lambda: estimate_with_librosa(audio)),
        measure(lambda: measure_levels(audio)),
    )


if __name__ == "__main__":
    main()
