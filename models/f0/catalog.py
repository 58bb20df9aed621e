"""The f0 methods: what each needs, its licence, what it is good for. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 16_000
HOP_LENGTH = 160  # samples between frames: 100 frames per second
F0_MIN = 50.0  # Hz; the range that RVC asks its methods for
F0_MAX = 1100.0

DEFAULT_METHOD = "rmvpe"
RMVPE_FILE = "rmvpe.pt"
RMVPE_FILE_BYTES = 181_184_272
RMVPE_HUB_ID = "lj1995/VoiceConversionWebUI"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One method of f0 estimation.

    Args:
        name: as a request gives it.
        packages: what must be installed, by import name.
        install: those packages as pip names them.
        licence: of the weights, or of the code if it has no weights.
        about: one sentence.
        size: bytes of the weights in float32.
        estimator: `module:class`. It is imported when it is loaded, because it imports torch or its package.
    """

    name: str
    packages: tuple[str, ...]
    install: str
    licence: str
    about: str
    size: int
    estimator: str


_CREPE = (("torch", "torchcrepe"), "torchcrepe", "MIT")

CATALOG = {
    card.name: card
    for card in (
        ModelCard(
            "rmvpe",
            ("torch",),
            "torch",
            "MIT",
            "The usual choice: robust to noise and backing.",
            361_700_000,
            "models.f0.rmvpe:Rmvpe",
        ),
        ModelCard(
            "crepe",
            *_CREPE,
            "Precise on clean, dry voices; by far the slowest on a CPU.",
            89_000_000,
            "models.f0.crepe:Crepe",
        ),
        ModelCard(
            "crepe-tiny", *_CREPE, "The small CREPE: faster, less precise.", 2_000_000, "models.f0.crepe:CrepeTiny"
        ),
        ModelCard(
            "mangio-crepe",
            *_CREPE,
            "CREPE with `crepe_hop_length`; treats every frame as voiced.",
            89_000_000,
            "models.f0.crepe:MangioCrepe",
        ),
        ModelCard(
            "harvest",
            ("pyworld",),
            "pyworld-prebuilt",
            "BSD-3-Clause",
            "From WORLD: smooth, good on low notes.",
            0,
            "models.f0.harvest:Harvest",
        ),
        ModelCard(
            "pm",
            ("parselmouth",),
            "praat-parselmouth",
            "GPL-3.0",
            "Autocorrelation from Praat: the fastest.",
            0,
            "models.f0.praat:Praat",
        ),
        ModelCard(
            "fcpe",
            ("torch", "torchfcpe"),
            "torchfcpe",
            "MIT",
            "Fast and precise.",
            43_300_000,
            "models.f0.fcpe:Fcpe",
        ),
    )
}

METHODS = tuple(CATALOG)
