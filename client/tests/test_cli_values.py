"""From the text of options to JSON values, and the small parts of the command line."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import click
import pytest
from fake_platform import make_wav

from music_worker.cli.drawing import draw_peaks, draw_waveform
from music_worker.cli.player import find_player
from music_worker.cli.progress import describe_stage, describe_time, format_seconds
from music_worker.cli.saving import describe_value, make_base_name, make_slug
from music_worker.cli.values import parse_item, parse_unknown, parse_value, parse_values
from music_worker.jobs import JobState, Progress
from music_worker.schema import load_schemas

OPERATIONS = load_schemas().operations


def parse(operation: str, field: str, text: str) -> Any:
    schema = OPERATIONS[operation]
    return parse_value(text, schema["properties"][field], schema.get("$defs", {}))


@pytest.mark.parametrize(
    ("operation", "field", "text", "value"),
    [
        ("generate_music", "duration", "20", 20),
        ("generate_music", "duration", "2.5", 2.5),
        ("generate_music", "duration", "long", "long"),
        ("generate_music", "seed", "7", 7),
        ("generate_music", "seed", "7,8", [7, 8]),
        ("generate_music", "seed", "[7, 8]", [7, 8]),
        ("generate_music", "bpm", "auto", "auto"),
        ("generate_music", "lyrics", "[Verse] one, two", "[Verse] one, two"),
        ("generate_music", "prompt", "one, two", "one, two"),
        ("generate_music", "prompt", '["one", "two"]', ["one", "two"]),
        ("generate_music", "prompt", "80", "80"),
        ("separate", "stems", "drums, bass", ["drums", "bass"]),
        ("separate", "audio", "@song.mp3", "@song.mp3"),
        ("decode_audio", "codes", "[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("decode_audio", "codes", "codes.npz", "codes.npz"),
        ("mix_audio", "master", '[{"effect": "reverb"}]', [{"effect": "reverb"}]),
        ("release_task", "metas", '{"bpm": 90}', {"bpm": 90}),
    ],
)
def test_text_becomes_what_the_schema_says(operation: str, field: str, text: str, value: Any) -> None:
    assert parse(operation, field, text) == value


def test_a_number_that_is_none_stays_for_the_validation_to_refuse() -> None:
    assert math.isnan(parse("separate", "overlap", "nan"))


def test_lists_that_are_given_in_parts_are_joined() -> None:
    schema = OPERATIONS["separate"]
    assert parse_values(("drums", "bass,other"), schema["properties"]["stems"], {}) == ["drums", "bass", "other"]


def test_a_track_is_a_path_with_values_or_json(tmp_path: Path) -> None:
    definitions = OPERATIONS["mix_audio"]["$defs"]
    track = definitions["Track"]
    assert parse_item("a.wav", track, definitions) == {"audio": "a.wav"}
    assert parse_item("C:\\a.wav:name=bass,pan=1", track, definitions) == {
        "audio": "C:\\a.wav",
        "name": "bass",
        "pan": 1,
    }
    odd = tmp_path / "a:b=1"
    odd.touch()
    assert parse_item(str(odd), track, definitions) == {"audio": str(odd)}, "a file that exists is a file"
    with pytest.raises(click.UsageError):
        parse_item("{broken", track, definitions)


def test_an_unknown_parameter_is_json_or_text() -> None:
    assert parse_unknown("deep-mode=true") == ("deep_mode", True)
    assert parse_unknown("mood=calm = quiet") == ("mood", "calm = quiet")
    with pytest.raises(click.BadParameter):
        parse_unknown("mood")


def test_results_are_named_after_text_or_input() -> None:
    assert make_slug("Calm piano: 80 bpm, C# minor!") == "calm-piano-80-bpm-c-minor"
    assert make_slug("Größe 漢字") == "grösse-漢字"
    assert len(make_slug("word " * 100)) <= 48
    assert make_base_name({"audio": "/music/My Song.mp3", "prompt": "x"}) == "My Song"
    assert make_base_name({"audio": "https://example.com/a/song.mp3?sig=1"}) == "song"
    assert make_base_name({"audio": "data:audio/wav;base64,AAAA", "prompt": "../../etc"}) == "etc"
    assert make_base_name({"steps": []}) == ""


def test_values_are_shown_on_one_line() -> None:
    assert describe_value({"bpm": 103.05, "range": [1, 2], "more": {"a": 1}, "none": None}) == (
        "bpm 103.05, range 1, 2, more (a 1)"
    )
    assert describe_value(list(range(9))) == "0, 1, 2, 3, 4, 5, ... (9 in all)"
    assert describe_value("two\nlines") == "two / lines" and describe_value(False) == "no"


def make_progress(state: JobState, **more: Any) -> Progress:
    return Progress(job_id="job", state=state, **more)


def test_progress_is_described_for_people() -> None:
    assert describe_stage(make_progress(JobState.IN_QUEUE)) == "Queued"
    assert describe_stage(make_progress(JobState.IN_PROGRESS)) == "Running"
    assert describe_stage(make_progress(JobState.IN_PROGRESS, stage="generate")) == "Generate"
    assert describe_time(make_progress(JobState.IN_PROGRESS, remaining_s=95.0)) == "1:35 left"
    assert describe_time(make_progress(JobState.IN_QUEUE, elapsed_s=5.0)) == "5 s"
    assert format_seconds(3723) == "1:02:03"


def test_a_waveform_is_as_high_as_the_audio_is_loud() -> None:
    upper, lower = draw_peaks([0.0, 0.5, 1.0, 2.0])
    assert lower == "▁███" and upper == "  ██"


@pytest.mark.parametrize("kind", ["int16", "int24", "int32", "float", "extensible"])
def test_the_waveform_of_every_kind_of_wav_is_read(kind: str, tmp_path: Path) -> None:
    samples = [0.0] * 500 + [0.99] * 500
    width, code = {"int16": (2, 1), "int24": (3, 1), "int32": (4, 1), "float": (4, 3), "extensible": (2, 0xFFFE)}[kind]
    if kind == "float":
        data = struct.pack(f"<{len(samples)}f", *samples)
    else:
        full_scale = (1 << (8 * width - 1)) - 1
        data = b"".join(int(sample * full_scale).to_bytes(width, "little", signed=True) for sample in samples)
    layout = struct.pack("<HHIIHH", code, 1, 8000, 8000 * width, width, 8 * width)
    if kind == "extensible":
        layout += struct.pack("<HHIH", 22, 16, 0, 1) + bytes(14)
    path = tmp_path / "a.wav"
    header = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunk = b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(data))
    path.write_bytes(header + chunk + data)
    upper, lower = draw_waveform(path, columns=10)
    assert lower == "▁" * 5 + "█" * 5 and upper == " " * 5 + "█" * 5


def test_a_file_that_is_no_audio_has_no_waveform(tmp_path: Path) -> None:
    for content in (b"", b"RIFF", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0", b"\0" * 100, make_wav()[:30]):
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        assert draw_waveform(path, columns=10) == []


def test_a_player_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUSIC_WORKER_PLAYER", "my-player --volume 50")
    assert find_player(Path("a b.wav")) == ["my-player", "--volume", "50", "a b.wav"]
    monkeypatch.delenv("MUSIC_WORKER_PLAYER")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_player(Path("a.wav")) is None
    (tmp_path / "aplay").touch(mode=0o755)
    assert find_player(Path("a.mp3")) is None, "aplay plays wav only"
    assert find_player(Path("a.wav")) == [str(tmp_path / "aplay"), "-q", "a.wav"]
