"""Audio in memory and on disk, audio files, and signal processing without neural networks."""

from audio.types import Audio

__all__ = ["Audio"]
