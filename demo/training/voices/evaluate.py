"""Measures the demo voices on unseen lines of the singers that they are not made of, by the worker's own pipeline."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import parselmouth
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from audio.types import Audio
from demo.training.singing import SAMPLE_RATE, SINGERS, TARGETS, SungLine
from demo.training.voices.data import (
    BUILD,
    F0_RATE,
    INPUT_RATE,
    SOURCES,
    TEST_PIECES,
    TEST_SEED,
    label_frames,
    sing_piece,
)
from demo.training.voices.judges import HOP_LENGTH, Judge, classify, load_judges, recognise
from models.demo import CONTENT_ENCODER, F0_METHOD
from models.f0.contour import quantize_f0
from models.registry import build
from models.runtime.progress import ignore_progress
from models.rvc.checkpoint import read_checkpoint
from models.rvc.converter import ConversionSettings, VoiceConverter
from models.rvc.excitation import accumulate_phase, generate_sine
from models.rvc.preprocess import preprocess
from models.rvc.synthesizer import Synthesizer
from testing.rvc_reference import Noise, rvc_python
from testing.tiny_rvc import write_hubert_file

SECONDS = 6.0
BOUNDS = {"cents": 30.0, "phonemes": 0.15, "target": 0.9}

Waveform = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Measure:
    """One converted line.

    Args:
        cents: median deviation of f0 from the truth after the shift, in frames voiced in both.
        cents_90: the deviation that 90 % of these frames stay below.
        voiced: share of the line's voiced frames that are voiced in the conversion.
        before, after: share of frames whose phoneme is recognised, in the line and in its conversion.
        singer: as the classifier names the conversion.
    """

    source: str
    semitones: int
    cents: float
    cents_90: float
    voiced: float
    before: float
    after: float
    singer: str


class Pipeline:
    """The worker's engines for one demo voice, on the CPU."""

    def __init__(self, voice: str) -> None:
        families = build(device="cpu").families
        self._f0 = families.f0.load(F0_METHOD, device="cpu")
        self._encoder = families.content_encoders.load(CONTENT_ENCODER, device="cpu")
        self._converter: VoiceConverter = families.voices.load(voice, device="cpu")

    def convert(self, audio: Waveform, semitones: float) -> tuple[Waveform, int]:
        """Converts `[T]` at 44.1 kHz as `generate_cover` does by default; returns `[T]` and its sample rate."""
        vocal = preprocess(Audio(audio[None], SAMPLE_RATE), ignore_progress)
        f0 = self._f0.estimate(vocal.waveform, hop_length=128, filter_radius=3, progress=ignore_progress)
        settings = ConversionSettings(semitones=semitones)
        blocks = self._converter.convert(vocal, f0, self._encoder, settings=settings, progress=ignore_progress)
        return np.concatenate([block[0] for block in blocks]), self._converter.sample_rate


def evaluate(count: int = TEST_PIECES, folder: Path = BUILD / "converted") -> bool:
    """Converts `count` lines to each voice, into `folder`; prints a table for each and whether the bounds are met."""
    folder.mkdir(parents=True, exist_ok=True)
    recogniser, classifier = load_judges()
    _judge_real_lines(recogniser, classifier)
    sources = [source for source, _ in zip(cycle(SOURCES), range(count), strict=False)]
    lines = [sing_piece(TEST_SEED + number, source, SECONDS) for number, source in enumerate(sources)]
    is_met = True
    for target in TARGETS:
        pipeline, measures = Pipeline(f"demo-{target}"), []
        print(f"\n| demo-{target} from | semitones | f0, cents | 90 % | voiced | phonemes before | after | heard as |")
        print("|---|---|---|---|---|---|---|---|")
        for number, (source, line) in enumerate(zip(sources, lines, strict=True)):
            semitones = round(SINGERS[target].centre - SINGERS[source].centre)
            converted, rate = pipeline.convert(line.audio, semitones)
            soundfile.write(folder / f"{target}-{number:02}-{source}.wav", converted, rate)
            one = _measure(line, converted, rate, source, semitones, recogniser, classifier)
            measures.append(one)
            print(
                f"| {source} | {semitones:+} | {one.cents:.1f} | {one.cents_90:.0f} | {one.voiced:.2f} "
                f"| {one.before:.3f} | {one.after:.3f} | {one.singer} |",
                flush=True,
            )
        is_met &= _summarise(target, measures)
        print(f"\nLargest difference from rvc-python's network: {compare_networks(target):.2e}", flush=True)
    return is_met


