"""The published planners of ACE-Step 1.5: where they are, and how much memory they take. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from models.acestep.catalog import LICENCE, MAIN_HUB_ID
from models.acestep.planner.config import PlannerConfig

_VOCABULARY: Final = 217_204
_CONTEXT: Final = 40_960


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerCard:
    """One published planner.

    Args:
        name: as a request gives it, and of its folder.
        hub_id: its repository.
        config: its sizes.
        least_gpu_bytes: of a GPU on which it is the default: it leaves room for the model that makes the song.
    """

    name: str
    hub_id: str
    config: PlannerConfig
    least_gpu_bytes: int

    @property
    def licence(self) -> str:
        return LICENCE

    @property
    def files_below(self) -> str:
        """The path of its files in its repository."""
        return f"{self.name}/" if self.hub_id == MAIN_HUB_ID else ""

    @property
    def download_bytes(self) -> int:
        """About what its first use downloads: weights in bfloat16."""
        return 2 * self.config.parameters

    @property
    def about(self) -> str:
        """One line for people."""
        return f"plans songs and writes their audio codes, {self.config.parameters / 1e9:.1f} B parameters"


def _make_card(size: str, hub_id: str, layers: int, widths: tuple[int, int, int], *, gpu_gb: int) -> PlannerCard:
    hidden_size, intermediate_size, num_heads = widths
    config = PlannerConfig(
        vocab_size=_VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=layers,
        num_heads=num_heads,
        num_kv_heads=8,
        head_dim=128,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        context=_CONTEXT,
        is_tied=True,
    )
    return PlannerCard(
        name=f"acestep-5Hz-lm-{size}", hub_id=hub_id, config=config, least_gpu_bytes=gpu_gb * 1_000_000_000
    )


CATALOG: tuple[PlannerCard, ...] = (
    _make_card("4B", "ACE-Step/acestep-5Hz-lm-4B", 36, (2560, 9728, 32), gpu_gb=24),
    _make_card("1.7B", MAIN_HUB_ID, 28, (2048, 6144, 16), gpu_gb=12),
    _make_card("0.6B", "ACE-Step/acestep-5Hz-lm-0.6B", 28, (1024, 3072, 16), gpu_gb=0),
)
"""The best first."""

BY_NAME = {card.name: card for card in CATALOG}


def find_catalog_name(name: str) -> str:
    """Returns the catalogue's name of `ACE-Step/acestep-5Hz-lm-4B`, `5Hz-lm-4B` and `4B`; others stay as they are."""
    short = name.removeprefix("ACE-Step/")
    candidates = (short, f"acestep-{short}", f"acestep-5Hz-lm-{short}")
    return next((candidate for candidate in candidates if candidate in BY_NAME), name)
