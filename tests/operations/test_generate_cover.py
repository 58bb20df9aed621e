"""generate_cover from JSON to reply, with a fake voice converter that returns the vocals unchanged."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from errors import CancelledError, InvalidRequestError, ModelError, UnknownNameError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from operations.generate_cover import OPERATION, Params, get_readiness
from operations.operation import find_operation
from testing import tiny_demucs as tiny
from testing.dispatch import answer
from testing.fake_voices import Calls, FakeVoiceFamily, MissingEncoderFamily, fake_models
from testing.models import make_models
from testing.signals import make_noise
from testing.songs import make_song
from worker.settings import Settings

Waveform = NDArray[np.float32]
RATE = 44_100
FLOAT = {"output_format": "wav", "bit_depth": 32}
DRY = {"reverb_wet": 0.0, "reverb_dry": 1.0}


@pytest.fixture(autouse=True)
def no_temporary_files_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []


def make_vocals(num_samples: int, sample_rate: int = RATE, channels: int = 1, seed: int = 0) -> Waveform:
    """Noise below 4 kHz that swells, so that it survives 16 kHz."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, num_samples)))
    spectrum[:, np.fft.rfftfreq(num_samples, 1 / sample_rate) > 4000] = 0
    noise = np.fft.irfft(spectrum, num_samples)
    swell = 0.1 + np.abs(np.sin(np.arange(num_samples) / sample_rate * 3))
    return np.asarray(0.1 * noise / max(noise.std(), 1e-9) * swell, np.float32)


def make_instrumental(num_samples: int, channels: int = 2, seed: int = 1) -> Waveform:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, num_samples))).astype(np.float32)


def encode_wav(waveform: Waveform, sample_rate: int = RATE) -> str:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, sample_rate, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def call(models: Models, operation: str = "generate_cover", **params: Any) -> dict[str, Any]:
    params = {"voice_model": "my_voice", **params}
    job = {"id": "job", "input": {"operation": operation, "params": params}}
    return answer(job, settings=Settings(volume_dirs=()), models=models)


def cover_parts(models: Models, **params: Any) -> dict[str, Any]:
    """A cover of one second of audio, or of the audio in `params`."""
    sounds = {"voice_audio": encode_wav(make_vocals(RATE)), "instrument_audio": encode_wav(make_instrumental(RATE))}
    return call(models, **{**sounds, **params})


def decode_audio(artefact: Mapping[str, Any]) -> tuple[Waveform, int]:
    data = base64.b64decode(artefact["output_audio"])
    waveform, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return np.asarray(waveform.T), int(sample_rate)


@pytest.fixture
def voices() -> tuple[Models, Calls]:
    return fake_models()


def test_a_cover_from_parts_is_an_mp3_named_after_the_voice(voices: tuple[Models, Calls]) -> None:
    reply = cover_parts(voices[0])
    assert reply["success"] is True and reply["operation"] == "generate_cover"
    assert reply["filename"] == "cover_my_voice.mp3" and reply["format"] == "mp3" and reply["model_used"] == "my_voice"
    data = base64.b64decode(reply["output_audio"])
    assert len(data) == reply["size"]
    assert data.startswith((b"ID3", b"\xff")), "an ID3 tag or the first MPEG frame"
    assert reply["channels"] == 2 and reply["sample_rate"] == RATE
    assert reply["warnings"] == [] and "stems" not in reply and "outputs" not in reply
    for stage in ("pitch_s", "convert_s", "mix_s", "total_s"):
        assert reply["timings"][stage] >= 0


def test_the_former_name_of_the_operation_still_works(voices: tuple[Models, Calls]) -> None:
    assert find_operation("generate_cover_from_separate_audio")[0] == "generate_cover"
    sounds: dict[str, Any] = {
        "voice_audio": encode_wav(make_vocals(RATE)),
        "instrument_audio": encode_wav(make_instrumental(RATE)),
    }
    old = call(voices[0], "generate_cover_from_separate_audio", **sounds)
    assert old["output_audio"] == call(voices[0], **sounds)["output_audio"]


