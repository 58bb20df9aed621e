"""RVC: a voice in the place of another. Light: torch comes when a voice is loaded."""

from models.rvc.family import RvcFamily
from models.rvc.voices import Voices

__all__ = ["RvcFamily", "Voices"]
