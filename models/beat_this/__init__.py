"""Beat This!: a transformer that finds beats and downbeats (Foscarin, Schlueter and Widmer, ISMIR 2024)."""

from models.beat_this.family import BeatThisFamily, BeatThisInfo

__all__ = ["BeatThisFamily", "BeatThisInfo"]