def test_the_reply_has_every_parameter_with_its_documented_default(voices: tuple[Models, Calls]) -> None:
    expected = {
        "voice_model": "my_voice", "pitch_adjust": 0, "pitch_change_all": 0, "index_rate": 0.5, "filter_radius": 3,
        "rms_mix_rate": 0.25, "protect": 0.33, "f0_method": "rmvpe", "crepe_hop_length": 128, "reverb_rm_size": 0.15,
        "reverb_wet": 0.2, "reverb_dry": 0.8, "reverb_damping": 0.7, "main_gain": 0, "backup_gain": 0, "inst_gain": 0,
        "autotune": 0, "autotune_key": None, "formant_shift": 0, "return_stems": False, "output_format": "mp3",
        "bitrate": 320,
    }  # fmt: skip
    parameters = cover_parts(voices[0])["parameters"]
    assert {name: parameters[name] for name in expected} == expected
    assert set(parameters) == set(Params.model_fields) - set(Params.input_fields())


def make_clicks(length: float, sample_rate: int, places: NDArray[np.float64]) -> Waveform:
    """Ticks around `places` in seconds that pass 16 kHz and the vocal chain unchanged: high, quiet, short."""
    away = np.arange(round(length * sample_rate))[:, None] / sample_rate - places
    ticks = 0.1 * np.exp(-((away / 3e-4) ** 2)) * np.cos(2 * np.pi * 3000 * away)
    return np.asarray(ticks.sum(axis=1)[None], np.float32)


@pytest.mark.parametrize("voice", ["my_voice", "low", "high"])
@pytest.mark.parametrize(("voice_rate", "band_rate"), [(44_100, 44_100), (48_000, 44_100), (16_000, 48_000)])
def test_vocals_and_instrumental_are_in_time_to_the_sample(
    voices: tuple[Models, Calls], voice: str, voice_rate: int, band_rate: int
) -> None:
    places = np.arange(0.1, 2.9, 0.173)
    track, band = make_clicks(3.0, voice_rate, places), make_clicks(3.0, band_rate, places)
    reply = cover_parts(
        voices[0], voice_model=voice, voice_audio=encode_wav(track, voice_rate),
        instrument_audio=encode_wav(band, band_rate), return_stems=True, **FLOAT, **DRY,
    )  # fmt: skip
    lead, rate = decode_audio(reply["stems"]["vocals"])
    instrumental, _ = decode_audio(reply["stems"]["instrumental"])
    lags = np.arange(-50, 51)
    likeness = [np.vdot(np.roll(lead[0].astype(float), -lag), instrumental[0].astype(float)) for lag in lags]
    assert rate == band_rate and lags[int(np.argmax(likeness))] == 0


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.tuples(*[st.floats(0.02, 0.6)] * 3),
    rates=st.tuples(*[st.sampled_from([8000, 22_050, 44_100, 48_000, 96_000])] * 3),
    channels=st.tuples(*[st.sampled_from([1, 2])] * 3),
    has_backup=st.booleans(),
)
def test_a_cover_is_as_long_as_its_longest_part_at_any_lengths_rates_and_channels(
    lengths: tuple[float, ...], rates: tuple[int, ...], channels: tuple[int, ...], has_backup: bool
) -> None:
    fields = ("voice_audio", "instrument_audio", "backup_audio")[: 2 + has_backup]
    counts = [round(length * rate) for length, rate in zip(lengths, rates, strict=True)]
    sounds = {
        field: encode_wav(make_instrumental(count, width), rate)
        for field, count, rate, width in zip(fields, counts, rates, channels, strict=False)
    }
    reply = cover_parts(fake_models()[0], **sounds, **FLOAT, return_stems=True)
    cover, rate = decode_audio(reply)
    used = slice(0, len(fields))
    assert rate == max(rates[1], 44_100)
    assert cover.shape[0] == max(channels[used])
    longest = max(count / own for count, own in zip(counts[used], rates[used], strict=True))
    assert abs(cover.shape[1] - longest * rate) <= 0.5 + 1e-6
    stems = [decode_audio(stem)[0] for stem in reply["stems"].values()]
    assert [stem.shape for stem in stems] == [cover.shape] * len(fields)
    np.testing.assert_allclose(np.sum(stems, axis=0), cover, atol=1e-6)


def test_twenty_milliseconds_can_be_transposed(voices: tuple[Models, Calls]) -> None:
    short = {"voice_audio": encode_wav(make_vocals(882)), "instrument_audio": encode_wav(make_instrumental(882))}
    reply = cover_parts(voices[0], **short, **FLOAT, pitch_change_all=-3)
    assert decode_audio(reply)[0].shape == (2, 882) and np.isfinite(decode_audio(reply)[0]).all()


