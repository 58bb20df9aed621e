"""Measures what the worker's own engine makes of captions that training never showed. Tempo is what librosa detects."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray

from demo.training.captions import write_captions
from demo.training.compose import Piece, compose
from demo.training.measures import follows_tempo, measure_flatness, measure_si_sdr_db
from demo.training.picture import write_spectrograms
from demo.training.songs import vae
from demo.training.songs.export import FOLDER
from demo.training.songs.render import BUILD, SAMPLE_RATE, load_audio, render
from models.acestep.catalog import TURBO
from models.acestep.codec import LatentCodec
from models.acestep.engine import AceStepEngine
from models.acestep.family import AceStepFamily
from models.acestep.metas import Metas
from models.acestep.request import DiffusionSampling, Song, SongRequest
from models.checkpoints.locations import WeightLocations

SECONDS = 30.0
LOOK_SEED, TEST_SEED = 800_000, 900_000  # of pieces that nothing is trained on: to look at in between, to publish
PICTURE = Path(__file__).parents[2] / "songs.png"
_GROUPS = (("drums", ("drums",), 6), ("pad", ("pad",), 6), ("band", ("full", "bass and drums", "piano", "solo"), 18))
_LOWEST, _HIGHEST = 70, 160
_HOP = 128
_ANALYSIS_RATE = 24_000
_SHOWN = (1, 8, 20)  # a drums-only, a pad and a band caption


@dataclass(frozen=True, slots=True)
class Measurement:
    """One song.

    Args:
        tempo: beats a minute in the whole.
        halves: in the first and in the second half.
        onset_rate: onsets a second.
        peak, rms: parts of full scale.
        flatness: 0 (tone) to 1 (noise).
    """

    group: str
    caption: str
    bpm: int
    tempo: float
    halves: tuple[float, float]
    onset_rate: float
    peak: float
    rms: float
    flatness: float

    @property
    def follows(self) -> bool:
        """Whether the tempo is the one that was asked for."""
        return follows_tempo(self.tempo, self.bpm)

    @property
    def keeps(self) -> bool:
        """Whether both halves have the same tempo."""
        return follows_tempo(*self.halves)


def draw_unseen(first_seed: int) -> list[tuple[str, str, Piece]]:
    """Draws 30 of (group, caption, piece); the tempi of each group are spread evenly over 70 to 160."""
    picked, seed = [], first_seed
    for group, arrangements, count in _GROUPS:
        for slot in range(count):
            low, high = (_LOWEST + (_HIGHEST - _LOWEST) * (slot + end) / count for end in (0, 1))
            while True:
                seed += 1
                piece = compose(seed)
                line = next((line for line in write_captions(piece) if str(piece.bpm) in line), "")
                if line and piece.arrangement in arrangements and low <= piece.bpm <= high:
                    picked.append((group, line, piece))
                    break
    return picked


def measure(group: str, caption: str, bpm: int, audio: NDArray[np.float32]) -> Measurement:
    """Measures mono audio `[T]` at 48 kHz."""
    clip = librosa.resample(audio, orig_sr=SAMPLE_RATE, target_sr=_ANALYSIS_RATE, res_type="soxr_hq")
    rises = compute_rises(clip)
    half = len(rises) // 2
    envelope = librosa.onset.onset_strength(y=clip, sr=_ANALYSIS_RATE)
    onsets = librosa.onset.onset_detect(onset_envelope=envelope, sr=_ANALYSIS_RATE)
    return Measurement(
        group,
        caption,
        bpm,
        estimate_tempo(rises),
        (estimate_tempo(rises[:half]), estimate_tempo(rises[half:])),
        len(onsets) / (len(clip) / _ANALYSIS_RATE),
        float(np.abs(audio).max()),
        float(np.sqrt(np.mean(audio**2))),
        measure_flatness(clip),
    )


def compute_rises(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes librosa's onset strength of `[T]` at 24 kHz, 188 frames a second."""
    return np.asarray(librosa.onset.onset_strength(y=clip, sr=_ANALYSIS_RATE, hop_length=_HOP), np.float32)


def estimate_tempo(rises: NDArray[np.float32]) -> float:
    """Estimates beats a minute by librosa's beat tracker."""
    tempo, _ = librosa.beat.beat_track(onset_envelope=rises, sr=_ANALYSIS_RATE, hop_length=_HOP)
    return float(np.ravel(tempo)[0])


def load_engine(folder: Path = FOLDER) -> AceStepEngine:
    """Loads the checkpoint as the worker does."""
    family = AceStepFamily(WeightLocations(explicit=folder.parent))
    return family.load(folder.name, device="cpu")


