"""The operation `separate`, from JSON to reply, with tiny models in the real files."""

from __future__ import annotations

import base64
import io
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audio import Audio
from audio.types import AudioSource, DiskAudio
from errors import AudioError, CancelledError, InvalidRequestError, ModelError, RequestError, UnknownNameError
from models import Models, registry
from models.separation import InferenceOptions, plan_stems, plan_two_stems, separate
from operations.operation import find_operation
from testing import tiny_demucs as tiny
from testing.dispatch import answer
from worker.settings import Settings

Waveform = NDArray[np.float32]
RATE = 44_100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with `models/`: a plain model, one of six stems, one of specialists, an old one."""
    volume = tmp_path_factory.mktemp("volume")
    models = volume / "models"
    tiny.save_bag(models / "tiny", {"a": tiny.htdemucs()})
    tiny.save_bag(models / "six", {"a": tiny.htdemucs_6s()})
    identity = [[float(row == column) for column in range(4)] for row in range(4)]
    tiny.save_bag(models / "ft", {name: tiny.htdemucs(seed=i) for i, name in enumerate("abcd")}, weights=identity)
    tiny.save_package(tiny.htdemucs(), models / "old", "955717e8")
    (models / "foreign").mkdir()
    tiny.save(tiny.htdemucs(), models / "foreign" / "x.safetensors", metadata={"klass": "os.system"})
    return volume


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    return registry.build(device="cpu", models_dir=folder / "models")


@pytest.fixture(autouse=True)
def no_temporary_files_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []


def make_music(channels: int, num_samples: int, level: float = 0.2, seed: int = 0) -> Waveform:
    generator = np.random.default_rng(seed)
    swell = np.abs(np.sin(np.arange(num_samples) / 5000)) + 0.1
    return (level * generator.standard_normal((channels, num_samples)) * swell).astype(np.float32)


def encode(waveform: Waveform, sample_rate: int = RATE, form: str = "WAV", subtype: str = "FLOAT") -> str:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, sample_rate, format=form, subtype=subtype)
    return base64.b64encode(file.getvalue()).decode()


def call(models: Models, folder: Path, **params: Any) -> dict[str, Any]:
    settings = Settings(models_dir=folder / "models", volume_dirs=(folder,))
    job = {"id": "job", "input": {"operation": "separate", "params": {"model": "tiny"} | params}}
    return answer(job, settings=settings, models=models)


def decode_audio(artefact: Mapping[str, Any]) -> tuple[Waveform, int]:
    data = base64.b64decode(artefact["output_audio"])
    waveform, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return waveform.T, sample_rate


FLOAT = {"output_format": "wav", "bit_depth": 32}


@pytest.mark.parametrize(
    ("channels", "sample_rate", "num_samples"),
    [(2, 44_100, 30_001), (1, 44_100, 20_000), (2, 48_000, 25_003), (1, 8000, 4001), (2, 192_000, 50_000)],
)
def test_stems_have_the_inputs_length_rate_and_channels_and_sum_to_it(
    models: Models, folder: Path, channels: int, sample_rate: int, num_samples: int
) -> None:
    mix = make_music(channels, num_samples)
    reply = call(models, folder, audio=encode(mix, sample_rate), **FLOAT)
    assert list(reply["stems"]) == tiny.FOUR
    total = np.zeros(mix.shape)
    for artefact in reply["stems"].values():
        stem, rate = decode_audio(artefact)
        assert stem.shape == mix.shape and rate == sample_rate
        assert (artefact["channels"], artefact["sample_rate"]) == (channels, sample_rate)
        total += stem
    np.testing.assert_allclose(total, mix, atol=1e-6)
    assert reply["model_used"] == "tiny" and reply["success"] is True and reply["warnings"] == []
    assert reply["parameters"]["residual"] is True and "audio" not in reply["parameters"]
    assert reply["timings"]["separate_s"] > 0


@pytest.mark.parametrize("num_samples", [1, 2, 100])
@pytest.mark.parametrize("sample_rate", [44_100, 192_000])
def test_audio_of_a_few_samples_keeps_its_length(
    models: Models, folder: Path, num_samples: int, sample_rate: int
) -> None:
    mix = make_music(2, num_samples) + np.float32(0.1)
    for artefact in call(models, folder, audio=encode(mix, sample_rate), **FLOAT)["stems"].values():
        assert decode_audio(artefact)[0].shape == mix.shape


def test_silence_gives_silent_stems(models: Models, folder: Path) -> None:
    reply = call(models, folder, audio=encode(np.zeros((2, 5000), np.float32)), **FLOAT)
    for artefact in reply["stems"].values():
        assert np.abs(decode_audio(artefact)[0]).max() < 1e-6


def test_peaks_above_full_scale_are_kept_in_float_wav(models: Models, folder: Path) -> None:
    mix = make_music(2, 20_000, level=1.5)
    reply = call(models, folder, audio=encode(mix), **FLOAT)
    total = sum(decode_audio(artefact)[0].astype(np.float64) for artefact in reply["stems"].values())
    np.testing.assert_allclose(total, mix, atol=1e-6 * np.abs(mix).max())
    assert np.abs(total).max() > 1 and reply["warnings"] == []


def test_all_stems_are_lowered_by_one_gain_if_the_format_cannot_hold_them(models: Models, folder: Path) -> None:
    mix = make_music(2, 20_000, level=1.5)
    reply = call(models, folder, audio=encode(mix), output_format="flac", bit_depth=24)
    stems = [decode_audio(artefact)[0].astype(np.float64) for artefact in reply["stems"].values()]
    assert max(np.abs(stem).max() for stem in stems) == pytest.approx(0.9999, abs=1e-4)
    gain = np.vdot(sum(stems), mix) / np.vdot(mix, mix)
    np.testing.assert_allclose(sum(stems), gain * mix, atol=1e-5)
    assert len(reply["warnings"]) == 1 and "above full scale" in reply["warnings"][0]


def test_eight_channels_come_back_in_stereo_with_a_warning(models: Models, folder: Path) -> None:
    reply = call(models, folder, audio=encode(make_music(8, 5000)), **FLOAT)
    assert {artefact["channels"] for artefact in reply["stems"].values()} == {2}
    assert any("downmixed" in warning for warning in reply["warnings"])


def test_only_the_requested_stems_are_returned(models: Models, folder: Path) -> None:
    audio = encode(make_music(2, 20_000))
    everything = call(models, folder, audio=audio, residual=False, **FLOAT)
    some = call(models, folder, audio=audio, stems=["vocals", "bass"], **FLOAT)
    assert list(some["stems"]) == ["vocals", "bass"]
    for name, artefact in some["stems"].items():
        np.testing.assert_array_equal(decode_audio(artefact)[0], decode_audio(everything["stems"][name])[0])
    assert some["parameters"]["residual"] is False and some["warnings"] == []


def test_a_residual_without_effect_gives_a_warning(models: Models, folder: Path) -> None:
    reply = call(models, folder, audio=encode(make_music(2, 3000)), stems=["bass"], residual=True, **FLOAT)
    assert any("'residual' has no effect" in warning for warning in reply["warnings"])


@pytest.mark.parametrize("model", ["tiny", "six", "ft"])
@pytest.mark.parametrize("residual", [True, False])
def test_two_stems_returns_the_stem_and_its_complement(
    models: Models, folder: Path, model: str, residual: bool
) -> None:
    mix = make_music(2, 20_000)
    options = {"audio": encode(mix), "model": model, "residual": residual} | FLOAT
    reply = call(models, folder, two_stems="vocals", **options)
    vocals, rest = (decode_audio(reply["stems"][name])[0] for name in ("vocals", "no_vocals"))
    everything = call(models, folder, **(options | {"residual": False}))["stems"]
    np.testing.assert_array_equal(vocals, decode_audio(everything["vocals"])[0])
    expected = mix - vocals
    if not residual:
        expected = np.sum(
            [decode_audio(artefact)[0] for name, artefact in everything.items() if name != "vocals"], axis=0
        )
    np.testing.assert_allclose(rest, expected, atol=1e-6)


def test_the_complement_of_vocals_is_also_returned_as_instrumental(models: Models, folder: Path) -> None:
    stems = call(models, folder, audio=encode(make_music(2, 3000)), two_stems="vocals", **FLOAT)["stems"]
    assert list(stems) == ["vocals", "no_vocals", "instrumental"]
    assert stems["instrumental"] == stems["no_vocals"] | {"same_as": "no_vocals"}
    drums = call(models, folder, audio=encode(make_music(2, 3000)), two_stems="drums", **FLOAT)["stems"]
    assert list(drums) == ["drums", "no_drums"]


def test_inline_the_alias_has_no_audio_if_the_budget_is_short(models: Models, folder: Path) -> None:
    mix = make_music(2, 30_000)
    settings = Settings(models_dir=folder / "models", inline_budget_bytes=800_000)
    params = {"model": "tiny", "audio": encode(mix), "two_stems": "vocals"} | FLOAT
    reply = answer({"input": {"operation": "separate", "params": params}}, settings=settings, models=models)
    assert "output_audio" in reply["stems"]["no_vocals"]
    assert "output_audio" not in reply["stems"]["instrumental"]
    assert reply["stems"]["instrumental"]["same_as"] == "no_vocals"


def test_shifts_are_reproducible_by_their_seed(models: Models, folder: Path) -> None:
    audio = encode(make_music(2, 10_000))
    first, again, other = (
        call(models, folder, audio=audio, stems=["bass"], shifts=1, seed=seed)["stems"]["bass"] for seed in (1, 1, 2)
    )
    assert first["sha256"] == again["sha256"] != other["sha256"]


def test_the_same_request_gives_the_same_bytes(models: Models, folder: Path) -> None:
    first, second = (call(models, folder, audio=encode(make_music(2, 10_000)))["stems"] for _ in range(2))
    assert [a["sha256"] for a in first.values()] == [a["sha256"] for a in second.values()]


def test_an_old_checkpoint_folder_works(models: Models, folder: Path) -> None:
    reply = call(models, folder, audio=encode(make_music(2, 3000)), model="old", two_stems="drums", **FLOAT)
    assert list(reply["stems"]) == ["drums", "no_drums"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"stems": ["guitar"]}, ["'stems' names 'guitar'", "drums, bass, other, vocals"]),
        ({"stems": ["vocal"]}, ["Did you mean 'vocals'"]),
        ({"two_stems": "no_vocals"}, ["'two_stems' names 'no_vocals'"]),
        ({"model": "old", "stems": ["guitar"]}, ["'stems' names 'guitar'"]),
        ({"segment": 7.8}, ["'segment' is 7.8 s", "at most 1.56 s"]),
        ({"stems": ["bass"], "two_stems": "bass"}, ["cannot be used together"]),
        ({"stems": ["bass", "bass"]}, ["a stem twice"]),
        ({"stems": []}, ["'stems'"]),
        ({"shifts": 11, "overlap": 1.0, "segment": 0}, ["'shifts'", "'overlap'", "'segment'"]),
        ({"shifts": True}, ["'shifts'"]),
        ({"stem": "vocals"}, ["'stem' is unknown", "stems"]),
    ],
)
def test_an_invalid_request_is_refused_with_the_reason(
    models: Models, folder: Path, params: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call(models, folder, audio=encode(make_music(2, 2000)), **params)
    assert all(word in caught.value.message for word in words), caught.value.message


def test_an_unknown_model_suggests_the_nearest_name(models: Models, folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny'"):
        call(models, folder, audio=encode(make_music(2, 2000)), model="tinny")


def test_a_model_of_an_unknown_class_is_refused(models: Models, folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        call(models, folder, audio=encode(make_music(2, 2000)), model="foreign")
    assert caught.value.error_code == "broken_checkpoint" and "'x.safetensors'" in caught.value.message
    assert str(folder) not in caught.value.message


@pytest.mark.parametrize(
    ("audio", "code"),
    [
        (encode(np.full((2, 100), np.nan, np.float32)), "nan_audio"),
        (encode(np.zeros((2, 0), np.float32)), "empty_audio"),
        ("!!!", "invalid_base64"),
        (encode(make_music(1, 100), 384_000), "sample_rate_too_high"),
    ],
)
def test_broken_audio_is_refused_before_any_model_is_loaded(folder: Path, audio: str, code: str) -> None:
    untouched = registry.build(device="cpu", models_dir=folder / "models")
    with pytest.raises(AudioError) as caught:
        call(untouched, folder, audio=audio)
    assert caught.value.error_code == code and untouched.list_loaded() == []


def test_progress_increases_during_separation_and_a_cancel_ends_it(models: Models, folder: Path) -> None:
    seen: list[Mapping[str, Any]] = []
    cancel = threading.Event()

    def report(update: Mapping[str, Any]) -> None:
        seen.append(update)
        if update["percent"] > 40:
            cancel.set()

    job = {"input": {"operation": "separate", "model": "tiny", "audio": encode(make_music(2, 6 * RATE))}}
    with pytest.raises(CancelledError):
        answer(job, settings=Settings(), models=models, cancel=cancel, report=report)
    assert {update["stage"] for update in seen} == {"separate"}
    assert 40 < seen[-1]["percent"] < 90
    assert call(models, folder, audio=encode(make_music(2, 2000)))["success"], "the worker is fit for the next job"


class Scaled:
    """Stands in for a separator: stem k is the mix times k + 1, in blocks of any size."""

    stems = ("a", "b", "other")
    sample_rate = RATE

    def separate(self, mix: Any, stems: Any, **options: Any) -> Iterator[Waveform]:
        for start in range(0, mix.num_samples, 40_000):
            block = mix.read(start, min(40_000, mix.num_samples - start))
            yield np.stack([block * (self.stems.index(name) + 1) for name in stems])


def collect_stems(mix: AudioSource, plan: Any) -> dict[str, Waveform]:
    done = list(separate(Scaled(), mix, plan, InferenceOptions(), lambda fraction: None))  # type: ignore[arg-type]
    return {name: np.concatenate([part[name] for part in done], axis=1) for name in done[0]}


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 11_025])
def test_audio_on_disk_and_in_memory_is_separated_alike(sample_rate: int) -> None:
    waveform = make_music(2, 300_000)
    plan = plan_stems(Scaled.stems, stems=None, residual=True)
    with DiskAudio(2, sample_rate) as recording:
        recording.append(waveform)
        from_disk = collect_stems(recording, plan)
    from_memory = collect_stems(Audio(waveform, sample_rate), plan)
    for name in Scaled.stems:
        np.testing.assert_allclose(from_disk[name], from_memory[name], atol=1e-6)
    np.testing.assert_allclose(sum(from_disk.values()), waveform, atol=1e-6)


def test_resampled_stems_stay_in_time() -> None:
    """A sound below 20 kHz that goes to the model's rate and back is itself again, to the sample."""
    time_s = np.arange(96_000) / 48_000
    waveform = np.stack([np.sin(2 * np.pi * 1000 * time_s), np.sin(2 * np.pi * 333 * time_s)]).astype(np.float32)
    stems = collect_stems(Audio(waveform, 48_000), plan_stems(Scaled.stems, stems=["a"], residual=False))
    np.testing.assert_allclose(stems["a"][:, 2000:-2000], waveform[:, 2000:-2000], atol=1e-4)