def test_the_usual_levels_and_the_gains_set_the_balance(voices: tuple[Models, Calls]) -> None:
    band, backup = make_instrumental(RATE), make_instrumental(RATE, seed=2)
    reply = cover_parts(
        voices[0], instrument_audio=encode_wav(band), backup_audio=encode_wav(backup), inst_gain=3, backup_gain=-60,
        return_stems=True, **FLOAT,
    )  # fmt: skip
    stems = {name: decode_audio(stem)[0] for name, stem in reply["stems"].items()}
    assert list(stems) == ["vocals", "backup", "instrumental"]
    np.testing.assert_allclose(stems["instrumental"], band * 10 ** (-4 / 20), atol=1e-6)
    np.testing.assert_allclose(stems["backup"], backup * 10 ** (-66 / 20), atol=1e-8)
    louder = cover_parts(voices[0], main_gain=6, return_stems=True, **FLOAT)
    plain = cover_parts(voices[0], return_stems=True, **FLOAT)
    ratio = (
        np.abs(decode_audio(louder["stems"]["vocals"])[0]).max()
        / np.abs(decode_audio(plain["stems"]["vocals"])[0]).max()
    )
    assert ratio == pytest.approx(10 ** (6 / 20), rel=1e-5)


def test_gains_of_minus_60_db_are_not_silence(voices: tuple[Models, Calls]) -> None:
    loud, quiet = (
        decode_audio(cover_parts(voices[0], **FLOAT, main_gain=gain, inst_gain=gain))[0] for gain in (0, -60)
    )  # fmt: skip
    assert np.abs(quiet).max() > 0
    np.testing.assert_allclose(quiet, loud / 1000, atol=1e-7)


def test_a_mix_above_full_scale_is_lowered_by_one_gain_with_a_warning(voices: tuple[Models, Calls]) -> None:
    hot = {"main_gain": 20, "inst_gain": 20}
    whole = decode_audio(cover_parts(voices[0], **FLOAT, **hot))[0]
    reply = cover_parts(voices[0], output_format="wav", bit_depth=24, **hot)
    assert np.abs(whole).max() > 1 and len(reply["warnings"]) == 1 and "above full scale" in reply["warnings"][0]
    np.testing.assert_allclose(decode_audio(reply)[0], whole * 0.9999 / np.abs(whole).max(), atol=1e-5)


def test_silence_gives_silence(voices: tuple[Models, Calls]) -> None:
    silent: dict[str, Any] = {
        "voice_audio": encode_wav(np.zeros((1, RATE), np.float32)),
        "instrument_audio": encode_wav(make_instrumental(RATE) * 0),
    }
    assert np.abs(decode_audio(cover_parts(voices[0], **silent, **FLOAT))[0]).max() == 0


def test_the_reverb_makes_the_lead_stereo_and_continues_after_the_vocals(
    voices: tuple[Models, Calls],
) -> None:
    reply = cover_parts(
        voices[0], voice_audio=encode_wav(make_vocals(RATE)), instrument_audio=encode_wav(make_instrumental(3 * RATE)),
        reverb_wet=1.0, return_stems=True, **FLOAT,
    )  # fmt: skip
    lead = decode_audio(reply["stems"]["vocals"])[0]
    assert lead.shape == (2, 3 * RATE)
    assert np.abs(lead[0] - lead[1]).max() > 1e-3
    assert np.abs(lead[:, RATE + 2000 : RATE + 6000]).max() > 1e-4


def test_mono_parts_make_a_mono_cover(voices: tuple[Models, Calls]) -> None:
    assert cover_parts(voices[0], instrument_audio=encode_wav(make_instrumental(RATE, 1)))["channels"] == 1


def make_sine(hertz: float, seconds: float = 3.0) -> Waveform:
    times = np.arange(round(seconds * RATE)) / RATE
    return np.repeat((0.2 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)[None], 2, axis=0)


def find_frequency(waveform: Waveform) -> float:
    middle = waveform[0, RATE : 2 * RATE] * np.hanning(RATE)
    return float(np.abs(np.fft.rfft(middle, 8 * RATE)).argmax() / 8)


