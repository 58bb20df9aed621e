"""Makes a cover: a song, or its vocal and instrumental, sung by another voice (RVC) and mixed again, in time to the
sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from models import Models
from models.family import Readiness
from operations import _cover_plan
from operations._cover import PART_FIELDS, Cover
from operations.params import AudioOutParams, Int, LongAudioField
from worker.job import Job
from worker.reply import Output, Reply

ALIASES = ("generate_cover_from_separate_audio",)
OPTIONAL = True
"""A worker without voices is healthy: it may be there for music only."""

MAX_SEED = 2**53 - 1

F0Method = Literal["rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class Params(AudioOutParams):
    """What to sing, in which voice, and how to mix it."""

    AUTO_FORMATS = ("mp3",)
    ALIASES = {
        "rvc_model": "voice_model",
        "song_input": "audio",
        "vocal_audio": "voice_audio",
        "vocals_audio": "voice_audio",
        "instrumental_audio": "instrument_audio",
        "f0_up_key": "pitch_adjust",
        "pitch_detection_algorithm": "f0_method",
        "reverb_size": "reverb_rm_size",
        "reverb_wetness": "reverb_wet",
        "reverb_dryness": "reverb_dry",
        "main_vocals_volume_change": "main_gain",
        "backup_vocals_volume_change": "backup_gain",
        "instrumental_volume_change": "inst_gain",
    }

    audio: LongAudioField | None = Field(None, description="a whole song, separated first; or give the next two")
    voice_audio: LongAudioField | None = Field(None, description="the lead vocal alone")
    instrument_audio: LongAudioField | None = Field(None, description="the instrumental, which starts with the vocal")
    backup_audio: LongAudioField | None = Field(None, description="backing vocals, beside `voice_audio`")
    voice_model: Name = Field(description="the voice, as list_models names it (also `rvc_model`)")
    pitch_adjust: float = Field(0.0, ge=-12, le=12, description="semitones, the vocal alone; 12 is an octave up")
    pitch_change_all: float = Field(0.0, ge=-12, le=12, description="semitones, everything: another key")
    index_rate: float = Field(0.5, ge=0, le=1, description="how far the voice's index pulls the timbre towards it")
    retrieval: Literal["exact", "ivf"] = Field(
        "ivf", description="how the index is searched: `ivf` as RVC does, `exact` finds the nearest of all, slower"
    )
    filter_radius: Int = Field(3, ge=0, le=7, description="`harvest`: median filter of the pitch from 3 on")
    rms_mix_rate: float = Field(0.25, ge=0, le=1, description="0: loudness follows the vocal, 1: the voice's own")
    protect: float = Field(0.33, ge=0, le=0.5, description="of consonants and breath from the index; 0.5: none")
    f0_method: F0Method = Field("rmvpe", description="how the pitch is found (also `pitch_detection_algorithm`)")
    crepe_hop_length: Int = Field(128, ge=16, le=1024, description="`mangio-crepe`: samples at 16 kHz")
    f0_fill_gaps: bool = Field(False, description="draw the pitch through unvoiced sounds, as newer RVC does")
    autotune: float = Field(0.0, ge=0, le=1, description="how far each note is pulled to the scale, after transposing")
    autotune_key: Name | None = Field(
        None, description="of the cover: `C major`, `F# minor`, `Am`, `chromatic`; absent: chromatic"
    )
    formant_shift: float = Field(0.0, ge=-12, le=12, description="semitones by which the timbre sounds smaller")
    seed: Int = Field(0, ge=0, le=MAX_SEED, description="of the voice's noise; the same request gives the same bytes")
    reverb_rm_size: float = Field(0.15, ge=0, le=1, description="room size (also `reverb_size`)")
    reverb_wet: float = Field(0.2, ge=0, le=1, description="level of the reverb")
    reverb_dry: float = Field(0.8, ge=0, le=1, description="level of the voice beside it")
    reverb_damping: float = Field(0.7, ge=0, le=1, description="of the reverb's highs")
    main_gain: float = Field(0.0, ge=-60, le=20, description="dB, on top of the lead's -4 dB")
    backup_gain: float = Field(0.0, ge=-60, le=20, description="dB, on top of the backing vocals' -6 dB")
    inst_gain: float = Field(0.0, ge=-60, le=20, description="dB, on top of the instrumental's -7 dB")
    convert_backup: bool = Field(False, description="sing the backing vocals in the new voice too")
    separation_model: Name | None = Field(None, description="for `audio`: as list_models names it; absent: htdemucs")
    return_stems: bool = Field(False, description="also the lead, backing vocals and instrumental, as they are mixed")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        parts = [name for name in PART_FIELDS if getattr(self, name) is not None]
        missing = [name for name in PART_FIELDS[:2] if name not in parts]
        if self.audio is not None and parts:
            yield "audio", f"cannot be given together with {' and '.join(parts)}; give the song or its parts"
        elif self.audio is None and len(missing) == 2:
            yield "audio", "is needed, or 'voice_audio' and 'instrument_audio' are"
        elif self.audio is None and missing:
            yield missing[0], f"is needed beside '{parts[0]}'; or give the whole song as 'audio'"
        if not _cover_plan.is_key(self.autotune_key):
            yield "autotune_key", "must be a key such as 'C major', 'F# minor', 'Bb' or 'Am', or 'chromatic'"


def get_readiness(models: Models) -> Readiness:
    return _cover_plan.get_readiness(models)


def admit(params: Params, models: Models) -> None:
    """Refuses what cannot be sung here before any sound is fetched."""
    _cover_plan.planned(params, models)


def run(params: Params, job: Job, models: Models) -> Reply:
    """Looks up everything that the request names before anything is loaded; then separates, converts and mixes."""
    plan = _cover_plan.planned(params, models)
    _cover_plan.warn_of_what_is_idle(params, plan, job)
    cover = Cover(params, plan, job, models)
    parts = cover.parts()
    stems = cover.stems(parts, cover.sung(parts))
    return Reply(
        fields={"model_used": plan.voice.name},
        outputs=[Output(cover.mix(stems), f"cover_{plan.voice.name}")],
        stems={name: Output(stem, name) for name, stem in stems.items()} if params.return_stems else {},
        parameters=plan.parameters(),
    )
