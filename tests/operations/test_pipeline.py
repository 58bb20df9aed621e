"""The operation `pipeline`, from JSON to reply, with tiny models in the real files."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audio.files.formats import Encoding
from audio.types import AudioSource
from errors import CancelledError, DeadlineError, InvalidRequestError, RequestError
from models import Models
from operations.build_models import models_for
from operations.pipeline import Params, plan
from operations.pipeline.plan import Plan
from operations.pipeline.references import Reference
from operations.pipeline.run import run
from testing.dispatch import answer
from testing.signals import encode_file, make_tone
from testing.suno_worker import start_provider
from testing.tiny_volume import MUSIC, list_settings, write_volume
from worker.job import Job
from worker.reply import Reply
from worker.settings import Settings

SONG = base64.b64encode(encode_file(make_tone(1.0), Encoding("wav", 32))).decode()
GENERATE = {"operation": "generate_music", "params": {"prompt": "x", "model": MUSIC, "duration": 0.5, "seed": 3}}
SEPARATE = {"operation": "separate", "params": {"audio": "$song"}}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_volume(tmp_path_factory.mktemp("volume"))
    (folder / "song.wav").write_bytes(encode_file(make_tone(2.0), Encoding("wav")))
    return folder


@pytest.fixture(scope="module")
def settings(volume: Path) -> Settings:
    return Settings.from_env(list_settings(volume))


@pytest.fixture(scope="module")
def models(settings: Settings) -> Models:
    return models_for(settings)


@pytest.fixture(autouse=True)
def no_temporary_files_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []


def mix(*tracks: str, **params: Any) -> dict[str, Any]:
    return {"operation": "mix_audio", "params": {"tracks": [{"audio": track} for track in tracks], **params}}


def make_params(*, steps: Mapping[str, Mapping[str, Any]], **params: Any) -> dict[str, Any]:
    return {"steps": [{"id": name, **step} for name, step in steps.items()], **params}


def find_problems(**params: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        Params.parse(params)
    return {error["field"]: error["problem"] for error in caught.value.details["errors"]}


def make_plan(models: Models, **params: Any) -> Plan:
    return plan(Params.parse(make_params(**params)), models)


def catch_plan_error(models: Models, **params: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        make_plan(models, **params)
    return caught.value


def read(artefact: Mapping[str, Any]) -> NDArray[np.float32]:
    waveform, _ = soundfile.read(
        io.BytesIO(base64.b64decode(artefact["output_audio"])), dtype="float32", always_2d=True
    )
    return np.asarray(waveform.T)


def test_sound_passes_between_steps_as_float_and_the_stems_give_the_song_again(
    settings: Settings, models: Models
) -> None:
    loud = base64.b64encode(encode_file(make_tone(1.0, level=3.0), Encoding("wav", 32))).decode()
    steps = {
        "parts": {"operation": "separate", "params": {"audio": loud, "two_stems": "vocals"}},
        "mix": mix("$parts.stems.vocals", "$parts.stems.instrumental"),
    }
    params = make_params(steps=steps, output_format="wav", bit_depth=32)
    reply = answer({"input": {"operation": "pipeline", "params": params}}, settings=settings, models=models)
    original = make_tone(1.0, level=3.0).waveform
    assert abs(original).max() > 2
    np.testing.assert_allclose(read(reply), original, atol=1e-5)
    assert reply["step"] == "mix" and [step["id"] for step in reply["steps"]] == ["parts", "mix"]
    assert reply["steps"][0]["model_used"] == "htdemucs" and "delivery" not in reply["steps"][0]["parameters"]
    assert SONG not in json.dumps(reply["parameters"]) and "steps" not in reply["parameters"]


def test_a_step_gives_what_the_same_operation_gives_alone(settings: Settings, models: Models) -> None:
    request = {
        "input": {
            "operation": "generate_music",
            "params": GENERATE["params"],
        }
    }
    alone = answer(request, settings=settings, models=models)
    facts = {"operation": "analyze", "params": {"audio": "$song", "features": ["loudness"]}}
    params = make_params(steps={"song": GENERATE, "facts": facts}) | {"return": ["$song"]}
    reply = answer({"input": {"operation": "pipeline", "params": params}}, settings=settings, models=models)
    assert reply["sha256"] == alone["sha256"] and reply["steps"][0]["seed"] == alone["seed"] == 3
    assert reply["steps"][1]["loudness"]["integrated_lufs"] is not None and reply["steps"][0]["outputs"][0]["seed"] == 3


def test_codes_pass_from_encode_audio_to_the_operations_that_take_them(settings: Settings, models: Models) -> None:
    steps = {
        "song": GENERATE,
        "codes": {"operation": "encode_audio", "params": {"audio": "$song", "model": MUSIC}},
        "again": {"operation": "decode_audio", "params": {"codes": "$codes.codes"}},
        "more": {"operation": "generate_music", "params": {"model": MUSIC, "continuation_codes": "$codes.codes"}},
    }
    steps["more"]["params"] |= {"duration": 0.5}  # type: ignore[operator]
    returns = ["$again", "$more", "$codes.files.codes"]
    params = make_params(steps=steps) | {"return": returns}
    reply = answer({"input": {"operation": "pipeline", "params": params}}, settings=settings, models=models)
    assert reply["files"]["codes_codes"]["format"] == "npz"
    assert [output["duration"] for output in reply["outputs"]] == [
        pytest.approx(0.5, abs=0.1),
        pytest.approx(1.0, abs=0.1),
    ]


def test_several_returned_steps_have_their_ids_before_the_names_of_their_stems(
    settings: Settings, models: Models
) -> None:
    steps = {"a": {"operation": "separate", "params": {"audio": SONG, "stems": ["drums"]}}}
    steps["b"] = {"operation": "separate", "params": {"audio": "$a", "stems": ["drums", "bass"]}}
    params = make_params(steps=steps) | {"return": ["$a", "$b.stems.bass"]}
    reply = answer({"input": {"operation": "pipeline", "params": params}}, settings=settings, models=models)
    assert {name: stem["step"] for name, stem in reply["stems"].items()} == {"a_drums": "a", "b_bass": "b"}


def test_every_fault_of_every_step_is_in_one_error() -> None:
    problems = find_problems(
        **make_params(
            steps={
                "song": {"operation": "generate_musik"},
                "parts": {"operation": "separate", "params": {"audio": "$later", "shifs": 1, "overlap": 3}},
                "self": {"operation": "separate", "params": {"audio": "$self"}},
                "early": {"operation": "separate", "params": {"audio": "$later.stems.x"}},
                "typo": {"operation": "separate", "params": {"audio": "$erly"}},
                "odd": {"operation": "separate", "params": {"audio": "$a b", "delivery": "volume"}},
                "4 u": {"operation": "analyze", "params": {"audio": SONG, "pitch": 1}},
                "inner": {"operation": "pipeline", "params": {"steps": []}},
                "later": {"operation": "separate", "params": {"audio": SONG, "output_format": "mp3"}},
                "mix": mix("$song", "$nothing"),
                "file": {"operation": "decode_audio", "params": {"codes": "$later"}},
            }
        )
        | {"return": ["$mix", "mix", "$none"]}
    )
    assert set(problems) == {
        "steps.song.operation",
        "steps.parts.params.shifs",
        "steps.parts.params.overlap",
        "steps.self.params.audio",
        "steps.early.params.audio",
        "steps.typo.params.audio",
        "steps.odd.params.audio",
        "steps.odd.params.delivery",
        "steps.6.id",
        "steps.6.params.pitch",
        "steps.inner.operation",
        "steps.later.params.output_format",
        "steps.mix.params.tracks.1.audio",
        "steps.file.params.codes",
        "return.1",
        "return.2",
    }
    assert "Did you mean 'generate_music'" in problems["steps.song.operation"]
    assert "Did you mean 'shifts'" in problems["steps.parts.params.shifs"]
    assert "own step" in problems["steps.self.params.audio"] and "later step" in problems["steps.early.params.audio"]
    assert "Did you mean 'early'" in problems["steps.typo.params.audio"]


def test_faults_of_models_and_references_are_in_one_error_before_anything_runs(models: Models) -> None:
    steps = {
        "song": GENERATE,
        "parts": SEPARATE | {"params": {"audio": "$song", "stems": ["drums", "bass"]}},
        "facts": {"operation": "analyze", "params": {"audio": "$parts.stems.vocals"}},
        "wrong": {"operation": "separate", "params": {"audio": "$song.outputs.1"}},
        "silent": {"operation": "separate", "params": {"audio": "$facts"}},
        "model": {"operation": "separate", "params": {"audio": "$song", "model": "htdemuks"}},
    }
    error = catch_plan_error(models, steps=steps)
    listed = {entry["field"]: (entry["error_code"], entry["problem"]) for entry in error.details["errors"]}
    assert set(listed) == {"steps.facts", "steps.wrong", "steps.silent", "steps.model"}
    assert listed["steps.facts"][0] == "unknown_stem" and "drums, bass" in listed["steps.facts"][1]
    assert "number of its outputs is 1" in listed["steps.wrong"][1] and "gives no audio" in listed["steps.silent"][1]
    assert listed["steps.model"][0] == "unknown_model" and all(f"'{n}'" in error.message for n in ("facts", "model"))


@pytest.mark.parametrize("operation", ["health_check", "list_models"])
def test_a_reference_to_an_operation_without_audio_is_refused(models: Models, operation: str) -> None:
    steps = {"a": {"operation": operation}, "b": {"operation": "separate", "params": {"audio": "$a"}}}
    error = catch_plan_error(models, steps=steps)
    assert "'$a' gives no audio" in error.message and error.details["step"] == "b"


def test_one_fault_keeps_its_code_and_the_start_of_its_message(models: Models) -> None:
    steps = {"cover": {"operation": "generate_cover", "params": {"audio": SONG, "voice_model": "nobody"}}}
    error = catch_plan_error(models, steps=steps)
    assert error.error_code == "voice_not_found" and error.message.startswith("Voice model not found")
    assert error.message.endswith("(Step: 'cover'.)") and error.details["step"] == "cover"


@pytest.mark.parametrize("name", ["", "1", "a.b", "a b", "$a", "ä", "a" * 33, "a\n", "../a"])
def test_odd_ids_are_refused(name: str) -> None:
    assert set(find_problems(**make_params(steps={name: GENERATE}))) == {"steps.0.id"}


def test_an_id_that_is_used_twice_is_refused() -> None:
    assert find_problems(steps=[{"id": "a", **GENERATE}] * 2) == {"steps": "has two steps of one id"}


def test_ten_thousand_steps_are_refused_by_their_number() -> None:
    steps = [{"id": f"s{number}", "operation": "x", "params": {"a": [number] * 9}} for number in range(10_000)]
    assert set(find_problems(steps=steps)) == {"steps"}
    assert set(find_problems(steps=[])) == {"steps"}


def test_deep_nesting_and_huge_params_are_refused() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    steps = {"a": {"operation": "separate", "params": {"audio": SONG, "stems": deep}}}
    assert set(find_problems(**make_params(steps=steps))) == {"steps.a.params.stems"}
    huge = {f"field_{n}": n for n in range(20_000)}
    problems = find_problems(**make_params(steps={"a": {"operation": "separate", "params": huge}}))
    assert len(problems) == 20


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("$a", Reference("a")),
        ("$a-1_B.outputs.01", Reference("a-1_B", "outputs", "1")),
        ("$a.stems.no.vocals", Reference("a", "stems", "no.vocals")),
        ("$a.files.codes", Reference("a", "files", "codes")),
        ("$a.codes", Reference("a", "files", "codes")),
        *((text, None) for text in ("a", "$", "$a.", "$a.stems", "$a.outputs.-1", "$a.outputs.x", "$a.b.c", "$" * 200)),
    ],
)
def test_references_are_read(text: str, reference: Reference | None) -> None:
    assert Reference.parse(text) == reference


def test_artefacts_are_needed_until_the_last_step_that_uses_what_was_made_of_them(models: Models) -> None:
    steps = {"song": GENERATE, "unused": GENERATE, "parts": SEPARATE}
    steps["mix"] = mix("$parts.stems.drums", "$parts.stems.bass")
    steps["facts"] = {"operation": "analyze", "params": {"audio": "$mix"}}
    planned = make_plan(models, steps=steps, **{"return": ["$facts"]}).steps
    assert [step.needed_until for step in planned] == [2, 1, 3, 4, 5]
    assert [step.open_until for step in planned] == [5, 1, 5, 5, 5]


def test_audio_that_no_later_step_needs_is_freed(models: Models) -> None:
    alive: dict[str, list[str]] = {}
    references: dict[str, weakref.ref[AudioSource]] = {}

    def report(update: Mapping[str, Any]) -> None:
        alive[update["step"]] = [name for name, reference in references.items() if reference() is not None]

    steps = {"one": mix(SONG, SONG), "two": mix("$one", "$one"), "three": mix("$two", "$two")}
    pipeline = make_plan(models, steps=steps)
    job = Job(id="job", report=report)

    def remember(name: str, run_step: Any) -> Any:
        def run_and_remember(*arguments: Any) -> Any:
            reply = run_step(*arguments)
            references[name] = weakref.ref(reply.outputs[0].audio)
            return reply

        return run_and_remember

    observed = [replace(s, operation=replace(s.operation, run=remember(s.id, s.operation.run))) for s in pipeline.steps]
    with job.exit_stack:
        reply = run(replace(pipeline, steps=observed), job, models)
    assert alive == {"one": [], "two": ["one"], "three": ["two"]} and len(reply.outputs) == 1


def test_a_failing_step_is_named_and_with_partial_what_was_finished_comes_back(
    settings: Settings, models: Models
) -> None:
    short = {"operation": "decode_audio", "params": {"codes": "$codes.codes", "model": "demo"}}
    steps = {
        "parts": {"operation": "separate", "params": {"audio": SONG}},
        "codes": {"operation": "encode_audio", "params": {"audio": "$parts.stems.drums", "model": MUSIC}},
        "wrong": short,
        "mix": mix("$wrong", "$parts.stems.bass"),
    }
    request = {"input": {"operation": "pipeline", "params": make_params(steps=steps)}}
    with pytest.raises(RequestError) as caught:
        answer(request, settings=settings, models=models)
    assert caught.value.details["step"] == "wrong" and caught.value.error_code == "invalid_codes"
    request["input"]["params"]["partial"] = True  # type: ignore[index]
    reply = answer(request, settings=settings, models=models)
    assert reply["success"] is True and [step["id"] for step in reply["steps"]] == ["parts", "codes"]
    assert reply["failed_step"]["id"] == "wrong" and reply["failed_step"]["error_code"] == "invalid_codes"
    assert set(reply["stems"]) == {"parts_drums", "parts_bass", "parts_other", "parts_vocals"}
    assert "codes_codes" in reply["files"] and any("'wrong' failed" in warning for warning in reply["warnings"])


def test_bad_audio_of_any_step_is_refused_before_the_first_one_runs(settings: Settings, models: Models) -> None:
    stages: list[str] = []
    steps = {"song": GENERATE, "mix": mix("$song", "!")}
    request = {"input": {"operation": "pipeline", "params": make_params(steps=steps, partial=True)}}
    with pytest.raises(RequestError, match=r"^Invalid base64 audio data in 'tracks\.1\.audio'.*\(Step: 'mix'\.\)$"):
        answer(request, settings=settings, models=models, report=lambda update: stages.append(update["stage"]))
    assert not any(stage.startswith("song") for stage in stages)


def test_progress_names_step_and_stage_and_a_cancel_ends_the_whole(settings: Settings, models: Models) -> None:
    updates: list[Mapping[str, Any]] = []
    cancel = threading.Event()

    def report(update: Mapping[str, Any]) -> None:
        updates.append(update)
        if update["stage"] == "mix: mix":
            cancel.set()

    separate = {"operation": "separate", "params": {"audio": SONG}}
    steps = {"parts": separate, "mix": mix("$parts", "$parts", master="loud"), "last": mix("$mix", "$mix")}
    request = {"input": {"operation": "pipeline", "params": make_params(steps=steps, partial=True)}}
    with pytest.raises(CancelledError) as caught:
        answer(request, settings=settings, models=models, cancel=cancel, report=report)
    percents = [update["percent"] for update in updates]
    assert percents == sorted(percents) and percents[-1] < 70 and caught.value.details["step"] == "mix"
    seen = {(update["step"], update["stage"]) for update in updates}
    assert seen >= {("parts", "parts: separate"), ("mix", "mix: mix")}


def test_the_deadline_holds_for_the_whole_and_partial_delivers_what_was_finished(models: Models) -> None:
    def end(plan: Any, job: Job, models: Models) -> Reply:
        assert job.deadline == deadline
        job.deadline = time.monotonic()
        job.check()
        raise AssertionError("the deadline has passed")

    pipeline = make_plan(models, steps={"a": mix(SONG, SONG), "b": mix("$a", "$a")}, partial=True)
    first, second = pipeline.steps
    late = replace(pipeline, steps=[first, replace(second, operation=replace(second.operation, run=end))])
    deadline = time.monotonic() + 1000
    job = Job(id="job", deadline=deadline)
    with job.exit_stack:
        reply = run(late, job, models)
    assert reply.fields["failed_step"]["error_code"] == "deadline_exceeded" and job.deadline is None
    assert [output.extra["step"] for output in reply.outputs] == ["a"]
    with pytest.raises(DeadlineError) as caught:
        run(replace(late, partial=False), Job(id="job", deadline=deadline), models)
    assert caught.value.details["step"] == "b"


def test_the_ids_of_all_paid_tasks_stand_in_a_later_steps_error() -> None:
    with start_provider("happy") as (provider, models):
        song = {"operation": "generate_music", "params": {"prompt": "x", "model": "suno/V4_5"}}
        steps = {"one": song, "two": song, "mix": mix("$one", "$two.outputs.7")}
        pipeline = make_plan(models, steps=steps)
        job = Job(id="job")
        with job.exit_stack, pytest.raises(RequestError) as caught:
            run(pipeline, job, models)
    assert caught.value.details["step"] == "mix" and "'$two.outputs.7' does not exist" in caught.value.message
    assert len(provider.posts) == 2, "two equal steps are two songs"
    assert job.details["task_ids"] == {"one": "task-0001", "two": "task-0002"} and job.details["task_id"] == "task-0002"
