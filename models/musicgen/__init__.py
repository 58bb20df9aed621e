"""MusicGen and its relatives (AudioGen), loaded from audiocraft's own checkpoint format."""

from models.musicgen.family import MusicGenFamily

__all__ = ["MusicGenFamily"]
