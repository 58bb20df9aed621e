"""The command line against the fake platform: what it sends, what it saves, what it says, how it ends."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_platform import (
    KEY,
    Answer,
    FakePlatform,
    completed,
    failed,
    in_progress,
    in_queue,
    make_artefact,
    make_reply,
    make_wav,
    start_platform,
)

from music_worker.cli.app import run
from music_worker.config import load_login, save_login

SHIPPED = json.loads((Path(__file__).parents[1] / "src/music_worker/schema.json").read_text(encoding="utf-8"))
MODELS = {"models": [], "count": 0, "music": [{"name": "demo", "available": "local", "licence": "MIT"}]}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


Command = Callable[..., Ended]


@pytest.fixture
def models() -> dict[str, Any]:
    """What the worker answers to `list_models`."""
    return make_reply("list_models", **MODELS, **SHIPPED)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, Any]) -> Iterator[FakePlatform]:
    """A platform that the saved login names; it answers `list_models` beside what the test scripts."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    with start_platform() as platform:
        save_login(url=platform.url, api_key=KEY)
        platform.script(completed())
        yield platform


@pytest.fixture
def command(endpoint: FakePlatform, models: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> Command:
    scripted = endpoint.statuses

    def call(*words: str) -> Ended:
        others = endpoint.statuses if endpoint.statuses is not scripted else scripted
        endpoint.statuses = lambda job_input: (
            [completed(models)] if job_input["operation"] == "list_models" else others(job_input)
        )
        code = run(words)
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


def read_inputs(endpoint: FakePlatform) -> list[dict[str, Any]]:
    """The inputs of all jobs but the comparison of schemas."""
    found = [request.input for request in endpoint.list_requests("run")]
    return [one for one in found if one["operation"] != "list_models"]


def write_song(name: str = "song.wav") -> bytes:
    content = make_wav()
    Path(name).write_bytes(content)
    return content


def make_stems(*names: str) -> Mapping[str, Any]:
    stems = {name: make_artefact(make_wav(), f"{name}.wav") for name in names}
    return completed(make_reply("separate", model_used="demo", stems=stems))


def test_music_is_saved_under_the_name_of_its_prompt_and_never_overwrites(
    command: Command, endpoint: FakePlatform
) -> None:
    first = command("music", "Calm piano, 80 bpm!", "--duration", "20", "--seed", "3")
    second = command("music", "Calm piano, 80 bpm!")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out == "calm-piano-80-bpm.wav\n" and second.out == "calm-piano-80-bpm-2.wav\n"
    assert Path("calm-piano-80-bpm.wav").read_bytes() == make_wav()
    assert read_inputs(endpoint)[0] == {
        "operation": "generate_music",
        "params": {"prompt": "Calm piano, 80 bpm!", "duration": 20, "seed": 3},
    }


def test_the_name_of_the_output_decides_its_format(command: Command, endpoint: FakePlatform) -> None:
    assert command("music", "piano", "-o", "out/piano.flac").out == "out/piano.flac\n"
    assert read_inputs(endpoint)[0]["params"]["output_format"] == "flac"
    wrong = command("music", "piano", "-o", "piano.aac")
    assert wrong.code == 2 and ".wav" in wrong.err
    clash = command("music", "piano", "-o", "piano.wav", "--output-format", "mp3")
    assert clash.code == 2 and "mp3" in clash.err
    assert len(read_inputs(endpoint)) == 1


def test_a_song_is_sent_with_its_content_and_its_stems_go_to_a_folder(command: Command, endpoint: FakePlatform) -> None:
    song = write_song()
    endpoint.script(make_stems("vocals", "no_vocals"))
    ended = command("separate", "song.wav", "--two-stems", "vocals", "--shifts", "2", "--no-residual", "-o", "stems/")
    assert ended.code == 0, ended.err
    assert sorted(ended.out.split()) == ["stems/no_vocals.wav", "stems/vocals.wav"]
    params = read_inputs(endpoint)[0]["params"]
    assert base64.b64decode(params.pop("audio")) == song
    assert params == {"two_stems": "vocals", "shifts": 2, "residual": False}


def test_stems_without_an_output_are_named_after_the_song(command: Command, endpoint: FakePlatform) -> None:
    write_song("my song.wav")
    endpoint.script(make_stems("drums", "bass"))
    assert sorted(command("separate", "my song.wav").out.splitlines()) == ["my song-bass.wav", "my song-drums.wav"]
    assert sorted(command("separate", "my song.wav", "-o", "x.wav").out.split()) == ["x-bass.wav", "x-drums.wav"]


def test_lists_aliases_and_underscores_are_understood(command: Command, endpoint: FakePlatform) -> None:
    write_song()
    command("separate", "song.wav", "--stems", "drums,bass", "--stems", "vocals", "--output_format", "flac")
    command("cover", "song.wav", "--voice", "my_voice", "--f0-up-key", "-2", "--pitch-adjust", "auto")
    command("music", "--description", "calm", "--seed", "1,2", "--bpm", "auto")
    command("music", '["calm piano", "loud drums"]')
    stems, cover, seeds, batch = [one["params"] for one in read_inputs(endpoint)]
    assert stems["stems"] == ["drums", "bass", "vocals"] and stems["output_format"] == "flac"
    assert cover["voice_model"] == "my_voice" and cover["pitch_adjust"] == "auto"
    assert seeds == {"prompt": "calm", "seed": [1, 2], "bpm": "auto"}
    assert batch == {"prompt": ["calm piano", "loud drums"]}


def test_text_is_read_from_a_file(command: Command, endpoint: FakePlatform) -> None:
    Path("words.txt").write_text("[Verse]\nA river", encoding="utf-8")
    command("music", "folk", "--lyrics", "@words.txt")
    command("music", "@@home")
    assert read_inputs(endpoint)[0]["params"]["lyrics"] == "[Verse]\nA river"
    assert read_inputs(endpoint)[1]["params"]["prompt"] == "@home"
    missing = command("music", "folk", "--lyrics", "@nothing.txt")
    assert missing.code == 2 and "nothing.txt" in missing.err


def test_tracks_of_a_mix_are_files_with_values_or_json(command: Command, endpoint: FakePlatform) -> None:
    write_song("a.wav")
    write_song("b.wav")
    ended = command("mix", "a.wav:gain_db=4,pan=-0.5", '{"audio": "b.wav", "name": "bass"}', "--master", "glue")
    assert ended.code == 0, ended.err
    params = read_inputs(endpoint)[0]["params"]
    assert [set(track) for track in params["tracks"]] == [{"audio", "gain_db", "pan"}, {"audio", "name"}]
    assert params["tracks"][0]["pan"] == -0.5 and params["master"] == "glue"


def test_a_pipeline_is_read_from_its_steps_or_from_a_whole_request(command: Command, endpoint: FakePlatform) -> None:
    steps = [{"id": "music", "operation": "generate_music", "params": {"prompt": "techno"}}]
    Path("steps.json").write_text(json.dumps(steps), encoding="utf-8")
    whole = {"input": {"operation": "pipeline", "params": {"steps": steps, "return": ["$music"]}}}
    Path("whole.json").write_text(json.dumps(whole), encoding="utf-8")
    assert command("pipeline", "steps.json").code == 0
    assert command("pipeline", "whole.json", "--partial").code == 0
    first, second = [one["params"] for one in read_inputs(endpoint)]
    assert first == {"steps": steps} and second == {"steps": steps, "return": ["$music"], "partial": True}


def test_call_sends_a_request_as_it_is(command: Command, endpoint: FakePlatform) -> None:
    write_song()
    Path("request.json").write_text(
        json.dumps({"input": {"operation": "separate", "audio": "song.wav"}}), encoding="utf-8"
    )
    endpoint.script(make_stems("drums"))
    assert command("call", "request.json").code == 0
    assert command("call", '{"operation": "separate", "params": {"audio": "song.wav", "shifts": 99}}').code == 2
    assert command("call", '{"operation": "separate", "shifts": 1, "params": {}}').code == 2
    assert command("call", "[1]").code == 2
    assert command("call", "not-there.json").code == 2
    assert [set(one["params"]) for one in read_inputs(endpoint)] == [{"audio"}]


def test_what_the_schema_does_not_allow_is_refused_in_the_workers_words_before_anything_is_sent(
    command: Command, endpoint: FakePlatform
) -> None:
    ended = command("music", "x", "--duration", "9999", "--n-samples", "three", "--output-format", "aac")
    assert ended.code == 2
    assert "'duration' must be less than or equal to 600" in ended.err
    assert "'n_samples' must be a valid integer" in ended.err
    assert "'output_format' must be 'wav', 'flac'" in ended.err
    assert "'audio' is required" in command("separate").err
    assert endpoint.requests == []


def test_a_parameter_of_a_newer_worker_is_sent_by_name(command: Command, endpoint: FakePlatform) -> None:
    assert command("music", "x", "--param", "sparkle=0.5", "--param", "mood=[1, 2]").code == 0
    assert read_inputs(endpoint)[0]["params"] == {"prompt": "x", "sparkle": 0.5, "mood": [1, 2]}
    assert command("music", "x", "--param", "sparkle").code == 2


def test_a_newer_worker_is_told_once_a_day_and_works(
    command: Command, endpoint: FakePlatform, models: dict[str, Any]
) -> None:
    models["schemas"] = {**SHIPPED["schemas"], "sing": {"properties": {}}}
    models["version"] = "9.0.0"
    ended = command("music", "x")
    assert ended.code == 0 and "9.0.0" in ended.err and "sing" in ended.err
    assert "sing" in command("music", "x").err, "it is still so"
    asked = [request for request in endpoint.list_requests("run") if request.input["operation"] == "list_models"]
    assert len(asked) == 1
    assert "sing" not in command("music", "x", "--no-check").err


def test_a_worker_that_cannot_tell_its_schemas_works(command: Command, endpoint: FakePlatform) -> None:
    endpoint.statuses = lambda job_input: [failed("no")] if job_input["operation"] == "list_models" else [completed()]
    assert run(["music", "x"]) == 0


def test_an_operation_of_a_newer_worker_can_be_called_without_the_check(
    command: Command, endpoint: FakePlatform
) -> None:
    refused = command("call", '{"operation": "sing", "params": {"words": "la"}}')
    assert refused.code == 2 and "sing" in refused.err
    assert command("call", '{"operation": "sing", "params": {"words": "la"}}', "--no-check").code == 0
    assert read_inputs(endpoint) == [{"operation": "sing", "params": {"words": "la"}}]


def test_json_output_is_one_document_without_base64(command: Command) -> None:
    ended = command("music", "calm", "--json")
    assert ended.json["job_id"].startswith("job-") and ended.json["operation"] == "generate_music"
    (file,) = ended.json["files"]
    assert file["path"] == "calm.wav" and file["duration"] == 0.1 and file["format"] == "wav"
    assert "output_audio" not in ended.json["reply"] and ended.json["reply"]["filename"] == "music.wav"


def test_errors_are_json_with_a_code_too(command: Command, endpoint: FakePlatform) -> None:
    endpoint.script(failed("There is no model 'x'.", "unknown_model", valid=["demo"]))
    ended = command("--json", "music", "calm", "--model", "x")
    assert ended.code == 1
    assert ended.json["error"] == "There is no model 'x'." and ended.json["error_code"] == "unknown_model"
    assert ended.json["details"] == {"valid": ["demo"]} and ended.json["exit_code"] == 1
    usage = command("music", "calm", "--json", "--sparkle")
    assert usage.code == 2 and usage.json["error_code"] == "usage"
    assert command("music", "x", "--duration", "0", "--json").json["error_code"] == "invalid_request"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (failed("The worker crashed."), 1),
        ({"status": "TIMED_OUT"}, 1),
        ({"status": "CANCELLED"}, 1),
        (completed(make_reply(**{**make_artefact(make_wav()), "sha256": "0" * 64})), 5),
    ],
    ids=["failed", "timed out", "cancelled", "damaged"],
)
def test_the_exit_code_says_what_went_wrong(
    command: Command, endpoint: FakePlatform, script: Mapping[str, Any], code: int
) -> None:
    endpoint.script(script)
    ended = command("music", "calm")
    assert ended.code == code and ended.err.strip().startswith("Error: ") and "Traceback" not in ended.err
    assert list(Path().iterdir()) == []


