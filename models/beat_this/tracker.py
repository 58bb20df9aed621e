"""Beats and downbeats of audio of any length by Beat This!: spectrogram, network in chunks, peaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from audio.analysis.frames import ANALYSIS_RATE, Floats, Spectra, iter_mono
from audio.analysis.rhythm import TrackedBeats
from audio.types import AudioSource
from models.beat_this.network import NUM_MELS, BeatThisNetwork
from models.checkpoints.tensor_loader import read_tensors
from models.device import prepare_device
from models.runtime.mel_scale import hz_to_slaney_mel, slaney_mel_to_hz
from models.runtime.progress import Progress, sub_progress

FRAME_LENGTH, HOP_LENGTH = 1024, 441
FRAME_RATE = ANALYSIS_RATE / HOP_LENGTH  # 50 frames per second
CHUNK_FRAMES = 1500  # as it was trained
BORDER_FRAMES = 6  # at each end of a chunk, which the network was not trained on
_LOWEST_HZ, _HIGHEST_HZ = 30.0, 11_000.0
_COMPRESSION = 1000.0
_PEAK_REACH = 3  # frames in which there is only one beat
_READING_SHARE = 0.2  # of the progress


class BeatTracker:
    """A loaded model.

    Args:
        network: of any size.
        device: where it runs.
    """

    def __init__(self, network: BeatThisNetwork, device: str) -> None:
        self._network, self._device = network, device

    @classmethod
    def load(cls, path: Path, *, device: str) -> BeatTracker:
        """Loads a published checkpoint.

        Raises:
            CheckpointError: the file cannot be read, or is not one of Beat This!.
        """
        prepare_device(device)
        return cls(BeatThisNetwork(read_tensors(path), device), device)

    @property
    def memory_bytes(self) -> int:
        """Bytes of its weights."""
        return sum(weight.nbytes for weight in self._network.parameters())

    def warm_up(self) -> None:
        """Runs the network once."""
        self.predict(np.zeros((CHUNK_FRAMES, NUM_MELS), np.float32), lambda _: None)

    def track(self, source: AudioSource, progress: Progress) -> TrackedBeats:
        """Beats and downbeats of at least a second of audio.

        Args:
            progress: called with the finished fraction; what it raises ends the work.
        """
        mel = measure_log_mel(source, sub_progress(progress, 0.0, _READING_SHARE))
        return find_peaks(self.predict(mel, sub_progress(progress, _READING_SHARE, 1.0)))

    def predict(self, mel: Floats, progress: Progress) -> Floats:
        """Logits of a beat and of a downbeat in each frame.

        Args:
            mel: `[T, 128]`.

        Returns:
            `[T, 2]`. Chunks overlap by their borders, and where more is known of a frame the earlier chunk counts.
        """
        total = len(mel)
        logits = np.full((total, 2), -1000.0, np.float32)
        starts = list(range(-BORDER_FRAMES, total - BORDER_FRAMES, CHUNK_FRAMES - 2 * BORDER_FRAMES))
        if total > CHUNK_FRAMES - 2 * BORDER_FRAMES:
            starts[-1] = total - (CHUNK_FRAMES - BORDER_FRAMES)
        known = 0
        for number, start in enumerate(starts):
            progress(number / len(starts))
            chunk = np.pad(
                mel[max(start, 0) : start + CHUNK_FRAMES],
                ((max(-start, 0), min(max(start + CHUNK_FRAMES - total, 0), BORDER_FRAMES)), (0, 0)),
            )
            predicted = self._network(torch.from_numpy(chunk)[None].to(self._device))[0].float().cpu().numpy()
            inside = predicted[BORDER_FRAMES:-BORDER_FRAMES]
            first = start + BORDER_FRAMES
            logits[known : first + len(inside)] = inside[known - first :]
            known = first + len(inside)
        progress(1.0)
        return logits


def measure_log_mel(source: AudioSource, progress: Progress) -> Floats:
    """Log-mel spectrogram `[T, 128]` at 50 frames a second; both ends of the audio are mirrored."""
    reach = FRAME_LENGTH // 2
    weights = _mel_weights() * np.float32(_COMPRESSION * FRAME_LENGTH**0.5 / 4)
    rows: list[Floats] = []
    spectra: Spectra | None = None
    pending = np.zeros(0, np.float32)
    for block in iter_mono(source, ANALYSIS_RATE, progress):
        pending = np.concatenate((pending, block))
        if len(pending) > reach + FRAME_LENGTH:
            ready, pending = pending[:-FRAME_LENGTH], pending[-FRAME_LENGTH:]
            if spectra is None:
                spectra = Spectra(FRAME_LENGTH, HOP_LENGTH, before=ready[reach:0:-1])
            rows += [np.log1p(part @ weights) for part in spectra.push(ready)]
    if spectra is None:
        spectra = Spectra(FRAME_LENGTH, HOP_LENGTH, before=pending[reach:0:-1])
    ending = np.concatenate((pending, pending[-2 : -reach - 2 : -1]))
    rows += [np.log1p(part @ weights) for part in spectra.push(ending)]
    return np.concatenate(rows)


def _mel_weights() -> Floats:
    """`[513, 128]` triangles of height 1 on Slaney's mel scale."""
    hz = np.fft.rfftfreq(FRAME_LENGTH, 1 / ANALYSIS_RATE)
    lowest, highest = hz_to_slaney_mel(np.array([_LOWEST_HZ, _HIGHEST_HZ]))
    edges = slaney_mel_to_hz(np.linspace(float(lowest), float(highest), NUM_MELS + 2))
    rising = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def find_peaks(logits: Floats) -> TrackedBeats:
    """The frames in which a beat or a downbeat is likelier than none, and likelier than within 60 ms around."""
    values = torch.from_numpy(logits).T
    highest = F.max_pool1d(values[None], 2 * _PEAK_REACH + 1, 1, _PEAK_REACH)[0]
    is_peak = ((values == highest) & (values > 0)).numpy()
    beats, downbeats = (np.array(list(_merge(np.flatnonzero(row)))) / FRAME_RATE for row in is_peak)
    if not len(beats):
        return TrackedBeats(beats, beats)
    nearest = np.abs(downbeats[:, None] - beats).argmin(axis=1) if len(downbeats) else np.zeros(0, int)
    return TrackedBeats(beats, beats[np.unique(nearest)])


def _merge(frames: NDArray[np.int64]) -> Iterator[float]:
    """The frames, neighbours as their mean."""
    for group in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
        if len(group):
            yield float(group.mean())
