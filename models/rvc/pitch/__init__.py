"""The fundamental frequency of a voice: seven ways to find it, and what is done to the curve. Light to import."""

from models.rvc.pitch.catalog import DEFAULT_METHOD, METHODS
from models.rvc.pitch.family import PitchFamily
from models.rvc.pitch.tracker import Tracker

__all__ = ["DEFAULT_METHOD", "METHODS", "PitchFamily", "Tracker"]