def test_a_wrong_key_and_a_missing_endpoint_end_with_the_endpoints_code(
    command: Command, endpoint: FakePlatform
) -> None:
    endpoint.plan_faults("run", Answer(401))
    ended = command("music", "calm")
    assert ended.code == 3 and KEY not in ended.err + ended.out
    endpoint.plan_faults("run", Answer(404))
    assert command("music", "calm").code == 3
    assert command("logout").code == 0
    assert "login" in command("music", "calm").err


def test_an_expired_link_ends_with_the_results_code_and_leaves_no_file(
    command: Command, endpoint: FakePlatform
) -> None:
    link = f"{endpoint.origin}/files/gone.wav"
    endpoint.script(completed(make_reply(**make_artefact(make_wav(), url=link))))
    ended = command("music", "calm")
    assert ended.code == 5 and "no longer valid" in ended.err and list(Path().iterdir()) == []


def test_a_large_result_is_fetched_from_its_link(command: Command, endpoint: FakePlatform) -> None:
    content = make_wav(2.0)
    link = endpoint.serve_file("music.wav", content)
    endpoint.script(completed(make_reply(**make_artefact(content, url=link))))
    assert command("music", "calm").code == 0 and Path("calm.wav").read_bytes() == content


def test_a_file_that_is_missing_is_told_before_anything_is_sent(command: Command, endpoint: FakePlatform) -> None:
    ended = command("separate", "nothing.mp3", "--no-check")
    assert ended.code == 2 and "nothing.mp3" in ended.err
    assert read_inputs(endpoint) == []


