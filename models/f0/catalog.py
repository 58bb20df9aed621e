"""The methods that find f0: what each needs, under which licence, and what it is good for. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SAMPLE_RATE: Final = 16_000
HOP_LENGTH: Final = 160  # samples between frames: 100 frames per second
F0_MIN: Final = 50.0  # Hz; the range that RVC asks its methods for
F0_MAX: Final = 1100.0

DEFAULT_METHOD: Final = "rmvpe"
RMVPE_FILE: Final = "rmvpe.pt"
RMVPE_HUB_ID: Final = "lj1995/VoiceConversionWebUI"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to find f0.

    Args:
        name: as a request gives it.
        packages: what must be installed, by import name.
        install: those packages by the names that an installer knows.
        licence: of the weights, or of the code where there are none.
        about: one sentence.
        size: bytes of the weights in float32.
    """

    name: str
    packages: tuple[str, ...]
    install: str
    licence: str
    about: str
    size: int


_CREPE = (("torch", "torchcrepe"), "torchcrepe", "MIT")

CATALOG: Final = {
    method.name: method
    for method in (
        Method("rmvpe", ("torch",), "torch", "MIT", "The usual choice: sure in noise and with backing.", 361_700_000),
        Method("crepe", *_CREPE, "Precise on clean, dry voices; by far the slowest without a GPU.", 89_000_000),
        Method("crepe-tiny", *_CREPE, "The small CREPE: faster, less sure.", 2_000_000),
        Method("mangio-crepe", *_CREPE, "CREPE at a hop of your own; calls every frame voiced.", 89_000_000),
        Method("harvest", ("pyworld",), "pyworld-prebuilt", "BSD-3-Clause", "WORLD's; smooth, good low notes.", 0),
        Method("pm", ("parselmouth",), "praat-parselmouth", "GPL-3.0", "Praat's autocorrelation: the fastest.", 0),
        Method("fcpe", ("torch", "torchfcpe"), "torchfcpe", "MIT", "Fast and precise.", 43_300_000),
    )
}  # fmt: skip

METHODS: Final = tuple(CATALOG)
