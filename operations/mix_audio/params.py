"""The parameters of `mix_audio`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from audio.dsp.master import EFFECTS, PresetName, find_effect_errors
from errors import sanitize, suggest_name
from operations.params import AudioField, AudioOutParams, Int, Item

MAX_TRACKS = 16
MAX_EFFECTS = 16

TrackName = Annotated[str, Field(min_length=1, max_length=64)]
EFFECT_SCHEMA: dict[str, Any] = {"properties": {"effect": {"enum": list(EFFECTS)}}, "required": ["effect"]}
Effects = Annotated[
    list[Annotated[dict[str, Any], Field(json_schema_extra=EFFECT_SCHEMA)]], Field(max_length=MAX_EFFECTS)
]


class Track(Item):
    """One track of a mix."""

    audio: AudioField = Field(description="The audio of the track.")
    name: TrackName | None = Field(
        None, description="Name of the track, for `duck_under` and the reply. Default: `track_1`, `track_2` and so on."
    )
    gain_db: float = Field(0.0, ge=-120, le=40, description="Gain of the track in dB.")
    pan: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="Position from left (-1) to right (1) at constant power. 0 leaves the audio as it is; at an end"
        " that side is 3 dB louder and the other silent.",
    )
    start_s: float = Field(0.0, ge=0, le=86_400, description="When the track starts, in seconds of the mix.")
    fade_in: float = Field(0.0, ge=0, le=3600, description="Length of the fade at its start, in seconds.")
    fade_out: float = Field(0.0, ge=0, le=3600, description="Length of the fade at its end, in seconds.")
    time_stretch: float = Field(
        1.0, ge=0.5, le=2, description="Tempo of the track as a factor; its pitch stays. 2 = twice as fast."
    )
    semitones: float = Field(0.0, ge=-24, le=24, description="Transposes the track; its tempo stays.")
    duck_under: TrackName | Annotated[Int, Field(ge=0, lt=MAX_TRACKS)] | None = Field(
        None,
        description="Name of another track, or its number from 0: this one gets quieter while that one sounds.",
    )
    duck_db: float = Field(9.0, ge=0, le=60, description="By how much it gets quieter at most, in dB.")
    duck_threshold_db: float = Field(
        -40.0,
        ge=-100,
        le=0,
        description="RMS level of the other track in dBFS, after its gain, above which this one gets quieter; from"
        " 12 dB above it on by the whole `duck_db`.",
    )
    duck_attack: float = Field(0.05, ge=0, le=10, description="Time constant of getting quieter, in seconds.")
    duck_release: float = Field(0.4, ge=0, le=10, description="Time constant of getting loud again, in seconds.")


class Params(AudioOutParams):
    """What to mix, and how."""

    tracks: list[Track] = Field(
        min_length=2,
        max_length=MAX_TRACKS,
        description="The tracks, each an object with `audio` and the fields below.",
    )
    master: PresetName | Effects | None = Field(
        None,
        description="Effects on the whole mix: a preset, or a list of objects, each with `effect` and its parameters."
        " Default: none.",
    )
    tail: float = Field(
        0.0,
        ge=0,
        le=60,
        description="Length added after the last track, in seconds, in which a reverb or delay fades away.",
    )

    def find_errors(self) -> Iterable[tuple[str, str]]:
        names = self.track_names()
        if len(set(names)) < len(names):
            yield "tracks", "has two tracks of one name"
        for index, track in enumerate(self.tracks):
            if track.duck_under is None:
                continue
            field, target = f"tracks.{index}.duck_under", self.find_duck_source(index)
            if target is None:
                hint = suggest_name(track.duck_under, names) if isinstance(track.duck_under, str) else ""
                yield field, f"is no track of this mix.{hint} Tracks: {', '.join(map(sanitize, names))}"
            elif target == index:
                yield field, "names the track itself; name another one"
        if isinstance(self.master, list):
            for path, problem in find_effect_errors(self.master):
                yield f"master.{path}", problem

    def track_names(self) -> list[str]:
        """The name of each track, given or by its number."""
        return [track.name or f"track_{number}" for number, track in enumerate(self.tracks, 1)]

    def find_duck_source(self, index: int) -> int | None:
        """The track under which another one ducks; None if there is none."""
        source, names = self.tracks[index].duck_under, self.track_names()
        if isinstance(source, str):
            return names.index(source) if source in names else None
        return source if source is not None and source < len(names) else None