def test_waiting_no_longer_leaves_the_job_running_and_it_can_be_waited_for_by_its_id(
    command: Command, endpoint: FakePlatform
) -> None:
    endpoint.script(*[in_progress("generate", 10)] * 1000)
    ended = command("music", "calm", "--timeout", "0.3")
    assert ended.code == 4 and "job-2" in ended.err
    assert endpoint.list_requests("cancel") == []
    endpoint.jobs["job-2"].statuses.clear()
    endpoint.jobs["job-2"].statuses.append(completed())
    waited = command("wait", "job-2", "-o", "later.wav")
    assert waited.code == 0 and waited.out == "later.wav\n"


def test_a_detached_job_prints_its_id(command: Command, endpoint: FakePlatform) -> None:
    endpoint.script(in_queue(), completed())
    assert command("music", "calm", "--detach").out == "job-2\n"
    assert command("music", "calm", "--detach", "--json").json == {"job_id": "job-3"}
    assert command("wait", "job-2").out == "music.wav\n"


def test_a_job_is_cancelled_by_its_id(command: Command, endpoint: FakePlatform) -> None:
    command("music", "calm", "--detach")
    assert command("cancel", "job-2").code == 0 and endpoint.jobs["job-2"].is_cancelled
    assert command("cancel", "nothing").code == 1


