"""The parameters of generate_cover."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from errors import InvalidRequestError
from models.demo import F0_METHOD
from models.demucs.catalog import DEFAULT_MODEL
from models.f0.catalog import F0_MAX, F0_MIN
from models.f0.contour import parse_key
from operations.listening import AUTO
from operations.params import MAX_SEED, AudioField, AudioOutParams, Int

PART_FIELDS = ("voice_audio", "instrument_audio", "backup_audio")

F0Method = Literal["rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"]
Choice = Literal["auto", "on", "off"]
Semitones = Annotated[float, Field(ge=-12, le=12)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class Params(AudioOutParams):
    """The song, the voice, and how to convert and mix. Send either `audio`, or `voice_audio` and `instrument_audio`."""

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

    audio: AudioField | None = Field(
        None, description="A whole song, which is separated first. Use it in place of `voice_audio` and the rest."
    )
    voice_audio: AudioField | None = Field(None, description="The lead vocals alone.")
    instrument_audio: AudioField | None = Field(
        None, description="The instrumental. It must start at the same time as `voice_audio`."
    )
    backup_audio: AudioField | None = Field(None, description="Backing vocals, in addition to `voice_audio`.")
    voice_model: Name = Field(
        description="Name of the voice, as in `list_models`; or `hf://<user>/<repo>`, a voice on the"
        " Hugging Face hub, where `ALLOW_VOICE_UPLOAD=1`. Alias: `rvc_model`."
    )
    embedder: Name | None = Field(
        None,
        description="Content encoder that the voice was trained with: `contentvec`, `spin`, `chinese-hubert-base`,"
        " `japanese-hubert-base` or `korean-hubert-base`; the demo voices work with `demo-content-encoder` only."
        " Default: what the voice's `voice.json` or `.pth` states, else"
        " `contentvec`.",
    )
    pitch_adjust: Semitones | Literal["auto"] = Field(
        0.0,
        description="Transposes the vocals only, in semitones. 12 = one octave up. `auto` = to the voice's usual range,"
        " which `voice_f0_hz` or the voice's `voice.json` states.",
    )
    voice_f0_hz: float | None = Field(
        None,
        ge=F0_MIN,
        le=F0_MAX,
        description="The voice's usual pitch in Hz, the median of what it sings, for `pitch_adjust: auto`. Default:"
        " what the voice's `voice.json` states.",
    )
    pitch_change_all: float = Field(
        0.0, ge=-12, le=12, description="Transposes the whole song to another key, in semitones."
    )
    index_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How much of the timbre is retrieved from the voice's index. 0 = none, 1 = all. Higher values sound"
        " more like the voice and may blur the pronunciation.",
    )
    retrieval: Literal["exact", "ivf"] = Field(
        "ivf",
        description="How the index is searched: `ivf` searches the nearest clusters, as RVC does; `exact` searches all"
        " vectors and is slower.",
    )
    filter_radius: Int = Field(
        3, ge=0, le=7, description="Median filter of the f0 method `harvest`. 0 to 2 = off, 3 or more = on."
    )
    rms_mix_rate: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Loudness envelope of the converted vocals. 0 = follows the original vocals, 1 = the voice's own.",
    )
    protect: float = Field(
        0.33,
        ge=0,
        le=0.5,
        description="Protects consonants and breaths from index retrieval. 0 = full protection, 0.5 = off.",
    )
    f0_method: F0Method = Field(
        "rmvpe",
        description="How the pitch of the vocals is estimated; see `list_models`. With a demo voice the default is"
        f" `{F0_METHOD}`, which needs no download. Alias: `pitch_detection_algorithm`.",
    )
    crepe_hop_length: Int = Field(
        128,
        ge=16,
        le=1024,
        description="Step between pitch estimates of `mangio-crepe`, in samples at 16 kHz. Smaller steps are more"
        " precise and slower.",
    )
    f0_fill_gaps: bool = Field(
        False,
        description="Interpolate the pitch through consonants and breaths, as newer versions of RVC do. Can remove"
        " roughness at the ends of notes.",
    )
    autotune: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Moves the pitch towards the nearest note of `autotune_key`, after transposition. 0 = off, 1 = on"
        " the note.",
    )
    autotune_key: Name | None = Field(
        None,
        description="Key of the cover for `autotune`: `C major`, `F# minor`, `Am`, or `chromatic`; `auto`: the key that"
        " is heard in the song or its instrumental, with `pitch_change_all`. Default: chromatic.",
    )
    formant_shift: float = Field(
        0.0,
        ge=-12,
        le=12,
        description="Moves the formants, in semitones. Positive values sound smaller and brighter. The pitch stays.",
    )
    seed: Int = Field(
        0, ge=0, le=MAX_SEED, description="Seed of the voice's noise. The same request gives the same result."
    )
    reverb_rm_size: float = Field(
        0.15, ge=0, le=1, description="Room size of the reverb on the vocals. Alias: `reverb_size`."
    )
    reverb_wet: float = Field(0.2, ge=0, le=1, description="Level of the reverb. 0 = no reverb.")
    reverb_dry: float = Field(0.8, ge=0, le=1, description="Level of the vocals without reverb.")
    reverb_damping: float = Field(
        0.7, ge=0, le=1, description="Damping of high frequencies in the reverb. Higher values sound darker."
    )
    main_gain: float = Field(0.0, ge=-60, le=20, description="Gain of the lead vocals in dB, added to -4 dB.")
    backup_gain: float = Field(0.0, ge=-60, le=20, description="Gain of the backing vocals in dB, added to -6 dB.")
    inst_gain: float = Field(0.0, ge=-60, le=20, description="Gain of the instrumental in dB, added to -7 dB.")
    convert_backup: bool = Field(False, description="Convert the backing vocals to the new voice as well.")
    backup_pitch_adjust: Semitones | None = Field(
        None,
        description="Transposes converted backing vocals, in place of `pitch_adjust`. Default: as the lead vocals.",
    )
    backup_voice_model: Name | None = Field(
        None, description="Voice of converted backing vocals. Default: `voice_model`."
    )
    separation_model: Name | None = Field(
        None,
        description="Model that separates `audio`, as in `list_models`. Default: on a GPU a model of the role `vocals`,"
        f" if one is on this worker, else `{DEFAULT_MODEL}`, or without it the default of `separate`.",
    )
    lead_split: Choice = Field(
        "auto",
        description="Convert the lead vocal alone and leave the backing vocals of `audio` as they are. `auto` = if a"
        " model of the role `karaoke` is on this worker; without a GPU, only up to a minute of audio.",
    )
    karaoke_model: Name | None = Field(
        None,
        description="Model that splits lead and backing vocals. Default: one of the role `karaoke`, if it is here.",
    )
    dereverb: Choice = Field(
        "auto",
        description="Remove the reverb of the vocals before the conversion. `auto` = as for `lead_split`, with a model"
        " of the role `dereverb`.",
    )
    dereverb_model: Name | None = Field(
        None, description="Model that removes the reverb. Default: one of the role `dereverb`, if it is here."
    )
    reverb_return: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How much of the removed reverb goes back into the mix. 0 = none, 1 = all, at the lead's level.",
    )
    return_stems: bool = Field(
        False,
        description="Also return the lead vocals, backing vocals and instrumental as they are in the mix, and what the"
        " lead vocals were converted from.",
    )

    def find_errors(self) -> Iterable[tuple[str, str]]:
        parts = [name for name in PART_FIELDS if getattr(self, name) is not None]
        missing = [name for name in PART_FIELDS[:2] if name not in parts]
        if self.audio is not None and parts:
            yield "audio", f"cannot be used together with {' and '.join(parts)}; send the song or its parts"
        elif self.audio is None and len(missing) == 2:
            yield "audio", "is required, or 'voice_audio' and 'instrument_audio' are"
        elif self.audio is None and missing:
            yield missing[0], f"is required together with '{parts[0]}'; or send the whole song as 'audio'"
        try:
            parse_key(None if self.autotune_key == AUTO else self.autotune_key)
        except InvalidRequestError:
            yield "autotune_key", "must be a key such as 'C major', 'F# minor', 'Bb' or 'Am', 'chromatic' or 'auto'"
