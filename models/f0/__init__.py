"""Estimates the fundamental frequency of a voice, by one of seven methods, and changes f0 contours. Light to import."""

from models.f0.catalog import DEFAULT_METHOD, METHODS
from models.f0.estimator import F0Estimator
from models.f0.family import PitchFamily

__all__ = ["DEFAULT_METHOD", "METHODS", "F0Estimator", "PitchFamily"]
