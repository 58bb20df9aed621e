"""A voice's `voice.json`: what it states, and what is done with one that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.rvc.sidecar import Sidecar, read_sidecar
from models.rvc.voices import Voices
from testing.tiny_rvc import write_voice


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_the_usual_pitch_of_a_voice_is_read_and_other_keys_are_ignored(tmp_path: Path) -> None:
    assert read_sidecar(write(tmp_path / "voice.json", {"f0_hz": 196, "author": "someone"})) == Sidecar(196.0)
    assert read_sidecar(write(tmp_path / "voice.json", {"author": "someone"})) == Sidecar()
    assert read_sidecar(tmp_path / "missing.json") == Sidecar()


def test_the_content_encoder_of_a_voice_is_read_by_any_of_its_spellings(tmp_path: Path) -> None:
    for spelling in ("Japanese-HuBERT-Base", "japanese_hubert_base"):
        sidecar = read_sidecar(write(tmp_path / "voice.json", {"embedder": spelling}))
        assert sidecar == Sidecar(embedder="japanese-hubert-base")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "readable JSON"),
        ("[" * 60_000, "readable JSON"),
        ("\x00", "readable JSON"),
        ([1], "not a JSON object"),
        ({"f0_hz": "high"}, "from 50 to 1100"),
        ({"f0_hz": True}, "from 50 to 1100"),
        ({"f0_hz": 20}, "from 50 to 1100"),
        ('{"f0_hz": NaN}', "from 50 to 1100"),
        ('{"f0_hz": 1e999}', "from 50 to 1100"),
        ({"f0_hz": 200, "embedder": "wav2vec"}, "contentvec, spin"),
        ({"embedder": 3}, "contentvec, spin"),
        ({"padding": "x" * 70_000}, "more than 65536 bytes"),
    ],
)
def test_one_that_cannot_be_used_is_a_warning(tmp_path: Path, content: object, why: str) -> None:
    sidecar = read_sidecar(write(tmp_path / "voice.json", content))
    assert sidecar.f0_hz is None and len(sidecar.warnings) == 1 and why in sidecar.warnings[0]


def test_a_voice_in_a_folder_and_a_single_file_both_have_one(tmp_path: Path) -> None:
    write_voice(tmp_path, "folder")
    write(tmp_path / "folder" / "voice.json", {"f0_hz": 150})
    checkpoint = next((tmp_path / "folder").glob("*.pth"))
    (tmp_path / "single.pth").write_bytes(checkpoint.read_bytes())
    write(tmp_path / "single.json", {"f0_hz": 300.5})
    voices = Voices([tmp_path])
    assert (voices.find("folder").f0_hz, voices.find("single").f0_hz) == (150, 300.5)
    rows = {info.name: info.to_json() for info in voices.list_voices()}
    assert rows["folder"]["f0_hz"] == 150 and "embedder" not in rows["folder"]
    write(tmp_path / "single.json", {"f0_hz": 3})
    assert voices.find("single").f0_hz is None and "'single.json'" in voices.find("single").warnings[-1]


def test_a_link_that_leads_out_of_the_voices_is_not_read(tmp_path: Path) -> None:
    write_voice(tmp_path / "voices", "alice")
    outside = write(tmp_path / "outside.json", {"f0_hz": 150})
    (tmp_path / "voices" / "alice" / "voice.json").symlink_to(outside)
    assert Voices([tmp_path / "voices"]).find("alice").f0_hz is None
