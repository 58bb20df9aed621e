"""RVC voice conversion. Light to import: torch is imported when a voice is loaded."""

from models.rvc.family import RvcFamily
from models.rvc.voices import Voices

__all__ = ["RvcFamily", "Voices"]