def _measure(  # noqa: PLR0913
    line: SungLine,
    converted: Waveform,
    rate: int,
    source: str,
    semitones: int,
    recogniser: Judge,
    classifier: Judge,
) -> Measure:
    heard = soxr.resample(converted, rate, INPUT_RATE, quality="HQ").astype(np.float32)
    times, hz = track_f0(heard)
    frames = np.clip(np.round(times * F0_RATE).astype(int), 0, len(line.f0) - 1)
    truth = line.f0[frames] * 2 ** (semitones / 12)
    both = (hz > 0) & (truth > 0)
    cents = np.abs(1200 * np.log2(hz[both] / truth[both]))
    original = soxr.resample(line.audio, SAMPLE_RATE, INPUT_RATE, quality="HQ").astype(np.float32)
    return Measure(
        source,
        semitones,
        float(np.median(cents)),
        float(np.percentile(cents, 90)),
        float(both.sum() / (truth > 0).sum()),
        score_phonemes(recogniser, original, line),
        score_phonemes(recogniser, heard, line),
        classify(classifier, heard),
    )


def track_f0(waveform: Waveform) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in seconds and f0 in Hz, 0 = unvoiced, by Praat's autocorrelation, which the pipeline does not use here."""
    sound = parselmouth.Sound(waveform.astype(np.float64), INPUT_RATE)
    pitch = sound.to_pitch_ac(time_step=1 / F0_RATE, pitch_floor=50, pitch_ceiling=1100)
    return pitch.xs(), pitch.selected_array["frequency"]


def score_phonemes(recogniser: Judge, waveform: Waveform, line: SungLine) -> float:
    """Share of the frames that are not silent whose phoneme is recognised."""
    found = recognise(recogniser, waveform)
    labels = label_frames(line)
    frames = np.arange(len(found)) * HOP_LENGTH * F0_RATE // INPUT_RATE
    found, labels = found[frames < len(labels)], labels[frames[frames < len(labels)]]
    sung = labels > 0
    return float(np.mean(found[sung] == labels[sung]))


def _judge_real_lines(recogniser: Judge, classifier: Judge) -> None:
    """Prints how often the judges are right on unseen lines of every singer."""
    right, scores = 0, []
    lines = [(name, sing_piece(TEST_SEED + 100 + number, name, SECONDS)) for number, name in enumerate(SINGERS)]
    for name, line in lines:
        waveform = soxr.resample(line.audio, SAMPLE_RATE, INPUT_RATE, quality="HQ").astype(np.float32)
        scores.append(score_phonemes(recogniser, waveform, line))
        right += classify(classifier, waveform) == name
    print(f"On {len(lines)} real lines: phonemes {np.mean(scores):.3f} right, singers {right} right")


def _summarise(target: str, measures: list[Measure]) -> bool:
    cents = float(np.median([one.cents for one in measures]))
    worst = max(one.cents for one in measures)
    drop = float(np.mean([one.before - one.after for one in measures]))
    share = float(np.mean([one.singer == target for one in measures]))
    rows = (
        ("f0, median of the lines' medians (worst line)", f"{cents:.1f} ({worst:.1f}) cents", worst <= BOUNDS["cents"]),
        ("drop of phoneme accuracy, mean", f"{100 * drop:.1f} points", drop <= BOUNDS["phonemes"]),
        (f"heard as {target}", f"{100 * share:.0f} %", share >= BOUNDS["target"]),
    )
    print("\n| bound | measured | met |\n|---|---|---|")
    for name, measured, is_met in rows:
        print(f"| {name} | {measured} | {'yes' if is_met else 'no'} |")
    return all(is_met for _, _, is_met in rows)


@torch.inference_mode()
def compare_networks(target: str) -> float:
    """The largest difference of a sample from rvc-python's own network, with the same weights, input and noise."""
    voice = build(device="cpu").families.voices.find(f"demo-{target}")
    ours = Synthesizer(read_checkpoint(voice.checkpoint), precision="float32")
    frames, noise = 60, Noise(seed=2)
    features = 0.3 * torch.randn(1, frames, ours.width, generator=torch.Generator().manual_seed(1))
    f0 = np.full(frames, voice.f0_hz or 220.0, np.float32)
    f0[20:25] = 0
    pitch = torch.from_numpy(quantize_f0(f0))[None]
    with (
        tempfile.TemporaryDirectory() as folder,
        rvc_python(write_hubert_file(Path(folder) / "hubert.pt")) as reference,
    ):
        reference.load(voice.checkpoint.parent)
        given = [features, torch.tensor([frames]), pitch, torch.from_numpy(f0)[None], torch.tensor([0])]
        expected = reference.synthesize(*given, noise=noise)[:, 0]
    latents = ours.sample_latents(features, pitch, noise.drawn[0])
    phase = torch.from_numpy(accumulate_phase(f0, F0_RATE))[None]
    sine = generate_sine(
        torch.from_numpy(f0)[None], phase, noise.drawn[1].view(1, frames, -1), sample_rate=ours.sample_rate
    )
    return float((ours.decode(latents, ours.project_excitation(sine)) - expected).abs().max())
