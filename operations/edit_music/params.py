"""The parameters of edit_music."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from errors import sanitize, suggest_name
from models.acestep.metas import MAX_DURATION_S, TRACKS
from operations.clips import FinishingParams, Seeds
from operations.params import AudioField, AudioOutParams, Int, Text
from operations.songs.params import PlannerParams, SamplingParams, SongTextParams

EditTask = Literal["cover", "repaint", "lego", "extract", "complete"]

# The parameters that belong to some tasks only.
TASKS_OF: Mapping[str, tuple[EditTask, ...]] = {
    "audio_cover_strength": ("cover",),
    "repainting_start": ("repaint", "lego"),
    "repainting_end": ("repaint", "lego"),
    "repaint_strength": ("repaint",),
    "track": ("lego", "extract", "complete"),
    "tracks": ("complete",),
    "planner": ("lego", "complete"),
    "use_cot_caption": ("lego", "complete"),
    "use_cot_language": ("lego", "complete"),
}


def check_track(text: str) -> str:
    """The name of one of ACE-Step's tracks: `Backing Vocals` is `backing_vocals`.

    Raises:
        ValueError: there is no such track.
    """
    name = text.strip().lower().replace(" ", "_").replace("-", "_")
    if name not in TRACKS:
        raise ValueError(
            f"names '{sanitize(text)}', which is no track of ACE-Step.{suggest_name(name, TRACKS)} Its tracks: "
            f"{', '.join(TRACKS)}"
        )
    return name


Track = Annotated[str, Field(max_length=40), AfterValidator(check_track)]


class EditParams(AudioOutParams):
    """What is edited, and how."""

    audio: AudioField = Field(description=f"The recording to edit, at most {MAX_DURATION_S} s long.")
    task: EditTask = Field(
        description="`cover`: the song in another style; `repaint`: a part of it anew; `extract`: one track of it;"
        " `lego`: a new track for it; `complete`: new tracks around it. `extract`, `lego` and `complete` need a base"
        " model.",
    )
    model: str | None = Field(
        None,
        max_length=200,
        description="ACE-Step model, as in `list_models`. Default: the best one on this worker that does the task.",
    )
    prompt: Text = Field("", description="Describes the result. Alias: `description`.")
    track: Track | None = Field(
        None, description=f"The track to extract or to add: {', '.join(f'`{name}`' for name in TRACKS)}."
    )
    tracks: Annotated[list[Track], Field(min_length=1, max_length=len(TRACKS))] | None = Field(
        None, description="The tracks that `complete` adds."
    )
    repainting_start: float | None = Field(
        None,
        ge=-MAX_DURATION_S,
        le=MAX_DURATION_S,
        description="Start of the part that `repaint` (or `lego`) generates, in seconds. Below 0 the result begins"
        " earlier than the recording. Default: 0.",
    )
    repainting_end: float | None = Field(
        None,
        ge=-MAX_DURATION_S,
        le=MAX_DURATION_S,
        description="End of that part, in seconds. Beyond the recording's end the result is longer. Default: the end"
        " of the recording.",
    )
    repaint_strength: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How freely the new part is joined to the rest: 0 = closest to the recording, with long"
        " cross-fades; 1 = free. Outside the part, the result has the recording's own samples in any case.",
    )
    audio_cover_strength: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the steps in which `cover` follows the recording. 0.2 keeps only its style.",
    )
    style_audio: AudioField | None = Field(
        None, description="A recording whose timbre and style the result follows. Alias: `reference_audio`."
    )
    n_samples: Int = Field(1, ge=1, le=8, description="Number of results. `extract` gives one.")
    seed: Seeds | None = Field(
        None,
        description="Seed of the first result; each following one uses the next number. A list gives every result its"
        " own seed. Default: random; the reply has the seeds that were used.",
    )
    cfg_coef: float | None = Field(
        None,
        ge=0,
        le=30,
        description="How strictly the result follows the prompt (classifier-free guidance). 1 = no guidance. Default:"
        " the model's; turbo models have none. Alias: `guidance_scale`.",
    )
    partial: bool = Field(
        False, description="If the job's time runs out, return the results that are done, with a warning."
    )


class Params(FinishingParams, PlannerParams, SamplingParams, SongTextParams, EditParams):
    """What to edit, and how."""

    ALIASES = {
        "description": "prompt",
        "guidance_scale": "cfg_coef",
        "reference_audio": "style_audio",
    }

    @property
    def wanted_tracks(self) -> tuple[str, ...]:
        """The tracks of `track` and `tracks`, each once."""
        return tuple(dict.fromkeys([*([self.track] if self.track else []), *(self.tracks or [])]))

    def find_errors(self) -> Iterable[tuple[str, str]]:
        yield from self.find_sampling_errors()
        yield from self.find_text_errors()
        for name, tasks in TASKS_OF.items():
            is_given = name in self.model_fields_set and getattr(self, name) is not False
            if is_given and self.task not in tasks and not (name == "planner" and self.use_format):
                belongs = " and ".join(f"'{task}'" for task in tasks)
                yield name, f"has no effect on the task '{self.task}'; it belongs to {belongs}"
        if self.task in ("lego", "extract") and self.track is None:
            yield "track", f"is required for the task '{self.task}': {', '.join(TRACKS)}"
        if self.task == "complete" and not self.wanted_tracks:
            yield "tracks", f"is required for the task 'complete': a list of {', '.join(TRACKS)}"
        start, end = self.repainting_start or 0.0, self.repainting_end
        if end is not None and end <= start:
            yield "repainting_end", f"must be after 'repainting_start', {start:g} s"
        if self.task == "extract" and self.n_samples > 1:
            yield "n_samples", "must be 1 for the task 'extract', which has one result"
        if isinstance(self.seed, list) and len(self.seed) != self.n_samples:
            yield "seed", f"has {len(self.seed)} numbers for {self.n_samples} results; send one number, or one for each"
        if self.use_format and not (self.prompt.strip() or self.lyrics):
            yield "use_format", "needs a 'prompt' or 'lyrics' to rewrite"
