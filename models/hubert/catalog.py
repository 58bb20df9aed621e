"""The content encoders that RVC voices are trained with: all are a HuBERT-base. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models.demo import list_demos

DEFAULT_ENCODER = "contentvec"
OTHER_ENCODERS: Mapping[str, str] = MappingProxyType(
    {
        "spin": "HuBERT-base as trained by Spin, of voices trained with Applio.",
        "chinese-hubert-base": "HuBERT-base trained on Chinese speech.",
        "japanese-hubert-base": "HuBERT-base trained on Japanese speech.",
        "korean-hubert-base": "HuBERT-base trained on Korean speech.",
        **{name: card.about for name, card in list_demos("hubert").items()},
    }
)
"""What the encoders beside the default are. Their files are the user's: nothing of them is downloaded."""

ENCODERS = (DEFAULT_ENCODER, *OTHER_ENCODERS)
_ALIASES = {"hubertbase": DEFAULT_ENCODER}


def find_encoder(name: str) -> str | None:
    """The encoder that a voice or a request calls `name`, whatever its case and hyphens; None: it is not known."""
    plain = "".join(char for char in name.lower() if char.isalnum())
    names = {"".join(char for char in encoder if char.isalnum()): encoder for encoder in ENCODERS}
    return (names | _ALIASES).get(plain)