def generate(engine: AceStepEngine, caption: str, *, seed: int = 0, bpm: int | None = None) -> NDArray[np.float32]:
    """Generates 30 s with the model's defaults: `[T]`, mono (both channels are the same)."""
    sampling = DiffusionSampling(num_steps=TURBO.num_steps, cfg_coef=TURBO.cfg_coef, shift=TURBO.shift)
    song = Song(caption=caption, seed=seed, metas=Metas(bpm=bpm, duration=SECONDS))
    clip = engine.generate(SongRequest(songs=[song], duration=SECONDS, sampling=sampling)).clips[0]
    return np.asarray(clip.waveform[0], np.float32)


def evaluate(first_seed: int = TEST_SEED, folder: Path = FOLDER) -> dict[str, Any]:
    """Generates and measures 30 songs, prints tables and a last line of JSON, and draws the picture."""
    engine, asked = load_engine(folder), draw_unseen(first_seed)
    started = time.monotonic()
    clips = [generate(engine, caption, seed=index) for index, (_, caption, _) in enumerate(asked)]
    seconds = time.monotonic() - started
    rows = [measure(group, line, piece.bpm, clip) for (group, line, piece), clip in zip(asked, clips, strict=True)]
    print("| caption | asked | detected | halves | follows | keeps | onsets/s | peak | rms | flatness |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.caption} | {row.bpm} | {row.tempo:.1f} | {row.halves[0]:.1f}, {row.halves[1]:.1f} "
            f"| {_say(row.follows)} | {_say(row.keeps)} | {row.onset_rate:.1f} | {row.peak:.2f} | {row.rms:.3f} "
            f"| {row.flatness:.3f} |"
        )
    summary: dict[str, Any] = {
        "songs": summarise(rows),
        "renders": measure_renders(first_seed),
        "vae": measure_vae(engine.codec),
    }
    summary |= {"seconds_for_30": round(seconds, 1), "captions_from": first_seed}
    (BUILD / f"evaluated_{first_seed}.json").write_text(json.dumps([asdict(row) for row in rows]))
    np.save(BUILD / f"evaluated_{first_seed}.npy", np.stack(clips).astype(np.float16))
    if first_seed == TEST_SEED:
        shown = [librosa.resample(clips[index], orig_sr=SAMPLE_RATE, target_sr=32_000) for index in _SHOWN]
        write_spectrograms(PICTURE, shown)
    print(json.dumps(summary))
    return summary


def measure_renders(first_seed: int) -> dict[str, Any]:
    """Measures FluidSynth's renders of the pieces that the captions describe: what the measures give at best."""
    path = BUILD / f"renders_{first_seed}.json"
    if not path.exists():
        rows = [
            measure(group, line, piece.bpm, np.asarray(render(piece.seed) / 32768, np.float32))
            for group, line, piece in draw_unseen(first_seed)
        ]
        path.write_text(json.dumps(summarise(rows)))
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def _say(yes: bool) -> str:
    return "yes" if yes else "no"


def summarise(rows: list[Measurement]) -> dict[str, Any]:
    """Counts the songs that follow and keep their tempo, and summarises levels."""
    rate = {group: np.mean([row.onset_rate for row in rows if row.group == group]) for group, _, _ in _GROUPS}
    return {
        "of": len(rows),
        "tempo_followed": sum(row.follows for row in rows),
        "tempo_kept": sum(row.keeps for row in rows),
        **{f"{group}_onsets_per_s": round(float(value), 2) for group, value in rate.items()},
        "lowest_rms": round(min(row.rms for row in rows), 3),
        "highest_peak": round(max(row.peak for row in rows), 3),
        "highest_flatness": round(max(row.flatness for row in rows), 3),
    }


def measure_vae(codec: LatentCodec) -> dict[str, float]:
    """Compares held-out pieces with what the VAE makes of them.

    Returns:
        `log_mel_db`: mean distance of mel bands, in dB. `si_sdr_db`: scale-invariant signal-to-distortion ratio.
    """
    distances, ratios = [], []
    for clip in load_audio()[: vae.HELD_OUT]:
        audio = clip[: 10 * SAMPLE_RATE].astype(np.float32) / 32768
        decoded = codec.decode(codec.encode(torch.from_numpy(np.stack([audio, audio]))))[0, : len(audio)].numpy()
        mels = [_compute_log_mel(part) for part in (audio, decoded)]
        distances.append(float(np.abs(mels[0] - mels[1]).mean()))
        ratios.append(measure_si_sdr_db(decoded, audio))
    return {"log_mel_db": round(float(np.mean(distances)), 2), "si_sdr_db": round(float(np.mean(ratios)), 2)}


def _compute_log_mel(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    mel = librosa.feature.melspectrogram(y=audio, sr=SAMPLE_RATE, n_mels=96)
    return np.asarray(librosa.power_to_db(mel, ref=1.0, amin=1e-6), np.float32)