def test_a_dry_run_prints_the_request(command: Command, endpoint: FakePlatform) -> None:
    ended = command("music", "calm", "--duration", "2", "--dry-run")
    assert ended.json == {"input": {"operation": "generate_music", "params": {"prompt": "calm", "duration": 2}}}
    assert endpoint.requests == []


def test_models_are_a_table_and_health_tells_facts(command: Command, endpoint: FakePlatform) -> None:
    models = command("models")
    assert models.code == 0 and "demo" in models.out and "MIT" in models.out
    health = make_reply("health_check", status="degraded", gpu=None, operations={"separate": "ready"}, version="1.0")
    endpoint.script(completed(health))
    ended = command("health")
    assert "status: degraded" in ended.out and "operations: separate ready" in ended.out
    assert "workers: 1 idle, 1 running" in ended.err
    assert command("health", "--json").json["reply"]["status"] == "degraded"


def test_an_analysis_is_shown_and_saved_as_json(command: Command, endpoint: FakePlatform) -> None:
    write_song()
    tempo = {"bpm": 103.05, "confidence": 0.998}
    endpoint.script(completed(make_reply("analyze", tempo=tempo, beats=[n / 2 for n in range(40)], key=None)))
    ended = command("analyze", "song.wav", "-o", "song.json")
    assert "tempo: bpm 103.05, confidence 0.998" in ended.out and "(40 in all)" in ended.out
    assert ended.out.endswith("song.json\n")
    assert json.loads(Path("song.json").read_text(encoding="utf-8"))["tempo"] == tempo


