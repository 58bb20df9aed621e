"""The published models of Beat This!. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

LICENCE = "MIT"
SOURCE = "https://github.com/CPJKU/beat_this"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One published model.

    Args:
        name: as its authors call it.
        about: one sentence.
        size: bytes of the weights in float32, about.
    """

    name: str
    about: str
    size: int

    @property
    def files(self) -> tuple[str, str]:
        """The names that its file may have: as it was published, and as the package `beat-this` saves it."""
        return f"{self.name}.ckpt", f"beat_this-{self.name}.ckpt"


# The best first.
CATALOG = {
    card.name: card
    for card in (
        ModelCard("final0", "Beats and downbeats of any music; 20 million parameters.", 81_000_000),
        ModelCard("final1", "As final0, trained from another seed.", 81_000_000),
        ModelCard("final2", "As final0, trained from another seed.", 81_000_000),
        ModelCard("small0", "Beats and downbeats; 2 million parameters, for a CPU.", 8_500_000),
        ModelCard("small1", "As small0, trained from another seed.", 8_500_000),
        ModelCard("small2", "As small0, trained from another seed.", 8_500_000),
    )
}