def test_another_key_transposes_instrumental_backing_vocals_and_f0(voices: tuple[Models, Calls]) -> None:
    models, calls = voices
    reply = cover_parts(
        models, voice_audio=encode_wav(make_vocals(3 * RATE)), instrument_audio=encode_wav(make_sine(440)),
        backup_audio=encode_wav(make_sine(330)), pitch_change_all=2, pitch_adjust=-5, return_stems=True, **FLOAT,
    )  # fmt: skip
    ratio = 2 ** (2 / 12)
    assert find_frequency(decode_audio(reply["stems"]["instrumental"])[0]) == pytest.approx(440 * ratio, abs=0.2)
    assert find_frequency(decode_audio(reply["stems"]["backup"])[0]) == pytest.approx(330 * ratio, abs=0.2)
    f0, conversion = calls.converted[0]
    assert f0 is not None and conversion.semitones == 0
    assert f0.max() == pytest.approx(220 * 2 ** (-3 / 12), rel=1e-5)


def test_converted_backing_vocals_are_not_transposed_again(voices: tuple[Models, Calls]) -> None:
    models, calls = voices
    reply = cover_parts(
        models,
        backup_audio=encode_wav(make_sine(330)),
        pitch_change_all=2,
        convert_backup=True,
        return_stems=True,
        **FLOAT,
    )
    assert len(calls.converted) == 2
    assert find_frequency(decode_audio(reply["stems"]["backup"])[0]) == pytest.approx(330, abs=0.2)


def test_autotune_comes_after_the_transposition(voices: tuple[Models, Calls]) -> None:
    models, calls = voices
    cover_parts(models, pitch_adjust=0.4, autotune=1.0)
    f0 = calls.converted[0][0]
    assert f0 is not None and f0.max() == pytest.approx(220, rel=1e-4)


@pytest.mark.parametrize(("semitones", "key", "note"), [(0, "Eb major", 233.08), (1, "E major", 246.94)])
def test_the_key_of_autotune_can_be_heard_in_the_instrumental(
    voices: tuple[Models, Calls], semitones: int, key: str, note: float
) -> None:
    models, calls = voices
    song = make_song(["D#", "G#", "A#", "D#"], bars=4)
    sounds = {
        "voice_audio": encode_wav(make_vocals(RATE)),
        "instrument_audio": encode_wav(song.waveform, song.sample_rate),
    }
    reply = cover_parts(
        models, **sounds, pitch_adjust=0.4, pitch_change_all=semitones, autotune=1.0, autotune_key="auto"
    )
    assert reply["parameters"]["autotune_key"] == key and reply["timings"]["listen_s"] > 0
    f0 = calls.converted[0][0]
    assert f0 is not None and f0.max() == pytest.approx(note, rel=1e-3)


def test_autotune_is_chromatic_when_no_key_is_heard(voices: tuple[Models, Calls]) -> None:
    models, calls = voices
    noise = encode_wav(make_noise(1, 2 * RATE), RATE)
    reply = cover_parts(models, instrument_audio=noise, pitch_adjust=0.4, autotune=1.0, autotune_key="auto")
    assert reply["parameters"]["autotune_key"] == "chromatic"
    assert any("No key was heard in 'instrument_audio'" in warning for warning in reply["warnings"])
    f0 = calls.converted[0][0]
    assert f0 is not None and f0.max() == pytest.approx(220, rel=1e-3)


def test_nothing_is_analysed_unless_autotune_needs_a_key(voices: tuple[Models, Calls]) -> None:
    assert "listen_s" not in cover_parts(voices[0], autotune=0.5)["timings"]
    reply = cover_parts(voices[0], autotune_key="auto")
    assert "listen_s" not in reply["timings"] and any(
        "'autotune_key' has no effect" in one for one in reply["warnings"]
    )


def test_the_conversion_gets_the_settings_of_the_request(voices: tuple[Models, Calls]) -> None:
    models, calls = voices
    cover_parts(
        models, index_rate=0.9, protect=0.1, rms_mix_rate=1.0, formant_shift=1.5, seed=7, f0_method="mangio-crepe",
        crepe_hop_length=64, filter_radius=5, retrieval="ivf",
    )  # fmt: skip
    conversion = calls.converted[0][1]
    assert (conversion.index_rate, conversion.protect, conversion.rms_mix_rate) == (0.9, 0.1, 1.0)
    assert (conversion.formant_shift, conversion.seed, conversion.retrieval) == (1.5, 7, "ivf")
    assert calls.tracked == [{"hop_length": 64, "filter_radius": 5}]
    assert calls.loaded == ["f0/mangio-crepe", "hubert/default", "rvc/my_voice"]