def test_warnings_of_the_worker_are_shown(command: Command, endpoint: FakePlatform) -> None:
    endpoint.script(completed({**make_reply(), "warnings": ["The level was lowered."]}))
    assert "Warning: The level was lowered." in command("music", "calm", "--quiet").err


def test_the_audio_goes_to_standard_output_on_request(
    endpoint: FakePlatform, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["music", "calm", "-o", "-", "--no-check"]) == 0
    assert capfdbinary.readouterr().out == make_wav() and list(Path().iterdir()) == []


def test_every_operation_has_a_subcommand_with_every_parameter_in_its_help(command: Command) -> None:
    from music_worker.cli.operations import list_commands

    overview = command("--help").out
    for name, operation in list_commands().items():
        assert f"\n  {name} " in overview
        text = command(name, "--help").out
        for field in SHIPPED["schemas"][operation]["properties"]:
            assert f"--{field.replace('_', '-').lower()}" in text.lower(), (name, field)
    assert "Exit codes:" in overview


def test_shared_options_are_no_parameters_of_an_operation() -> None:
    from music_worker.cli.operations import DELIVERY, SHARED

    reserved = {*SHARED, *DELIVERY, "unknown", "param", "positional", "json", "timeout", "volume"}
    for name, schema in SHIPPED["schemas"].items():
        assert not reserved & set(schema["properties"]), name


def test_a_misspelled_subcommand_names_the_nearest(command: Command) -> None:
    ended = command("seperate", "song.wav")
    assert ended.code == 2 and "Did you mean 'separate'?" in ended.err


def test_shared_options_stand_before_or_after_the_subcommand(command: Command, endpoint: FakePlatform) -> None:
    assert command("--quiet", "music", "calm").err == ""
    assert command("music", "calm", "--url", endpoint.url, "--endpoint", "x").code == 2
    assert command("--url", endpoint.url, "music", "calm", "--local").code == 2


def test_login_saves_the_key_and_never_shows_it(
    command: Command, endpoint: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("logout")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    ended = command("login", "--url", endpoint.url, "--with-key")
    assert ended.code == 0 and "The endpoint answers. Workers: 1 idle, 1 running." in ended.err
    assert KEY not in ended.err + ended.out and load_login().api_key == KEY
    assert command("music", "calm").code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("rpa_WRONG\n"))
    assert command("login", "--url", endpoint.url, "--with-key").code == 3
    assert command("login", "--url", endpoint.url, "--endpoint", "abc").code == 2


def test_the_key_of_runpod_is_not_saved_for_another_address(
    command: Command, endpoint: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    assert command("login", "--url", endpoint.url, "--no-verify").code == 0
    assert load_login().api_key is None
    assert command("login", "--endpoint", "endpoint1", "--no-verify").code == 0
    assert load_login().api_key == KEY


def test_the_result_is_played_by_the_player_of_the_environment(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    monkeypatch.setenv("MUSIC_WORKER_PLAYER", f"cp --target-directory={tmp_path}")
    assert command("music", "heard", "--play").code == 0
    assert heard.with_suffix(".wav").read_bytes() == make_wav()
    monkeypatch.setenv("MUSIC_WORKER_PLAYER", "no-such-player")
    assert "no-such-player cannot be started" in command("music", "again", "--play").err


def test_the_version_is_that_of_the_client_and_of_the_schemas(command: Command) -> None:
    assert SHIPPED["version"] in command("--version").out
