"""Covers of whole songs that convert the dry lead vocal: routes, gates, the sum of all parts, with fake models."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from errors import CancelledError, ErrorCode, InvalidRequestError, ModelError, UnknownNameError
from models import Models
from models.family import DOWNLOAD
from operations.generate_cover import Params, plan
from testing.dispatch import answer
from testing.fake_separation import FakeSeparationFamily, FakeSeparationModel
from testing.fake_voices import Calls, FakeEncoderFamily, FakeF0Family, FakeVoiceFamily, fake_models
from testing.models import make_models
from worker.settings import Settings

Waveform = NDArray[np.float32]
RATE = 44_100
SECONDS = 2.0
FLOAT: dict[str, Any] = {"output_format": "wav", "bit_depth": 32, "return_stems": True}


def make_noise(seed: int, level: float = 0.05, seconds: float = SECONDS) -> Waveform:
    noise = np.random.default_rng(seed).standard_normal((2, round(RATE * seconds)))
    return (level * noise).astype(np.float32)


def make_parts(*, backing: float = 0.03, reverb: float = 0.01) -> dict[str, Waveform]:
    """Parts of a song with these levels of the two that may be missing."""
    return {
        "instrumental": make_noise(1),
        "backing": make_noise(2, backing),
        "dry": make_noise(3),
        "reverb": make_noise(4, reverb),
    }


def chain_models(parts: Mapping[str, Waveform]) -> dict[str, FakeSeparationModel]:
    """A model of each role that finds its part exactly."""
    lead = parts["dry"] + parts["reverb"]
    vocals = lead + parts["backing"]
    return {
        "separator": FakeSeparationModel("vocals", {"Vocals": vocals, "other": parts["instrumental"]}),
        "splitter": FakeSeparationModel("karaoke", {"karaoke": lead}),
        "dereverberator": FakeSeparationModel("dereverb", {"noreverb": parts["dry"], "reverb": parts["reverb"]}),
    }


def heads_models(parts: Mapping[str, Waveform]) -> dict[str, FakeSeparationModel]:
    lead = parts["dry"] + parts["reverb"]
    stems = {"back-vocal": parts["backing"], "bass": lead, "lead-vocal": lead, "vocal": lead + parts["backing"]}
    return {
        "mega": FakeSeparationModel("stems", stems),
        "dereverberator": FakeSeparationModel("dereverb", {"dry": parts["dry"], "other": parts["reverb"]}),
    }


def make_song(parts: Mapping[str, Waveform]) -> Waveform:
    return np.asarray(np.sum(list(parts.values()), axis=0), np.float32)


def encode_wav(waveform: Waveform, sample_rate: int = RATE) -> str:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, sample_rate, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def decode_audio(artefact: Mapping[str, Any]) -> Waveform:
    waveform, _ = soundfile.read(
        io.BytesIO(base64.b64decode(artefact["output_audio"])), dtype="float32", always_2d=True
    )
    return np.asarray(waveform.T)


def build(models: Mapping[str, FakeSeparationModel]) -> tuple[Models, Calls]:
    return fake_models(separation=FakeSeparationFamily(models))


def call(models: Models, **params: Any) -> dict[str, Any]:
    job = {"id": "job", "input": {"operation": "generate_cover", "voice_model": "my_voice", **params}}
    return answer(job, settings=Settings(volume_dirs=()), models=models)


def cover(models: Mapping[str, FakeSeparationModel], song: Waveform, **params: Any) -> dict[str, Any]:
    return call(build(models)[0], audio=encode_wav(song), **{**FLOAT, **params})


def sum_parts(reply: Mapping[str, Any]) -> Waveform:
    """The parts of the song that a reply gives, at their levels in the song."""
    stems = {name: decode_audio(stem) for name, stem in reply["stems"].items() if name not in ("lead", "backing")}
    total = stems["instrumental"] * 10 ** (7 / 20) + stems["lead_dry"]
    if "backup" in stems:
        total = total + stems["backup"] * 10 ** (6 / 20)
    return np.asarray(total + stems["reverb"] if "reverb" in stems else total, np.float32)


@pytest.mark.parametrize("make_models_of", [chain_models, heads_models])
def test_instrumental_backing_dry_lead_and_reverb_sum_to_the_song(make_models_of: Any) -> None:
    parts = make_parts()
    reply = cover(make_models_of(parts), make_song(parts))
    assert list(reply["stems"]) == [
        "vocals", "backup", "instrumental", "lead_source", "lead_dry", "reverb", "lead", "backing",
    ]  # fmt: skip
    np.testing.assert_allclose(sum_parts(reply), make_song(parts), atol=1e-5)


@pytest.mark.parametrize("make_models_of", [chain_models, heads_models])
@pytest.mark.parametrize(("sample_rate", "channels", "seconds"), [(44_100, 1, 2.0), (48_000, 2, 1.3), (44_100, 2, 0.1)])
def test_the_parts_sum_to_the_song_whatever_the_models_give(
    make_models_of: Any, sample_rate: int, channels: int, seconds: float
) -> None:
    parts = {name: make_noise(seed, 0.1) for seed, name in enumerate(make_parts())}
    song = make_noise(99)[:channels, : round(sample_rate * seconds)]
    song[:, song.shape[1] // 3 :] *= 0.2
    reply = call(build(make_models_of(parts))[0], audio=encode_wav(song, sample_rate), **FLOAT)
    assert reply["split"] is not None and decode_audio(reply).shape == song.shape
    np.testing.assert_allclose(sum_parts(reply), song, atol=1e-5)


def test_each_model_gets_what_the_one_before_it_took_out() -> None:
    parts = make_parts()
    models = chain_models(parts)
    reply = cover(models, make_song(parts))
    lead = parts["dry"] + parts["reverb"]
    np.testing.assert_allclose(models["splitter"].inputs[0], lead + parts["backing"], atol=1e-6)
    np.testing.assert_allclose(models["dereverberator"].inputs[0], lead, atol=1e-6)
    np.testing.assert_allclose(decode_audio(reply["stems"]["lead_source"]), lead, atol=1e-6)
    np.testing.assert_allclose(decode_audio(reply["stems"]["lead_dry"]), parts["dry"], atol=1e-6)
    np.testing.assert_allclose(decode_audio(reply["stems"]["reverb"]), parts["reverb"], atol=1e-6)
    assert reply["stems"]["lead"]["same_as"] == "vocals" and reply["stems"]["backing"]["same_as"] == "backup"


def test_the_reply_says_what_was_split_and_measured() -> None:
    parts = make_parts()
    reply = cover(chain_models(parts), make_song(parts))
    split = reply["split"]
    assert split["route"] == "chain" and split["karaoke_model"] == "splitter"
    assert split["dereverb_model"] == "dereverberator"
    assert split["backing_db"] == pytest.approx(20 * np.log10(0.03 / np.hypot(0.05, 0.01)), abs=0.1)
    assert split["reverb_db"] == pytest.approx(20 * np.log10(0.01 / np.hypot(0.05, 0.01)), abs=0.1)
    assert split["backing_skipped"] is False and split["reverb_skipped"] is False
    assert reply["parameters"]["karaoke_model"] == "splitter" and reply["warnings"] == []


def test_a_model_with_heads_computes_only_the_three_that_are_needed() -> None:
    parts = make_parts()
    models = heads_models(parts)
    split = cover(models, make_song(parts), separation_model="mega")["split"]
    assert models["mega"].computed == [("vocal", "lead-vocal", "back-vocal")]
    assert (split["route"], split["karaoke_model"], split["dereverb_model"]) == ("heads", "mega", "dereverberator")


@pytest.mark.parametrize("make_models_of", [chain_models, heads_models])
def test_a_song_without_backing_vocals_and_reverb_comes_out_untouched(make_models_of: Any) -> None:
    parts = make_parts(backing=0.0, reverb=0.0)
    models = make_models_of(parts)
    for name, stem in (("splitter", "karaoke"), ("dereverberator", "noreverb"), ("dereverberator", "dry")):
        if name in models and stem in models[name].stems:  # a model's small error
            models[name] = FakeSeparationModel(models[name].role, {stem: parts["dry"] * np.float32(0.995)})
    reply = cover(models, make_song(parts))
    assert reply["split"]["backing_skipped"] is True and reply["split"]["reverb_skipped"] is True
    assert list(reply["stems"]) == ["vocals", "instrumental", "lead_source", "lead_dry", "lead"]
    vocals = make_song(parts) - decode_audio(reply["stems"]["instrumental"]) * np.float32(10 ** (7 / 20))
    np.testing.assert_allclose(decode_audio(reply["stems"]["lead_dry"]), vocals, atol=1e-6)
    assert reply["warnings"] == []


def test_silent_passages_are_not_given_to_the_models_and_are_not_converted() -> None:
    parts = make_parts()
    for name in ("backing", "dry", "reverb"):
        parts[name][:, : RATE + 1000] *= np.float32(1e-5)
    models = chain_models(parts)
    models["splitter"] = FakeSeparationModel("karaoke", {"karaoke": make_noise(7)})  # sings into the silence
    reply = cover(models, make_song(parts), dereverb="off")
    quiet = slice(0, RATE // 2 - RATE // 20)
    assert np.abs(models["splitter"].inputs[0][:, quiet]).max() == 0
    assert np.abs(decode_audio(reply["stems"]["lead_dry"])[:, quiet]).max() == 0
    np.testing.assert_allclose(sum_parts(reply), make_song(parts), atol=1e-5)


def test_a_silent_song_gives_silence_and_runs_no_second_model() -> None:
    parts = {name: part * 0 for name, part in make_parts().items()}
    models = chain_models(parts)
    reply = cover(models, make_song(parts))
    assert np.abs(decode_audio(reply)).max() == 0
    assert models["splitter"].inputs == [] and reply["split"]["backing_db"] is None


def test_a_dry_vocal_that_loses_its_breaths_gets_them_back() -> None:
    parts = make_parts()
    models = chain_models(parts)
    dry = parts["dry"].copy()
    dry[:, RATE:] = 0
    models["dereverberator"] = FakeSeparationModel("dereverb", {"noreverb": dry})
    reply = cover(models, make_song(parts))
    middle = slice(round(1.1 * RATE), round(1.4 * RATE))
    kept, source = (decode_audio(reply["stems"][name])[:, middle] for name in ("lead_dry", "lead_source"))
    assert 20 * np.log10(kept.std() / source.std()) == pytest.approx(-12, abs=0.1)
    np.testing.assert_allclose(sum_parts(reply), make_song(parts), atol=1e-5)


def test_backing_vocals_that_seem_to_carry_the_lead_are_named() -> None:
    parts = make_parts(backing=0.2)
    warnings = cover(chain_models(parts), make_song(parts))["warnings"]
    assert len(warnings) == 1 and "carry the lead" in warnings[0] and "convert_backup" in warnings[0]


def test_the_removed_reverb_returns_at_the_leads_level() -> None:
    parts = make_parts()
    reply = cover(chain_models(parts), make_song(parts), reverb_return=0.5, main_gain=2)
    returned = decode_audio(reply["stems"]["reverb_return"])
    np.testing.assert_allclose(returned, parts["reverb"] * np.float32(0.5 * 10 ** (-2 / 20)), atol=1e-6)
    names = ("vocals", "backup", "reverb_return", "instrumental")
    total = np.sum([decode_audio(reply["stems"][name]) for name in names], axis=0)
    np.testing.assert_allclose(decode_audio(reply), total, atol=1e-6)


def test_backing_vocals_are_converted_with_their_own_voice_and_pitch() -> None:
    parts = make_parts()
    models, calls = build(chain_models(parts))
    call(
        models, audio=encode_wav(make_song(parts)), pitch_adjust=-12, convert_backup=True, backup_voice_model="low",
        backup_pitch_adjust=5,
    )  # fmt: skip
    assert [name for name in calls.loaded if name.startswith("rvc/")] == ["rvc/my_voice", "rvc/low"]
    f0s = [float(f0.max()) for f0, _ in calls.converted if f0 is not None]
    assert f0s == pytest.approx([110, 220 * 2 ** (5 / 12)], rel=1e-5)


def test_backing_vocals_take_the_leads_pitch_and_voice_by_default() -> None:
    parts = make_parts()
    models, calls = build(chain_models(parts))
    call(models, audio=encode_wav(make_song(parts)), pitch_adjust="auto", voice_f0_hz=440, convert_backup=True)
    assert [float(f0.max()) for f0, _ in calls.converted if f0 is not None] == pytest.approx([440, 440], rel=1e-5)


def test_converting_backing_vocals_that_are_not_there_is_named() -> None:
    parts = make_parts(backing=0.0)
    warnings = cover(chain_models(parts), make_song(parts), convert_backup=True)["warnings"]
    assert warnings == ["'convert_backup' has no effect because the song seems to have no backing vocals."]


def test_the_reverb_of_a_vocal_alone_can_be_removed() -> None:
    parts = make_parts()
    vocal, band = encode_wav(parts["dry"] + parts["reverb"]), encode_wav(parts["instrumental"])
    reply = call(build(chain_models(parts))[0], voice_audio=vocal, instrument_audio=band, **FLOAT)
    np.testing.assert_allclose(decode_audio(reply["stems"]["lead_dry"]), parts["dry"], atol=1e-6)
    assert reply["split"]["karaoke_model"] is None and reply["warnings"] == []


def test_nothing_is_split_when_all_of_it_is_off() -> None:
    parts = make_parts()
    models = chain_models(parts)
    reply = cover(models, make_song(parts), lead_split="off", dereverb="off")
    assert reply["split"] is None and list(reply["stems"]) == ["vocals", "instrumental"] and reply["warnings"] == []
    assert models["splitter"].inputs == models["dereverberator"].inputs == []


def test_without_models_the_whole_vocal_is_converted_with_one_warning_that_says_what_to_install() -> None:
    parts = make_parts()
    models = {"separator": chain_models(parts)["separator"]}
    reply = cover(models, make_song(parts))
    assert reply["split"] is None and len(reply["warnings"]) == 1
    assert all(word in reply["warnings"][0] for word in ("'karaoke'", "'dereverb'", "MODELS_DIR", ".yaml"))


def test_on_a_cpu_a_model_with_heads_is_named_in_a_warning_and_used_if_the_request_demands_it() -> None:
    parts = make_parts()
    models = {"separator": chain_models(parts)["separator"], **heads_models(parts)}
    reply = cover(models, make_song(parts))
    assert len(reply["warnings"]) == 1 and "'separation_model': 'mega'" in reply["warnings"][0]
    assert reply["split"]["karaoke_model"] is None and models["mega"].inputs == []
    assert cover(models, make_song(parts), lead_split="on")["split"]["route"] == "heads"


@pytest.mark.parametrize("field", ["lead_split", "dereverb"])
def test_a_split_that_is_required_without_a_model_is_refused_before_the_song_is_read(field: str) -> None:
    models = {"separator": chain_models(make_parts())["separator"]}
    with pytest.raises(ModelError) as caught:
        call(build(models)[0], audio="/no/such/file.wav", **{field: "on"})
    assert caught.value.error_code == ErrorCode.MODEL_MISSING and caught.value.details["field"] == field


@pytest.mark.parametrize("field", ["karaoke_model", "dereverb_model"])
def test_a_model_for_something_else_is_refused_before_the_song_is_read(field: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"'vocals' and not '.*role\.json") as caught:
        call(build(chain_models(make_parts()))[0], audio="/no/such/file.wav", **{field: "separator"})
    assert caught.value.details["valid"] == ["splitter" if field == "karaoke_model" else "dereverberator"]
    with pytest.raises(UnknownNameError):
        call(build(chain_models(make_parts()))[0], audio="/no/such/file.wav", **{field: "nobody"})


def test_a_model_that_would_have_to_be_downloaded_is_used_only_if_it_is_named() -> None:
    parts = make_parts()
    models = chain_models(parts)
    models["splitter"].availability = DOWNLOAD
    assert cover(models, make_song(parts))["split"]["karaoke_model"] is None
    assert cover(models, make_song(parts), karaoke_model="splitter")["split"]["karaoke_model"] == "splitter"


def test_a_long_song_is_split_on_a_cpu_only_if_the_request_demands_it() -> None:
    song = encode_wav(make_noise(1, seconds=61.0)[:1, ::8], RATE // 8)
    models, _ = build(chain_models(make_parts()))
    reply = call(models, audio=song)
    assert reply["split"] is None and len(reply["warnings"]) == 1 and "without a GPU" in reply["warnings"][0]
    assert call(models, audio=song, lead_split="on", dereverb="off")["split"]["karaoke_model"] == "splitter"


def plan_on_gpu(models: Mapping[str, FakeSeparationModel], **params: Any) -> Mapping[str, Any]:
    """The parameters that a worker with a GPU decides on."""
    calls = Calls()
    worker = make_models(
        device="cuda",
        voices=FakeVoiceFamily(calls),
        content_encoders=FakeEncoderFamily(calls),
        f0=FakeF0Family(calls),
        separation=FakeSeparationFamily(models),
    )
    return plan(Params.parse({"audio": "x", "voice_model": "my_voice", **params}), worker).parameters


def test_a_gpu_uses_the_best_models_that_are_here() -> None:
    parts = make_parts()
    demucs = {"default": FakeSeparationModel("stems", {"vocals": parts["dry"], "drums": parts["dry"]})}
    assert plan_on_gpu(demucs | chain_models(parts))["separation_model"] == "separator"
    assert plan_on_gpu(demucs | heads_models(parts))["separation_model"] == "mega"
    both = demucs | heads_models(parts) | chain_models(parts)
    assert plan_on_gpu(both)["separation_model"] == "separator" and plan_on_gpu(both)["karaoke_model"] == "splitter"
    assert plan_on_gpu(both, separation_model="default")["separation_model"] == "default"
    assert plan_on_gpu(both, separation_model="mega")["karaoke_model"] is None, "its heads split the vocals"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"karaoke_model": "splitter", "lead_split": "off"}, "karaoke_model"),
        ({"dereverb_model": "dereverberator", "dereverb": "off"}, "dereverb_model"),
        ({"reverb_return": 0.5, "dereverb": "off"}, "reverb_return"),
        ({"backup_pitch_adjust": 3.0}, "backup_pitch_adjust"),
        ({"backup_voice_model": "low"}, "backup_voice_model"),
        ({"voice_f0_hz": 200.0}, "voice_f0_hz"),
    ],
)
def test_a_parameter_of_the_split_without_effect_is_named(params: dict[str, Any], field: str) -> None:
    parts = make_parts()
    warnings = cover(chain_models(parts), make_song(parts), **params)["warnings"]
    assert len(warnings) == 1 and f"'{field}' has no effect" in warnings[0]


def test_progress_passes_every_step_and_never_decreases() -> None:
    parts = make_parts()
    updates: list[Mapping[str, Any]] = []
    job = {"input": {"operation": "generate_cover", "voice_model": "my_voice", "audio": encode_wav(make_song(parts))}}
    answer(job, settings=Settings(), models=build(chain_models(parts))[0], report=updates.append)
    stages = list(dict.fromkeys(update["stage"] for update in updates))
    percents = [update["percent"] for update in updates]
    wanted = ["separate", "split", "dereverb", "pitch", "convert"]
    assert [stage for stage in stages if stage in wanted] == wanted and percents == sorted(percents)


@pytest.mark.parametrize("stage", ["separate", "split", "dereverb"])
def test_a_job_that_is_cancelled_during_a_step_ends(stage: str) -> None:
    parts, cancel = make_parts(), threading.Event()

    def report(update: Mapping[str, Any]) -> None:
        if update["stage"] == stage:
            cancel.set()

    job = {"input": {"operation": "generate_cover", "voice_model": "my_voice", "audio": encode_wav(make_song(parts))}}
    with pytest.raises(CancelledError):
        answer(job, settings=Settings(), models=build(chain_models(parts))[0], cancel=cancel, report=report)


def test_an_automatic_pitch_needs_the_voices_usual_pitch() -> None:
    parts = make_parts()
    with pytest.raises(InvalidRequestError, match=r"'voice_f0_hz'.*voice\.json"):
        call(build(chain_models(parts))[0], audio="/no/such/file.wav", pitch_adjust="auto")


@pytest.mark.parametrize(
    ("voice_f0_hz", "semitones", "warned"), [(440.0, 12, False), (300.0, 5, True), (230.0, 0, False)]
)
def test_an_automatic_pitch_brings_the_vocals_to_the_voice(voice_f0_hz: float, semitones: int, warned: bool) -> None:
    parts = make_parts()
    models, calls = build(chain_models(parts))
    reply = call(models, audio=encode_wav(make_song(parts)), pitch_adjust="auto", voice_f0_hz=voice_f0_hz)
    assert reply["parameters"]["pitch_adjust"] == semitones
    f0 = calls.converted[0][0]
    assert f0 is not None and f0.max() == pytest.approx(220 * 2 ** (semitones / 12), rel=1e-5)
    assert any("no whole octave" in warning for warning in reply["warnings"]) is warned