def test_without_a_stem_called_other_the_residual_is_shared() -> None:
    plan = plan_stems(("x", "y"), stems=None, residual=True)
    done = plan.assemble(np.ones((2, 1, 5), np.float32), np.full((1, 5), 3, np.float32))
    np.testing.assert_allclose(done["x"], 1.5)
    np.testing.assert_allclose(done["y"], 1.5)


def test_plans_compute_no_more_than_they_need() -> None:
    assert plan_stems(tiny.FOUR, stems=["bass"], residual=True).computed == ("bass",)
    assert plan_two_stems(tiny.FOUR, "vocals", residual=True).computed == ("vocals",)
    assert set(plan_two_stems(tiny.FOUR, "vocals", residual=False).computed) == set(tiny.FOUR)
    reordered = plan_stems(tiny.FOUR, stems=list(reversed(tiny.FOUR)), residual=True)
    assert reordered.residual and reordered.outputs == tuple(reversed(tiny.FOUR))


def test_the_operation_reads_long_audio_by_blocks() -> None:
    name, operation = find_operation("separate")
    assert name == "separate" and operation.params.input_fields() == {"audio": "audio"}


def test_the_operation_reports_its_readiness(models: Models) -> None:
    from operations.separate import get_readiness

    assert get_readiness(models).is_ready


def test_a_model_that_is_replaced_is_loaded_again_and_damaged_weights_are_named(tmp_path: Path) -> None:
    song = encode(make_music(2, RATE))
    models = registry.build(device="cpu", models_dir=tmp_path)
    request = {"operation": "separate", "audio": song, "model": "mine", "output_format": "wav"}

    def separate_with(network: Any) -> str:
        tiny.save_bag(tmp_path / "mine", {"a": network})
        reply = answer({"input": request}, settings=Settings(volume_dirs=()), models=models)
        return str(reply["stems"]["drums"]["sha256"])

    first, second = separate_with(tiny.htdemucs(seed=1)), separate_with(tiny.htdemucs(seed=2))
    damaged = tiny.htdemucs(seed=1)
    next(iter(damaged.parameters())).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="'mine' cannot be used: its stems have samples that are not finite") as caught:
        separate_with(damaged)
    assert caught.value.error_code == "broken_checkpoint"
    assert first != second and separate_with(tiny.htdemucs(seed=1)) == first
