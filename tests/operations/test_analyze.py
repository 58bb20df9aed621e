"""The operation `analyze`: what the reply has, what it leaves out, pictures, bad input, cancel and progress."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from audio import Audio
from audio.analysis.rhythm import TrackedBeats
from audio.files.formats import Encoding
from audio.types import AudioSource
from errors import AudioError, CancelledError, ErrorCode, InvalidRequestError, ModelError, UnknownNameError
from models import Models, registry
from models.beat_this import BeatThisFamily
from models.beat_this.tracker import BeatTracker
from models.checkpoints.locations import WeightLocations
from models.runtime.progress import Progress
from operations.analyze.params import FEATURES
from operations.analyze.pitch import name_note
from testing.dispatch import answer
from testing.models import make_models
from testing.signals import encode_file, make_noise
from testing.songs import make_song
from testing.tiny_beat_this import make_state, write_checkpoint
from worker.settings import Settings

ALWAYS = {"success", "operation", "duration", "sample_rate", "channels", "parameters", "timings", "warnings"}


@pytest.fixture(scope="module")
def models() -> Models:
    return registry.build(device="cpu")


def to_base64(audio: Audio) -> str:
    return base64.b64encode(encode_file(audio, Encoding("wav", 32))).decode()


def analyze(audio: Audio, models: Models, **params: Any) -> dict[str, Any]:
    return answer(
        {"input": {"operation": "analyze", "audio": to_base64(audio), **params}}, settings=Settings(), models=models
    )


def decode_png(artefact: Mapping[str, Any]) -> Image.Image:
    data = base64.b64decode(artefact["output_file"], validate=True)
    assert len(data) == artefact["size"] and artefact["format"] == "png"
    return Image.open(io.BytesIO(data), formats=["PNG"])


def make_voice(hertz: float, seconds: float = 2.0, sample_rate: int = 16_000) -> Audio:
    """A harmonic tone whose pitch sweeps from three semitones below `hertz` to three above."""
    semitones = np.linspace(-3, 3, int(seconds * sample_rate))
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (semitones / 12)) / sample_rate
    partials = [0.2 / number * np.sin(number * phase) for number in range(1, 6)]
    return Audio(np.sum(partials, axis=0)[None].astype(np.float32), sample_rate)


@pytest.fixture(scope="module")
def song_reply(models: Models) -> dict[str, Any]:
    return analyze(make_song(["Am", "F", "C", "G"], bpm=96, bars=8), models)


def test_the_reply_has_every_feature_but_the_pitch(song_reply: dict[str, Any]) -> None:
    assert set(song_reply) == ALWAYS | set(FEATURES) - {"pitch"}
    assert song_reply["tempo"]["bpm"] == pytest.approx(96, rel=0.005)
    assert song_reply["tempo"]["alternative"]["bpm"] in (pytest.approx(48, rel=0.01), pytest.approx(192, rel=0.01))
    assert song_reply["time_signature"] == "4/4"
    assert (song_reply["key"]["name"], song_reply["key"]["tonic"], song_reply["key"]["mode"]) == (
        "A minor",
        "A",
        "minor",
    )
    assert song_reply["key"]["runner_up"]["name"] == "C major"
    assert song_reply["key"]["tuning_hz"] == pytest.approx(440, abs=2)
    assert [chord["name"] for chord in song_reply["chords"] if chord["name"] != "N"] == ["Am", "F", "C", "G"] * 2
    assert song_reply["downbeats"] == [beat for beat in song_reply["beats"] if beat in set(song_reply["downbeats"])]
    assert set(song_reply["spectral"]) == {"centroid_hz", "rolloff_hz", "bandwidth_hz", "flatness"}
    assert song_reply["clipping"] == {"runs": 0, "samples": 0, "longest_ms": 0.0}


def test_levels_are_those_of_a_known_sine(models: Models) -> None:
    sine = 0.5 * np.sin(2 * np.pi * 997 * np.arange(4 * 48_000) / 48_000)
    reply = analyze(Audio(np.stack([sine, sine]).astype(np.float32), 48_000), models, features=["loudness"])
    assert reply["loudness"] == {
        "integrated_lufs": pytest.approx(-6.02, abs=0.1),
        "range_lu": pytest.approx(0, abs=0.05),
        "true_peak_dbtp": pytest.approx(-6.02, abs=0.05),
        "sample_peak_dbfs": pytest.approx(-6.02, abs=0.02),
        "rms_dbfs": pytest.approx(-9.03, abs=0.02),
    }


@pytest.mark.parametrize("feature", FEATURES)
def test_only_what_is_asked_for_is_computed(feature: str, models: Models) -> None:
    reply = analyze(make_song(["C"], bars=2), models, features=[feature])
    assert set(reply) == ALWAYS | {feature}
    assert reply["parameters"]["features"] == [feature]
    stage = "music" if feature in ("tempo", "beats", "downbeats", "time_signature", "key", "chords") else feature
    assert set(reply["timings"]) == {"intake_s", f"{stage}_s", "total_s"}


def test_silence_is_listed_by_the_thresholds_of_the_request(models: Models) -> None:
    waveform = make_noise(1, 80_000)
    waveform[:, 16_000:24_000] *= 1e-4
    gap = Audio(waveform, 8000)
    spans = [
        analyze(gap, models, features=["silence"], **params)["silence"]
        for params in ({}, {"min_silence": 2}, {"silence_threshold_db": -110})
    ]
    assert spans == [[{"start": 2.0, "end": 3.0}], [], []]


@pytest.mark.parametrize("method", ["pm", "harvest"])
def test_pitch_is_told_on_request_with_note_names(method: str, models: Models) -> None:
    reply = analyze(make_voice(220.0), models, features=["clipping"], pitch=True, f0_method=method)
    pitch = reply["pitch"]
    assert set(reply) == ALWAYS | {"clipping", "pitch"}
    assert (pitch["median_hz"], pitch["median_note"]) == (pytest.approx(220, rel=0.02), "A3")
    assert pitch["low_hz"] == pytest.approx(220 * 2 ** (-2.7 / 12), rel=0.02)
    assert pitch["high_hz"] == pytest.approx(220 * 2 ** (2.7 / 12), rel=0.02)
    assert (pitch["low_note"], pitch["high_note"]) == ("F#3", "C4") and pitch["voiced"] > 0.9
    assert reply["parameters"]["f0_method"] == method


@pytest.mark.parametrize(("hertz", "name"), [(440, "A4"), (261.63, "C4"), (61.0, "B1"), (1000, "B5"), (277.2, "C#4")])
def test_notes_have_their_usual_names(hertz: float, name: str) -> None:
    assert name_note(hertz) == name


def test_pictures_come_as_png_files(models: Models) -> None:
    reply = analyze(make_song(["C"], bars=2), models, features=["tempo"], picture=True)
    assert set(reply) == ALWAYS | {"tempo", "files"} and set(reply["files"]) == {"waveform", "spectrogram"}
    assert {decode_png(artefact).width for artefact in reply["files"].values()} == {1668}
    assert reply["files"]["waveform"]["filename"] == "waveform.png"
    assert reply["parameters"]["delivery"] == "inline"


def test_pictures_can_be_delivered_to_the_volume(models: Models, tmp_path: Path) -> None:
    reply = answer(
        {
            "input": {
                "operation": "analyze",
                "audio": to_base64(make_voice(220)),
                "features": ["clipping"],
                "picture": True,
                "delivery": "volume",
            }
        },
        settings=Settings(volume_dirs=(tmp_path,)),
        models=models,
    )
    paths = {name: Path(artefact["output_path"]) for name, artefact in reply["files"].items()}
    assert all(path.is_relative_to(tmp_path) and Image.open(path).format == "PNG" for path in paths.values())


class FakeTracker(BeatTracker):
    """Finds five beats a bar at 150 beats per minute, whatever is played."""

    def __init__(self) -> None:
        self.lengths: list[float] = []

    def track(self, source: AudioSource, progress: Progress) -> TrackedBeats:
        progress(0.5)
        self.lengths.append(source.duration)
        beats = np.arange(0.2, source.duration, 0.4)
        return TrackedBeats(beats, beats[1::5])


class FakeBeatFamily(BeatThisFamily):
    """A family whose file is here, and whose engine is a `FakeTracker`."""

    def __init__(self, folder: Path) -> None:
        write_checkpoint(folder / "small0.ckpt", make_state())
        super().__init__(WeightLocations(explicit=folder))
        self.tracker = FakeTracker()

    def load(self, name: str, *, device: str) -> BeatTracker:
        return self.tracker

    def engine_bytes(self, engine: BeatTracker) -> int:
        return 0


def test_a_beat_model_that_is_here_finds_beats_bars_and_tempo(tmp_path: Path) -> None:
    family = FakeBeatFamily(tmp_path)
    models = make_models(beats=family)
    song = make_song(["Am", "F", "C", "G"], bpm=96, bars=6)
    reply = analyze(song, models)
    assert family.tracker.lengths == [song.duration] and reply["parameters"]["beat_model"] == "small0"
    assert reply["beats"][:3] == [0.2, 0.6, 1.0] and reply["downbeats"][:2] == [0.6, 2.6]
    assert reply["tempo"]["bpm"] == pytest.approx(150) and reply["tempo"]["confidence"] == 1.0
    assert reply["tempo"]["alternative"]["bpm"] == pytest.approx(75) and reply["tempo"]["range"] == [150.0, 150.0]
    assert reply["time_signature"] == "5/4" and reply["key"]["name"] == "A minor"
    assert reply["timings"]["beats_s"] >= 0
    assert "beats_s" not in analyze(song, models, features=["loudness"])["timings"]
    assert analyze(make_noise_song(0.5), models)["tempo"] is None and len(family.tracker.lengths) == 1


def test_signal_processing_can_be_asked_for_and_missing_models_are_named(tmp_path: Path) -> None:
    family = FakeBeatFamily(tmp_path)
    models = make_models(beats=family)
    reply = analyze(make_song(["C"], bars=4), models, features=["tempo"], beat_model="none")
    assert reply["parameters"]["beat_model"] == "none" and not family.tracker.lengths
    with pytest.raises(ModelError, match="put final0.ckpt"):
        analyze(make_song(["C"], bars=2), models, features=["tempo"], beat_model="final0")
    with pytest.raises(UnknownNameError, match="small0"):
        analyze(make_song(["C"], bars=2), models, features=["tempo"], beat_model="smal0")


def make_noise_song(seconds: float) -> Audio:
    return Audio(make_noise(1, int(seconds * 22_050)), 22_050)


def test_silence_gives_nulls(models: Models) -> None:
    reply = analyze(Audio(np.zeros((2, 30_000), np.float32), 22_050), models, pitch=True, picture=True)
    assert {name for name in FEATURES if reply[name] is None} == {"tempo", "time_signature", "key", "spectral", "pitch"}
    assert reply["beats"] == reply["downbeats"] == reply["chords"] == []
    assert reply["silence"] == [{"start": 0.0, "end": pytest.approx(1.361, abs=0.02)}]
    assert reply["loudness"] == {
        "integrated_lufs": None,
        "range_lu": 0.0,
        "true_peak_dbtp": None,
        "sample_peak_dbfs": None,
        "rms_dbfs": None,
    }


@pytest.mark.parametrize(
    "audio",
    [
        Audio(np.full((1, 1), 0.5, np.float32), 44_100),
        Audio(make_noise(2, 4410), 44_100),
        Audio(make_noise(1, 24_000), 8000),
        Audio(np.full((1, 66_150), 0.25, np.float32), 22_050),
        Audio(3 * make_noise(2, 96_000), 192_000),
    ],
    ids=["one sample", "0.1 s", "8 kHz mono", "direct current", "192 kHz above full scale"],
)
def test_odd_audio_gives_an_answer(audio: Audio, models: Models) -> None:
    reply = analyze(audio, models, pitch=True, picture=True)
    assert reply["success"] is True and reply["tempo"] is None and reply["key"] is None


def test_audio_of_zero_length_is_refused(models: Models) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros((0, 1)), 44_100, format="WAV")
    empty = base64.b64encode(stream.getvalue()).decode()
    with pytest.raises(AudioError) as raised:
        answer({"input": {"operation": "analyze", "audio": empty}}, settings=Settings(), models=models)
    assert raised.value.error_code == ErrorCode.EMPTY_AUDIO


def test_all_faults_of_a_request_are_told_at_once(models: Models) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        answer(
            {"input": {"operation": "analyze", "features": ["tempo", "mood"], "picture": 1, "min_silence": 0}},
            settings=Settings(),
            models=models,
        )
    faults = {error["field"]: error["problem"] for error in raised.value.details["errors"]}
    assert set(faults) == {"audio", "features", "picture", "min_silence"}
    assert "'tempo'" in faults["features"] and "'chords'" in faults["features"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"features": []}, "features"),
        ({"features": ["key", "key"]}, "features"),
        ({"f0_method": "harvest"}, "f0_method"),
    ],
)
def test_parameters_without_a_meaning_are_refused(params: dict[str, Any], field: str, models: Models) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        analyze(make_voice(220), models, **params)
    assert [error["field"] for error in raised.value.details["errors"]] == [field]


@pytest.mark.parametrize("stage", ["music", "loudness", "silence", "spectral", "clipping", "pitch", "pictures"])
def test_a_cancelled_job_ends_in_any_stage(stage: str, models: Models) -> None:
    cancel = threading.Event()

    def cancel_in_stage(update: Mapping[str, Any]) -> None:
        if update["stage"] == stage:
            cancel.set()

    song = make_song(["C"], bars=2)
    request = {"operation": "analyze", "audio": to_base64(song), "pitch": True, "picture": True}
    with pytest.raises(CancelledError):
        answer({"input": request}, settings=Settings(), models=models, cancel=cancel, report=cancel_in_stage)


def test_progress_rises_over_the_stages(models: Models) -> None:
    updates: list[tuple[str, float]] = []
    answer(
        {
            "input": {
                "operation": "analyze",
                "audio": to_base64(make_song(["C"], bars=2)),
                "pitch": True,
                "picture": True,
            }
        },
        settings=Settings(),
        models=models,
        report=lambda update: updates.append((update["stage"], update["percent"])),
    )
    percents = [percent for stage, percent in updates if stage not in ("intake", "delivery")]
    assert percents == sorted(percents) and percents[0] < 10 and 75 < percents[-1] <= 100
    stages = list(dict.fromkeys(stage for stage, _ in updates if stage not in ("intake", "delivery")))
    assert stages == ["music", "loudness", "silence", "spectral", "clipping", "pitch", "pictures"]
