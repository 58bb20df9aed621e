"""What the README tells people to do works, and its tables say what the code says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

import handler
from operations.operation import find_operation
from testing.repository import ROOT
from tools.docs import README, filled


def requests_in_readme() -> list[dict[str, Any]]:
    """Every request body in the README's shell blocks, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    bodies = [body for block in blocks for body in re.findall(r"'(\{\"input\".*?\})'", block)]
    return [json.loads(body) for body in bodies]


def examples_in_readme() -> list[dict[str, Any]]:
    """Every request body that stands alone: what it names (a song's address, a voice) is not here."""
    blocks = re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)
    return [json.loads(block) for block in blocks if '"input"' in block]


def sound_of(reply: Mapping[str, Any]) -> bytes:
    return base64.b64decode(str(reply["output_audio"]), validate=True)


def test_the_readme_has_requests() -> None:
    assert len(requests_in_readme()) >= 5


@pytest.mark.parametrize("job", requests_in_readme(), ids=lambda job: json.dumps(job["input"])[:60])
def test_every_request_of_the_readme_is_answered_with_success(job: dict[str, Any]) -> None:
    reply = handler.handler(job)
    if reply.get("operation") == "health_check":
        assert reply["status"] in ("healthy", "degraded")
    else:
        assert reply.get("success") is True, reply


@pytest.mark.parametrize("job", examples_in_readme(), ids=lambda job: json.dumps(job["input"])[:60])
def test_every_example_of_the_readme_has_valid_parameters(job: dict[str, Any]) -> None:
    given = dict(job["input"])
    _, operation = find_operation(given.pop("operation"))
    assert operation.params.parse(given.pop("params", None) or given)


def test_test_input_json_makes_music_of_the_asked_length() -> None:
    import soundfile

    job = json.loads((ROOT / "test_input.json").read_text())
    reply = handler.handler(job)
    assert reply.get("success") is True, reply
    sound = sound_of(reply)
    assert hashlib.sha256(sound).hexdigest() == reply["sha256"] and len(sound) == reply["size"]
    waveform, sample_rate = soundfile.read(io.BytesIO(sound))
    assert sample_rate == reply["sample_rate"] == 32_000
    assert abs(len(waveform) / sample_rate - job["input"]["params"]["duration"]) < 0.1
    assert abs(waveform).max() > 0.05


def test_the_readmes_tables_are_up_to_date() -> None:
    assert README.read_text() == filled(README.read_text()), "run `make readme`"