def test_a_voice_without_f0_needs_no_f0_method_and_unused_parameters_are_named(voices: tuple[Models, Calls]) -> None:
    models, calls = voices
    reply = cover_parts(models, voice_model="flat", pitch_adjust=3, f0_method="pm", autotune=0.5, index_rate=0.8)
    assert calls.converted[0][0] is None and calls.loaded == ["hubert/default", "rvc/flat"]
    assert calls.converted[0][1].index_rate == 0
    assert reply["parameters"]["f0_method"] is None and reply["parameters"]["index_rate"] == 0
    for field in ("pitch_adjust", "f0_method", "autotune", "index_rate"):
        assert any(f"'{field}' has no effect" in warning for warning in reply["warnings"]), field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crepe_hop_length", 64),
        ("filter_radius", 5),
        ("backup_gain", 3),
        ("convert_backup", True),
        ("autotune_key", "C major"),
        ("separation_model", "htdemucs"),
    ],
)
def test_a_parameter_without_effect_is_named(voices: tuple[Models, Calls], field: str, value: object) -> None:
    warnings = cover_parts(voices[0], **{field: value})["warnings"]
    assert len(warnings) == 1 and f"'{field}' has no effect" in warnings[0]


def test_parameters_with_effect_give_no_warning(voices: tuple[Models, Calls]) -> None:
    wanted: dict[str, Any] = {
        "f0_method": "harvest", "filter_radius": 5, "backup_gain": 3,
        "backup_audio": encode_wav(make_instrumental(RATE)),
        "autotune": 0.5, "autotune_key": "chromatic", "index_rate": 0.7, "protect": 0.2, "reverb_rm_size": 0.3,
    }  # fmt: skip
    assert cover_parts(voices[0], **wanted)["warnings"] == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ((), "is required, or 'voice_audio' and 'instrument_audio' are"),
        (("audio", "voice_audio"), "cannot be used together"),
        (("audio", "backup_audio"), "cannot be used together"),
        (("voice_audio",), "instrument_audio"),
        (("instrument_audio",), "voice_audio"),
        (("backup_audio",), "is required, or 'voice_audio' and 'instrument_audio' are"),
    ],
)
def test_one_of_the_two_forms_of_input_is_required(
    voices: tuple[Models, Calls], fields: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call(voices[0], **dict.fromkeys(fields, "nothing"))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pitch_adjust", 12.5),
        ("pitch_change_all", -13),
        ("index_rate", 1.1),
        ("filter_radius", 8),
        ("protect", 0.6),
        ("main_gain", -61),
        ("inst_gain", 21),
        ("f0_method", "dio"),
        ("autotune_key", "H major"),
        ("voice_model", ""),
        ("crepe_hop_length", 0),
    ],
)
def test_a_value_out_of_range_is_refused_before_the_audio_is_read(
    voices: tuple[Models, Calls], field: str, value: object
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        params: dict[str, Any] = {"voice_audio": "x", "instrument_audio": "x", field: value}
        call(voices[0], **params)
    assert field in caught.value.message


def test_parameter_names_of_other_products_are_accepted() -> None:
    params = Params.parse(
        {
            "song_input": "x", "rvc_model": "my_voice", "pitch_detection_algorithm": "fcpe", "reverb_size": 0.3,
            "reverb_wetness": 0.4, "reverb_dryness": 0.5, "main_vocals_volume_change": 1,
            "backup_vocals_volume_change": 2, "instrumental_volume_change": 3,
        }
    )  # fmt: skip
    assert (params.audio, params.voice_model, params.f0_method, params.reverb_rm_size) == ("x", "my_voice", "fcpe", 0.3)
    assert (params.reverb_wet, params.reverb_dry) == (0.4, 0.5)
    assert (params.main_gain, params.backup_gain, params.inst_gain) == (1, 2, 3)


def test_an_unknown_voice_is_refused_before_anything_is_loaded(voices: tuple[Models, Calls]) -> None:
    with pytest.raises(UnknownNameError, match="^Voice model not found"):
        cover_parts(voices[0], voice_model="nobody")
    assert voices[1].loaded == []


def test_missing_encoder_weights_are_reported_before_anything_is_loaded() -> None:
    models, calls = fake_models(encoders=MissingEncoderFamily)
    with pytest.raises(ModelError, match="hubert_base"):
        cover_parts(models)
    assert calls.loaded == [] and "hubert_base" in get_readiness(models).reason


def test_the_operation_reports_its_readiness_and_is_optional(voices: tuple[Models, Calls]) -> None:
    assert get_readiness(voices[0]).is_ready and OPERATION.optional
    assert "RVC_MODELS_DIR" in get_readiness(make_models()).reason


def test_a_voice_name_with_special_characters_gives_a_safe_file_name(voices: tuple[Models, Calls]) -> None:
    reply = cover_parts(voices[0], voice_model="../Büro *1")
    assert reply["filename"] == "cover_.._Büro _1.mp3" and reply["model_used"] == "../Büro *1"


def test_the_same_request_gives_the_same_bytes() -> None:
    class Noisy(FakeVoiceFamily):
        noise = 1e-3

    first, second, other = (
        cover_parts(fake_models(voices=Noisy)[0], seed=seed, pitch_change_all=1)["sha256"] for seed in (1, 1, 2)
    )
    assert first == second != other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny.save_bag(folder / "tiny", {"a": tiny.htdemucs()})
    return folder


def test_a_whole_song_is_separated_in_the_same_job(folder: Path) -> None:
    models, calls = fake_models(separation=DemucsFamily(WeightLocations(explicit=folder)))
    song, wav = make_instrumental(RATE), dict[str, Any](FLOAT)
    reply = call(models, audio=encode_wav(song), separation_model="tiny", return_stems=True, **wav)
    assert list(reply["stems"]) == ["vocals", "instrumental"] and reply["parameters"]["separation_model"] == "tiny"
    assert decode_audio(reply)[0].shape == song.shape and reply["timings"]["separate_s"] > 0
    two = answer(
        {"id": "s", "input": {"operation": "separate", "audio": encode_wav(song), "model": "tiny",
                              "two_stems": "vocals"} | FLOAT},
        settings=Settings(), models=models,
    )  # fmt: skip
    rest = decode_audio(two["stems"]["no_vocals"])[0]
    np.testing.assert_allclose(decode_audio(reply["stems"]["instrumental"])[0], rest * 10 ** (-7 / 20), atol=1e-6)
    assert len(calls.converted) == 1


def test_a_separation_model_without_vocals_is_refused(folder: Path) -> None:
    models, calls = fake_models(separation=DemucsFamily(WeightLocations(explicit=folder)))
    with pytest.raises(InvalidRequestError, match="nope"):
        call(models, audio=encode_wav(make_instrumental(RATE)), separation_model="nope")
    assert calls.loaded == []


def test_progress_passes_every_stage_and_never_decreases(folder: Path) -> None:
    models, _ = fake_models(separation=DemucsFamily(WeightLocations(explicit=folder)))
    updates: list[Mapping[str, Any]] = []
    job = {"id": "p", "input": {"operation": "generate_cover", "voice_model": "my_voice", "pitch_change_all": 1,
                                "audio": encode_wav(make_instrumental(RATE)), "separation_model": "tiny"}}  # fmt: skip
    answer(job, settings=Settings(), models=models, report=updates.append)
    stages = list(dict.fromkeys(update["stage"] for update in updates))
    percents = [update["percent"] for update in updates]
    assert [stage for stage in stages if stage in ("separate", "pitch", "convert", "key")] == [
        "separate", "pitch", "convert", "key",
    ]  # fmt: skip
    assert percents == sorted(percents)


def test_a_cancelled_job_ends(voices: tuple[Models, Calls]) -> None:
    cancel = threading.Event()

    def report(update: Mapping[str, Any]) -> None:
        if update["stage"] == "convert":
            cancel.set()

    sounds = {"voice_audio": encode_wav(make_vocals(RATE)), "instrument_audio": encode_wav(make_instrumental(RATE))}
    job = {"id": "c", "input": {"operation": "generate_cover", "params": {"voice_model": "my_voice", **sounds}}}
    with pytest.raises(CancelledError):
        answer(job, settings=Settings(), models=voices[0], cancel=cancel, report=report)


def test_the_reply_is_json(voices: tuple[Models, Calls]) -> None:
    assert json.loads(json.dumps(cover_parts(voices[0], return_stems=True)))["success"] is True
