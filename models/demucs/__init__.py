"""Demucs: stems of a song, from the networks of the demucs package and our own engine around them."""

from models.demucs.family import DemucsFamily

__all__ = ["DemucsFamily"]
