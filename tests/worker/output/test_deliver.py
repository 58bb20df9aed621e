"""From a reply with sounds to the JSON that leaves: formats, budget, bucket, volume, levels."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import boto3
import numpy as np
import pytest
import requests
import soundfile
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from audio import Audio
from audio.files.encode import Encoding
from errors import CancelledError, DeliveryError, InternalError, InvalidRequestError
from worker.input.load import load_audio
from worker.job import Job
from worker.output import deliver as delivery
from worker.output.artefacts import Artefact, Sounds, safe_name
from worker.output.encodings import encodings
from worker.output.inline import Budget, place_inline
from worker.output.strict_json import dump_json
from worker.reply import AudioOut, Output, Reply
from worker.settings import Settings

RATE = 44100
ARTEFACT_KEYS = {"filename", "format", "size", "sample_rate", "channels", "duration", "sha256"}
INLINE = Settings(volume_dirs=())


def noise(seconds: float, *, channels: int = 2, peak: float = 0.5, seed: int = 1, rate: int = RATE) -> Audio:
    """What compresses worst."""
    drawn = np.random.default_rng(seed).uniform(-peak, peak, (channels, int(seconds * rate)))
    return Audio(drawn.astype(np.float32), rate)


def tone(seconds: float, *, peak: float = 0.5, frequency: float = 440.0, rate: int = RATE) -> Audio:
    times = np.arange(int(seconds * rate)) / rate
    return Audio((peak * np.sin(2 * np.pi * frequency * times)).astype(np.float32)[None].repeat(2, 0), rate)


def silence(seconds: float) -> Audio:
    return Audio(np.zeros((2, int(seconds * RATE)), np.float32), RATE)


def deliver(
    reply: Reply,
    settings: Settings = INLINE,
    *,
    job: Job | None = None,
    used: Mapping[str, Any] | None = None,
    **out: Any,
) -> dict[str, Any]:
    result = delivery.deliver(
        reply,
        operation="generate_music",
        used={"output_format": "auto", "delivery": "auto", "bitrate": None, "seed": 3} if used is None else used,
        audio_out=AudioOut(**out),
        job=job or Job(id="job-1"),
        settings=settings,
        started=time.monotonic() - 1.0,
    )
    assert len(dump_json(result).encode()) <= settings.inline_budget_bytes
    return result


def refusal(reply: Reply, settings: Settings = INLINE, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        deliver(reply, settings, **options)
    return caught.value


def one(audio: Audio, name: str = "song", **extra: Any) -> Reply:
    return Reply(outputs=[Output(audio, name, extra)])


def opened(artefact: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """The file of an inline artefact, its own account of itself checked."""
    data = base64.b64decode(artefact["output_audio"], validate=True)
    assert len(data) == artefact["size"]
    assert hashlib.sha256(data).hexdigest() == artefact["sha256"]
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert (rate, samples.shape[1]) == (artefact["sample_rate"], artefact["channels"])
    assert artefact["duration"] == pytest.approx(samples.shape[0] / rate, abs=1e-6)
    return samples.T, rate


# The reply


def test_one_sound_stands_at_the_top_level() -> None:
    result = deliver(one(tone(1.0), steps=7))
    assert list(result)[:2] == ["success", "operation"]
    assert result["success"] is True and result["operation"] == "generate_music"
    assert result.keys() >= ARTEFACT_KEYS | {"output_audio", "parameters", "timings", "warnings"}
    assert "outputs" not in result and "stems" not in result
    assert result["steps"] == 7 and result["warnings"] == []
    assert (result["filename"], result["format"]) == ("song.wav", "wav")
    waveform, _ = opened(result)
    assert np.abs(waveform - tone(1.0).waveform).max() < 2 / 32768


def test_several_sounds_stand_in_a_list_and_the_first_at_the_top_level_as_well() -> None:
    outputs = [Output(noise(0.2, seed=seed), "take", {"index": seed}) for seed in range(3)]
    result = deliver(Reply(outputs=outputs, fields={"model_used": "demo"}))
    assert [item["index"] for item in result["outputs"]] == [0, 1, 2]
    assert [item["filename"] for item in result["outputs"]] == ["take.wav", "take-2.wav", "take-3.wav"]
    assert {key: result[key] for key in result["outputs"][0]} == result["outputs"][0]
    assert result["model_used"] == "demo"
    assert len({item["sha256"] for item in result["outputs"]}) == 3


def test_a_list_may_be_asked_for_where_there_is_one_sound() -> None:
    result = deliver(dataclasses.replace(one(tone(0.1)), always_list=True))
    assert len(result["outputs"]) == 1
    assert result["outputs"][0]["output_audio"] == result["output_audio"]


def test_stems_stand_by_their_names() -> None:
    stems = {name: Output(noise(0.2, seed=seed), f"song_{name}") for seed, name in enumerate(("vocals", "drums"))}
    result = deliver(Reply(stems=stems))
    assert list(result["stems"]) == ["vocals", "drums"]
    assert result["stems"]["drums"]["filename"] == "song_drums.wav"
    assert "output_audio" not in result
    for seed, stem in enumerate(result["stems"].values()):
        assert np.abs(opened(stem)[0] - noise(0.2, seed=seed).waveform).max() < 2 / 32768


def test_a_sound_and_its_stems_stand_side_by_side() -> None:
    result = deliver(Reply(outputs=[Output(tone(0.1), "cover")], stems={"vocals": Output(noise(0.1), "vocals")}))
    assert result["filename"] == "cover.wav"
    assert result["stems"]["vocals"]["filename"] == "vocals.wav"
    assert result["sha256"] != result["stems"]["vocals"]["sha256"]


def test_a_reply_without_sound_has_its_fields_and_the_usual_rest() -> None:
    result = deliver(Reply(fields={"models": [], "count": 0}), used={})
    assert result.keys() == {"success", "operation", "models", "count", "parameters", "timings", "warnings"}


def test_the_timings_hold_every_stage_and_the_total() -> None:
    job = Job(id="j")
    with job.stage("generate"):
        pass
    timings = deliver(one(tone(0.1)), job=job)["timings"]
    assert set(timings) == {"generate_s", "delivery_s", "total_s"}
    assert timings["total_s"] >= 1.0


def test_the_parameters_name_what_was_really_used() -> None:
    assert deliver(one(tone(0.1)))["parameters"] == {
        "output_format": "wav",
        "delivery": "inline",
        "bitrate": None,
        "seed": 3,
    }
    used = {"output_format": "mp3", "bitrate": None, "seed": 3}
    assert deliver(one(tone(0.1)), used=used, output_format="mp3")["parameters"] == {**used, "bitrate": 320}


@pytest.mark.parametrize(
    "bad",
    [
        {"x": math.nan},
        {"x": [math.inf]},
        {"x": b"bytes"},
        {"x": Path("/etc")},
        {"x": np.float32(1)},
        {"x": np.int64(1)},
        {"x": np.zeros(2)},
        {"x": "\ud800"},
        {"\udfff": 1},
        {"x": {1, 2}},
        {"x": object()},
        {(1, 2): 3},
    ],
    ids=repr,
)
def test_what_json_has_not_is_an_internal_error(bad: dict[Any, Any]) -> None:
    with pytest.raises(InternalError):
        deliver(Reply(fields=bad))
    with pytest.raises(InternalError):
        deliver(dataclasses.replace(one(tone(0.1)), fields=bad))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_reply_is_written_so_that_it_reads_back_or_refused(reply: dict[str, Any]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    try:
        text = dump_json(reply)
    except InternalError:
        return
    assert json.loads(text.encode(), parse_constant=refuse) == reply


def test_a_reply_over_the_budget_is_an_error_also_without_sound() -> None:
    error = refusal(Reply(fields={"x": "ä" * 600}), dataclasses.replace(INLINE, inline_budget_bytes=1200), used={})
    assert error.error_code == "reply_too_large"
    assert error.details["size"] > error.details["limit"] == 1200


# Formats


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "opus"])
def test_a_format_that_is_asked_for_is_the_format_that_comes(kind: str) -> None:
    result = deliver(one(tone(1.0)), output_format=kind)
    assert (result["format"], result["filename"]) == (kind, f"song.{kind}")
    waveform, rate = opened(result)
    assert rate == (48000 if kind == "opus" else RATE)
    assert 0.4 < np.abs(waveform[:, rate // 4 : rate // 2]).max() < 0.6


@pytest.mark.parametrize(("bit_depth", "subtype"), [(16, "PCM_16"), (24, "PCM_24"), (32, "FLOAT")])
def test_a_wav_has_the_bit_depth_that_is_asked_for(bit_depth: int, subtype: str) -> None:
    result = deliver(one(tone(0.2)), output_format="wav", bit_depth=bit_depth)
    assert soundfile.info(io.BytesIO(base64.b64decode(result["output_audio"]))).subtype == subtype


def test_the_bitrate_that_is_asked_for_is_used() -> None:
    small, large = (deliver(one(noise(5)), output_format="mp3", bitrate=kbits)["size"] for kbits in (64, 256))
    assert 3.5 < large / small < 4.5


def test_what_the_format_made_necessary_is_a_warning() -> None:
    result = deliver(one(noise(1.0, rate=96000)), output_format="mp3")
    assert result["sample_rate"] == 48000
    assert any("48000" in warning for warning in result["warnings"])


@pytest.mark.parametrize(
    "out",
    [
        {"output_format": "flac", "bit_depth": 32},
        {"output_format": "mp3", "bitrate": 100},
        {"output_format": "ogg", "bitrate": 32},
        {"output_format": "opus", "bitrate": 600},
    ],
)
def test_a_format_that_does_not_exist_is_refused_before_any_work(out: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        delivery.check(AudioOut(**out), job=Job(id="j"), settings=INLINE)


def test_a_delivery_that_is_not_there_is_refused_before_any_work() -> None:
    refused: tuple[tuple[Literal["bucket", "volume"], str], ...]
    refused = (("bucket", "bucket_not_configured"), ("volume", "volume_unavailable"))
    for name, code in refused:
        with pytest.raises(DeliveryError) as caught:
            delivery.check(AudioOut(delivery=name), job=Job(id="j"), settings=INLINE)
        assert caught.value.error_code == code
    delivery.check(AudioOut(), job=Job(id="j"), settings=INLINE)


# The budget


def base64_size(size: int) -> int:
    return (size + 2) // 3 * 4


def budget(limit: int) -> Settings:
    return dataclasses.replace(INLINE, inline_budget_bytes=limit)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (950_000, ("wav", None)),
        (900_000, ("flac", None)),
        (230_000, ("mp3", 320)),
        (140_000, ("mp3", 192)),
        (100_000, ("mp3", 128)),
    ],
)
def test_auto_takes_the_best_format_that_fits(limit: int, expected: tuple[str, int | None]) -> None:
    """4 s of noise at an eighth of full scale: wav 941 kB as base64, flac some 15 % less, mp3 by its bitrate."""
    result = deliver(one(noise(4, peak=0.125)), budget(limit))
    kind, kbits = expected
    assert result["format"] == kind
    assert result["parameters"]["bitrate"] == kbits
    assert result["warnings"] == []
    opened(result)


def test_auto_tries_flac_for_what_compresses_well() -> None:
    """Two minutes of silence are 21 MB of wav and next to nothing of flac."""
    assert deliver(one(silence(120)), budget(1_000_000))["format"] == "flac"


def test_auto_keeps_to_the_operations_own_order() -> None:
    assert deliver(one(tone(0.5)), auto_order=("mp3:320", "mp3:192"))["format"] == "mp3"
    assert deliver(one(tone(0.5)), auto_order=("mp3:320",), bitrate=128)["parameters"]["bitrate"] == 128


def test_all_sounds_of_a_reply_have_one_format() -> None:
    stems = {"loud": Output(noise(3), "loud"), "silent": Output(silence(3), "silent")}
    result = deliver(Reply(stems=stems), budget(300_000))
    assert {stem["format"] for stem in result["stems"].values()} == {"mp3"}


def test_the_first_of_a_list_counts_twice() -> None:
    size = base64_size(44 + 2 * 2 * RATE)
    pair = Reply(outputs=[Output(noise(1, seed=seed), "take") for seed in (1, 2)])
    assert deliver(pair, budget(3 * size + 5000))["format"] == "wav"
    assert deliver(pair, budget(2 * size + 5000))["format"] != "wav"


@profile(max_examples=12, deadline=None)
@given(limit=st.integers(5_000, 500_000), seconds=st.floats(0.1, 2.0), kind=st.sampled_from(["auto", "wav", "mp3"]))
def test_a_reply_is_never_larger_than_its_budget(limit: int, seconds: float, kind: str) -> None:
    try:
        result = deliver(one(noise(seconds)), budget(limit), output_format=kind)
    except DeliveryError as error:
        assert error.details["size"] > limit
    else:
        opened(result)


def test_what_cannot_fit_is_not_encoded() -> None:
    class Counted(Sounds):
        tried: ClassVar[list[str]] = []

        @contextmanager
        def encoded(self, encoding: Encoding) -> Iterator[list[Artefact]]:
            self.tried.append(f"{encoding.format}:{encoding.kbits}")
            with super().encoded(encoding) as artefacts:
                yield artefacts

    out = AudioOut()
    sounds = Counted(one(noise(20)), out, Job(id="j"))
    _, encoding = place_inline(sounds, encodings(out), budget=Budget(700_000, 500, twice=False), deliveries=())
    assert encoding.kbits == 192
    assert sounds.tried == ["mp3:192"]


def test_a_format_that_is_asked_for_is_never_changed_to_fit() -> None:
    error = refusal(one(noise(2)), budget(100_000), output_format="wav")
    assert error.error_code == "reply_too_large"
    assert error.details["limit"] == 100_000
    assert error.details["size"] == pytest.approx(base64_size(2 * RATE * 4), rel=0.01)
    assert str(error.details["size"]) in error.message and "100000" in error.message


def test_what_the_error_says_would_fit_does_fit() -> None:
    for audio, limit in ((noise(2), 100_000), (tone(15), 750_000), (noise(6, peak=0.01), 600_000)):
        error = refusal(one(audio), budget(limit), output_format="wav")
        assert error.details["would_fit"]
        for way in error.details["would_fit"]:
            assert deliver(one(audio), budget(limit), **way)["format"] == way["output_format"]
            assert f"output_format {way['output_format']}" in error.message


def test_where_nothing_fits_the_error_says_so_and_names_other_ways(tmp_path: Path) -> None:
    error = refusal(one(noise(5)), budget(20_000))
    assert error.details["would_fit"] == [] and error.details["deliveries"] == []
    assert "bucket" in error.message
    with_volume = dataclasses.replace(budget(20_000), volume_dirs=(tmp_path,))
    assert refusal(one(noise(5)), with_volume).details["deliveries"] == ["volume"]
    assert not list(tmp_path.iterdir())


# Levels


def test_a_peak_above_full_scale_is_brought_down_and_named() -> None:
    result = deliver(one(tone(0.5, peak=2.0)), output_format="flac")
    waveform, _ = opened(result)
    assert 0.99 < np.abs(waveform).max() <= 1.0
    assert np.abs(waveform * 2 - tone(0.5, peak=2.0).waveform).max() < 1e-3
    (warning,) = result["warnings"]
    assert "-6.02 dB" in warning


def test_float_wav_keeps_a_peak_above_full_scale() -> None:
    result = deliver(one(tone(0.5, peak=2.0)), output_format="wav", bit_depth=32)
    assert np.array_equal(opened(result)[0], tone(0.5, peak=2.0).waveform)
    assert result["warnings"] == []


def test_stems_are_brought_down_together_so_that_they_still_sum_to_the_mix() -> None:
    loud, quiet = tone(0.5, peak=2.0), tone(0.5, peak=0.25, frequency=1000)
    result = deliver(
        Reply(stems={"loud": Output(loud, "loud"), "quiet": Output(quiet, "quiet")}), output_format="wav", bit_depth=24
    )
    summed = sum(opened(stem)[0] for stem in result["stems"].values())
    mix = loud.waveform + quiet.waveform
    gain = float((summed * mix).sum() / (mix * mix).sum())
    assert np.abs(summed - gain * mix).max() < 1e-5
    assert len(result["warnings"]) == 1


def test_an_item_of_a_batch_is_what_it_would_be_alone() -> None:
    loud, quiet = tone(0.5, peak=2.0), tone(0.5, peak=0.25)
    batch = deliver(Reply(outputs=[Output(loud, "a"), Output(quiet, "b")]))
    alone = deliver(one(quiet, "b"))
    assert batch["outputs"][1]["sha256"] == alone["sha256"]
    assert len(batch["warnings"]) == 1 and batch["warnings"][0].startswith("a:")


@pytest.mark.parametrize(("mode", "quiet"), [("peak", 0.01), ("loudness", 0.01)])
def test_normalize_sets_the_level(mode: Literal["peak", "loudness"], quiet: float) -> None:
    from audio.dsp.loudness import integrated_loudness, true_peak_db

    result = deliver(one(tone(1.5, peak=quiet)), normalize=mode, loudness_lufs=-20.0)
    waveform, rate = opened(result)
    audio = Audio(np.ascontiguousarray(waveform), rate)
    if mode == "peak":
        assert true_peak_db(audio) == pytest.approx(-1.0, abs=0.05)
    else:
        assert integrated_loudness(audio) == pytest.approx(-20.0, abs=0.2)
    assert result["warnings"] == []


def test_silence_that_should_be_normalized_is_a_warning() -> None:
    result = deliver(one(silence(2)), normalize="loudness")
    assert not opened(result)[0].any()
    assert any("silent" in warning for warning in result["warnings"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_sound_that_is_not_finite_is_an_internal_error(value: float) -> None:
    audio = tone(0.1)
    audio.waveform[1, 100] = value
    with pytest.raises(InternalError):
        deliver(one(audio))


def test_a_sound_without_samples_is_an_internal_error() -> None:
    with pytest.raises(InternalError):
        deliver(one(silence(0)))


def test_the_operations_own_waveform_is_left_as_it_is() -> None:
    audio = tone(0.5, peak=2.0)
    deliver(one(audio), output_format="mp3", normalize="loudness")
    assert np.array_equal(audio.waveform, tone(0.5, peak=2.0).waveform)


def test_a_cancelled_job_delivers_nothing(tmp_path: Path) -> None:
    job = Job(id="j")
    job.cancel.set()
    with pytest.raises(CancelledError):
        deliver(one(tone(1)), Settings(volume_dirs=(tmp_path,)), job=job, delivery="volume")
    assert not list(tmp_path.iterdir())


# The volume


@pytest.fixture
def mounted(tmp_path: Path) -> Settings:
    (tmp_path / "volume").mkdir()
    return Settings(volume_dirs=(tmp_path / "absent", tmp_path / "volume"), inline_budget_bytes=20_000)


def test_a_result_on_the_volume_can_be_sent_in_again(mounted: Settings, tmp_path: Path) -> None:
    result = deliver(one(noise(10), "song"), mounted, delivery="volume")
    path = Path(result["output_path"])
    assert path == tmp_path / "volume" / "output" / "job-1" / "song.wav"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == result["sha256"]
    assert path.stat().st_size == result["size"]
    assert result["parameters"]["delivery"] == "volume"
    audio = load_audio(str(path), field="audio", job=Job(id="k"), settings=mounted)
    assert np.abs(audio.waveform - noise(10).waveform).max() < 2 / 32768


def test_a_second_run_and_a_look_alike_overwrite_nothing(mounted: Settings) -> None:
    paths = [
        deliver(one(tone(0.1, frequency=100 * (1 + i))), mounted, job=Job(id=name), delivery="volume")["output_path"]
        for i, name in enumerate(("a/b", "a/b", "a?b", "../../a", "..", "\ud800", "a" * 500))
    ]
    assert len(set(paths)) == len(paths)
    assert len({Path(path).read_bytes() for path in paths}) == len(paths)
    folder = mounted.volume_dirs[1] / "output"
    assert all(Path(path).parent.parent == folder for path in paths)


def test_a_name_stays_one_file_name_below_its_folder(mounted: Settings) -> None:
    for name in ("../../x", "/etc/passwd", ".hidden", "", "CON\0", "a" * 400, "歌" * 300, "Zoë's – «take»", "\ud800"):
        path = Path(deliver(one(tone(0.1), name), mounted, delivery="volume")["output_path"])
        assert path.is_file() and path.parent.parent == mounted.volume_dirs[1] / "output"
        assert not path.name.startswith(".")


@given(st.text())
def test_any_name_becomes_a_file_name(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= 120 and "/" not in safe and not safe.startswith(".") and safe.isprintable()


def test_a_full_volume_leaves_nothing_behind(mounted: Settings) -> None:
    """The second file cannot be written: a folder stands in its partial's place after the first."""
    from worker.output.deliver import written_below

    class Full(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(28, "No space left on device")

    folder = mounted.volume_dirs[1] / "folder"
    folder.mkdir()
    files = [
        Artefact(file, "audio/wav", {"filename": f"{i}.wav"}, []) for i, file in enumerate((io.BytesIO(b"x"), Full()))
    ]
    with pytest.raises(OSError):
        written_below(folder, files)
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_volume_that_cannot_be_written_is_passed_over(mounted: Settings, tmp_path: Path) -> None:
    (tmp_path / "volume").chmod(0o500)
    assert refusal(one(tone(0.1)), mounted, delivery="volume").error_code == "volume_unavailable"


def test_an_output_folder_that_is_a_file_is_a_clear_error(mounted: Settings) -> None:
    (mounted.volume_dirs[1] / "output").write_text("in the way")
    error = refusal(one(tone(0.1)), mounted, delivery="volume")
    assert error.error_code == "volume_unavailable"
    assert str(mounted.volume_dirs[1]) not in error.message


def test_an_output_folder_that_leads_out_of_the_volume_is_not_used(mounted: Settings, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (mounted.volume_dirs[1] / "output").symlink_to(tmp_path / "outside")
    assert refusal(one(tone(0.1)), mounted, delivery="volume").error_code == "volume_unavailable"
    assert not list((tmp_path / "outside").iterdir())


# The bucket


@pytest.fixture
def with_bucket(s3: str) -> Settings:
    name = f"results-{uuid.uuid4().hex[:8]}"
    access = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=s3, **access).create_bucket(Bucket=name)
    return Settings(
        volume_dirs=(),
        bucket_endpoint_url=s3,
        bucket_access_key_id="AKIAGEHEIM",
        bucket_secret_access_key="geheim",
        bucket_name=name,
        inline_budget_bytes=100_000,
    )


def fetched(artefact: Mapping[str, Any]) -> requests.Response:
    answer = requests.get(artefact["output_url"], timeout=10)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == artefact["sha256"]
    assert len(answer.content) == artefact["size"]
    return answer


def test_auto_takes_the_bucket_where_there_is_one(with_bucket: Settings) -> None:
    result = deliver(one(noise(5)), with_bucket)
    assert fetched(result).headers["Content-Type"] == "audio/wav"
    assert result["format"] == "wav" and "output_audio" not in result
    assert result["parameters"]["delivery"] == "bucket"
    assert "geheim" not in str(result)


def test_every_stem_goes_to_the_bucket_in_its_format(with_bucket: Settings) -> None:
    stems = {name: Output(noise(1, seed=seed), name) for seed, name in enumerate(("vocals", "drums", "bass"))}
    result = deliver(Reply(stems=stems), with_bucket, delivery="bucket", output_format="mp3")
    assert {fetched(stem).headers["Content-Type"] for stem in result["stems"].values()} == {"audio/mpeg"}
    assert len({stem["output_url"].rpartition("/")[0] for stem in result["stems"].values()}) == 1


def test_inline_is_inline_also_beside_a_bucket(with_bucket: Settings) -> None:
    assert "output_audio" in deliver(one(noise(0.1)), with_bucket, delivery="inline")
    error = refusal(one(noise(5)), with_bucket, delivery="inline", output_format="wav")
    assert error.details["deliveries"] == ["bucket"]


def test_jobs_of_one_id_keep_apart_in_the_bucket(with_bucket: Settings) -> None:
    first, second = (deliver(one(noise(0.1, seed=seed)), with_bucket) for seed in (1, 2))
    fetched(first)
    fetched(second)


def test_the_requests_own_bucket_is_used_where_private_addresses_are_open(with_bucket: Settings) -> None:
    s3_config = {
        "accessId": "a",
        "accessSecret": "b",
        "bucketName": with_bucket.bucket_name,
        "endpointUrl": with_bucket.bucket_endpoint_url,
    }
    job = Job(id="j", s3_config=s3_config)
    fetched(deliver(one(noise(1)), Settings(volume_dirs=(), allow_private_urls=True), job=job))
    error = refusal(one(noise(1)), INLINE, job=Job(id="j", s3_config=s3_config), delivery="bucket")
    assert error.error_code == "private_url"


def test_a_bucket_that_fails_under_auto_is_a_warning_where_the_result_fits_inline(with_bucket: Settings) -> None:
    broken = dataclasses.replace(with_bucket, bucket_name="nowhere")
    result = deliver(one(noise(0.1)), broken)
    opened(result)
    assert result["parameters"]["delivery"] == "inline"
    assert any("NoSuchBucket" in warning and "in this reply" in warning for warning in result["warnings"])


def test_a_bucket_that_fails_under_auto_is_an_error_where_the_result_does_not_fit(with_bucket: Settings) -> None:
    broken = dataclasses.replace(with_bucket, bucket_name="nowhere")
    error = refusal(one(noise(5)), broken, output_format="wav")
    assert error.error_code == "bucket_upload_failed"
    assert "NoSuchBucket" in error.message and error.details["limit"] == 100_000


def test_a_bucket_that_fails_when_asked_for_is_an_error(with_bucket: Settings) -> None:
    broken = dataclasses.replace(with_bucket, bucket_name="nowhere")
    assert refusal(one(noise(0.1)), broken, delivery="bucket").error_code == "bucket_upload_failed"


def test_a_half_configured_bucket_is_named_in_a_warning_under_auto() -> None:
    half = dataclasses.replace(INLINE, bucket_endpoint_url="https://s3.example.com")
    result = deliver(one(noise(0.1)), half)
    assert any("BUCKET_NAME" in warning for warning in result["warnings"])


# The process


def test_no_file_stays_open_or_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    deliver(one(tone(0.1)), output_format="mp3")
    before = len(os.listdir("/proc/self/fd"))
    for kind in ("wav", "mp3", "flac"):
        refusal(Reply(outputs=[Output(noise(2), "a"), Output(noise(2), "b")]), budget(5000), output_format=kind)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not list(tmp_path.iterdir())


def test_a_reply_without_sound_imports_no_encoder_and_no_torch() -> None:
    script = (
        "import sys, time; from worker.output import deliver as delivery; from worker.job import Job\n"
        "from worker.reply import *\n"
        "from worker.settings import Settings\n"
        "delivery.deliver(Reply(), operation='health_check', used={}, audio_out=AudioOut(), job=Job(id='j'),"
        " settings=Settings(), started=time.monotonic())\n"
        "sys.exit(bool({'torch', 'boto3', 'soundfile', 'pedalboard', 'runpod'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=60).returncode == 0
