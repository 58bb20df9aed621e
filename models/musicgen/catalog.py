"""The published MusicGen and AudioGen checkpoints, as data. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NON_COMMERCIAL = "CC-BY-NC 4.0"
CODEC_HUB_ID = "facebook/encodec_32khz"
CODEC_BYTES = 236_000_000
DIFFUSION_HUB_ID = "facebook/multiband-diffusion"
DIFFUSION_FILE = "mbd_musicgen_32khz.th"
TEXT_ENCODERS: Mapping[str, int] = {
    "t5-small": 35,
    "t5-base": 110,
    "t5-large": 335,
    "t5-3b": 1241,
    "t5-11b": 4864,
    "google/flan-t5-small": 35,
    "google/flan-t5-base": 110,
    "google/flan-t5-large": 341,
    "google/flan-t5-xl": 1224,
    "google/flan-t5-xxl": 4762,
}
"""Repositories on the hub that audiocraft's T5 conditioner may name, each with its encoder's parameters in millions."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One published model.

    Args:
        name: what requests call it.
        hub_id: its repository on the Hugging Face hub.
        family: `musicgen` or `audiogen`.
        parameters: of the language model, in millions (from its dimensions; the nominal sizes leave out
            cross-attention).
        conditioning: `text`, `melody`, `style`.
        sample_rate: in Hz.
        channels: of its output.
        window: s, the longest clip generated at once; longer ones are continued window by window.
        text_encoder: one of `TEXT_ENCODERS`.
        unsupported: why it is not run; empty if it is.
    """

    name: str
    hub_id: str
    family: str
    parameters: int
    conditioning: tuple[str, ...] = ("text",)
    sample_rate: int = 32_000
    channels: int = 1
    window: float = 30.0
    text_encoder: str = "t5-base"
    unsupported: str = ""

    def memory_bytes(self, *, weight_bytes: int) -> int:
        """Estimates the memory of the loaded engine, with `weight_bytes` for each of the language model's weights."""
        return self.parameters * 1_000_000 * weight_bytes + TEXT_ENCODERS[self.text_encoder] * 4_000_000 + CODEC_BYTES

    @property
    def download_bytes(self) -> int:
        """About what a worker with none of its parts downloads: weights in float16, the codec, T5 with its decoder."""
        return self.parameters * 2_000_000 + TEXT_ENCODERS[self.text_encoder] * 8_000_000 + CODEC_BYTES

    @property
    def about(self) -> str:
        """One line for people."""
        sound = "sound effects" if self.family == "audiogen" else "music"
        inputs = " and ".join(self.conditioning)
        channels = "stereo" if self.channels == 2 else "mono"
        return f"{sound} from {inputs}, {self.sample_rate // 1000} kHz {channels}, {self.parameters} M parameters"


def _make_musicgen_card(name: str, parameters: int, *, melody: bool = False) -> ModelCard:
    return ModelCard(
        name=name,
        hub_id=f"facebook/musicgen-{name}",
        family="musicgen",
        parameters=parameters,
        conditioning=("text", "melody") if melody else ("text",),
        channels=2 if name.startswith("stereo-") else 1,
    )


CATALOG: tuple[ModelCard, ...] = (
    _make_musicgen_card("large", 3255),
    _make_musicgen_card("stereo-large", 3289),
    _make_musicgen_card("melody-large", 2450, melody=True),
    _make_musicgen_card("stereo-melody-large", 2483, melody=True),
    _make_musicgen_card("medium", 1837),
    _make_musicgen_card("stereo-medium", 1862),
    _make_musicgen_card("melody", 1372, melody=True),
    _make_musicgen_card("stereo-melody", 1397, melody=True),
    _make_musicgen_card("small", 419),
    _make_musicgen_card("stereo-small", 436),
    ModelCard(
        name="style",
        hub_id="facebook/musicgen-style",
        family="musicgen",
        parameters=1400,
        conditioning=("text", "style"),
        unsupported="needs the style conditioner of audiocraft 1.4, which was never released, and MERT's own code",
    ),
    ModelCard(
        name="audiogen-medium",
        hub_id="facebook/audiogen-medium",
        family="audiogen",
        parameters=1837,
        sample_rate=16_000,
        window=10.0,
        text_encoder="t5-large",
    ),
)
"""In the order in which a default model is chosen: the best first."""

BY_NAME = {card.name: card for card in CATALOG}


def find_catalog_name(name: str) -> str:
    """`facebook/musicgen-small`, `musicgen-small` and `small` are one; other names stay as they are."""
    short = name.removeprefix("facebook/")
    candidates = (short, short.removeprefix("musicgen-"))
    return next((candidate for candidate in candidates if candidate in BY_NAME), name)
