"""The parameters of `analyze`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import Field

from models.f0.catalog import METHODS
from operations.params import AudioField, DeliveryParams

Feature = Literal[
    "tempo",
    "beats",
    "downbeats",
    "time_signature",
    "key",
    "chords",
    "loudness",
    "silence",
    "spectral",
    "clipping",
    "pitch",
]
FEATURES: tuple[Feature, ...] = get_args(Feature)
F0Method = Literal[METHODS]  # type: ignore[valid-type]


class Params(DeliveryParams):
    """What to analyse."""

    audio: AudioField = Field(description="The audio to analyse. Hours of audio are processed in bounded memory.")
    features: Annotated[list[Feature], Field(min_length=1, max_length=len(FEATURES))] | None = Field(
        None, description="What to tell; only that is computed. Default: everything but `pitch`."
    )
    pitch: bool = Field(
        False, description="Also tell the `pitch` of a solo voice or instrument: its median and its range."
    )
    f0_method: F0Method = Field(
        "pm",
        description="Method that estimates the pitch, as for `generate_cover`. `pm` and `harvest` need no weights.",
    )
    beat_model: str | None = Field(
        None,
        max_length=100,
        description="Model that finds beats and downbeats, as in `list_models` (`beat_models`), or `none`: signal"
        " processing. Default: the best one whose file is on this worker, else `none`.",
    )
    picture: bool = Field(
        False,
        description="Also return two PNG pictures in `files`: `waveform`, and `spectrogram` with beats and chords.",
    )
    silence_threshold_db: float = Field(
        -60.0, ge=-120, le=0, description="RMS level in dBFS below which audio is silent, for `silence`."
    )
    min_silence: float = Field(0.5, ge=0.05, le=60, description="Shortest span of silence that is listed, in seconds.")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if self.features is not None and len(set(self.features)) != len(self.features):
            yield "features", "lists a feature twice"
        if "f0_method" in self.model_fields_set and "pitch" not in self.list_features():
            yield "f0_method", "has no effect without 'pitch'; send \"pitch\": true"

    def list_features(self) -> frozenset[Feature]:
        """The features that the reply has."""
        chosen = set(FEATURES) - {"pitch"} if self.features is None else set(self.features)
        return frozenset(chosen | ({"pitch"} if self.pitch else set()))
