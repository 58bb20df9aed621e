"""What a reply becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_platform import make_artefact, make_reply, make_wav

from music_worker import AudioOutput, FileOutput, errors
from music_worker.results import Storage, read_result

WAV = make_wav()


def read(**fields: Any) -> Any:
    return read_result(make_reply("separate", **fields), job_id="job-1")


def test_one_output_is_at_the_top_of_the_reply() -> None:
    result = read(**make_artefact(WAV), seed=3, warnings=["short"])
    [output] = result.outputs
    assert isinstance(output, AudioOutput) and (output.duration, output.channels, output.size) == (0.1, 1, len(WAV))
    assert result.audio is output and result["seed"] == 3 and result.warnings == ("short",)
    assert result.bytes() == WAV


def test_a_list_counts_once_although_its_first_item_is_in_the_reply_twice() -> None:
    items = [make_artefact(WAV, f"music_{n}.wav") | {"seed": n} for n in range(2)]
    result = read(**items[0], outputs=items)
    assert [output.filename for output in result.outputs] == ["music_0.wav", "music_1.wav"]
    assert [output.info["seed"] for output in result.outputs] == [0, 1]


def test_stems_and_files_have_names_and_an_alias_is_saved_once(tmp_path: Path) -> None:
    alias = {key: value for key, value in make_artefact(WAV, "no_vocals.wav").items() if key != "output_audio"}
    result = read(
        stems={
            "vocals": make_artefact(WAV, "vocals.wav"),
            "no_vocals": make_artefact(WAV, "no_vocals.wav"),
            "instrumental": alias | {"same_as": "no_vocals"},
        },
        files={"codes": {"output_file": "AAAA", "filename": "codes.npz", "format": "npz", "size": 3}},
    )
    assert result.stems["instrumental"].bytes() == WAV
    assert type(result.files["codes"]) is FileOutput and result.files["codes"].bytes() == b"\0\0\0"
    saved = result.save_all(tmp_path / "stems")
    assert {name: path.name for name, path in saved.items()} == {
        "vocals": "vocals.wav",
        "no_vocals": "no_vocals.wav",
        "codes": "codes.npz",
    }
    assert sorted(path.name for path in (tmp_path / "stems").iterdir()) == ["codes.npz", "no_vocals.wav", "vocals.wav"]
    with pytest.raises(errors.OutputError, match="Choose one: vocals, no_vocals, instrumental"):
        result.save()


def test_the_reply_is_kept_without_the_content_of_files() -> None:
    result = read(**make_artefact(WAV), stems={"a": make_artefact(WAV)})
    assert "output_audio" not in json.dumps(result.reply) and result.reply["filename"] == "music.wav"
    assert len(repr(result)) < 2000


def test_content_that_arrives_damaged_is_an_error(tmp_path: Path) -> None:
    for damage in ({"output_audio": "no base64!"}, {"output_audio": "AAAA"}):
        with pytest.raises(errors.DownloadError):
            read(**(make_artefact(WAV) | damage)).save(tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_the_volume_is_read_if_the_volume_is_here(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "a.wav").write_bytes(WAV)
    stored: dict[str, Any] = {"filename": "a.wav", "output_path": "/runpod-volume/output/a.wav", "size": len(WAV)}
    storage = Storage(volumes={"/runpod-volume": tmp_path})
    result = read_result(make_reply(**stored), job_id="a", storage=storage)
    assert result.bytes() == WAV
    with pytest.raises(errors.DownloadError, match="on the worker's volume, at /runpod-volume/output/a.wav"):
        read(**stored).save(tmp_path)
    outside = stored | {"output_path": "/runpod-volume/../a.wav"}
    assert Storage(volumes={"/runpod-volume": tmp_path / "output"}).find(outside["output_path"]) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"outputs": "text", "stems": [1], "files": None, "warnings": "x", "timings": 3},
        {"outputs": [None, {"filename": 3}], "stems": {"a": 1}},
        {"output_audio": 5, "filename": None, "size": "big", "duration": True},
    ],
)
def test_a_reply_of_another_shape_is_no_reason_to_fail(fields: dict[str, Any]) -> None:
    result = read(**fields)
    assert result.outputs == () and result.operation == "separate"
