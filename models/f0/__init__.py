"""The fundamental frequency of a voice: seven ways to find it, and what is done to the curve. Light to import."""

from models.f0.catalog import DEFAULT_METHOD, METHODS
from models.f0.family import PitchFamily
from models.f0.tracker import Tracker

__all__ = ["DEFAULT_METHOD", "METHODS", "PitchFamily", "Tracker"]
