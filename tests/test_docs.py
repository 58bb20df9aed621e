"""What README and docs tell people to do works, and their generated parts say what the code says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import handler
from errors import ErrorCode
from operations.operation import find_operation, load_operations
from testing.repository import ROOT
from tools.docs import DOCS, documents, fill

MAX_README_BYTES = 9_000


def find_shell_requests() -> list[dict[str, Any]]:
    """Every request body in a shell block of README or docs, in order."""
    blocks = [block for path in documents() for block in re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL)]
    return [json.loads(body) for block in blocks for body in re.findall(r"'(\{\"input\".*?\})'", block)]


def find_json_requests() -> list[dict[str, Any]]:
    """Every request body that stands alone: the song or voice that it names does not exist here."""
    blocks = [block for path in documents() for block in re.findall(r"```json\n(.*?)```", path.read_text(), re.DOTALL)]
    return [json.loads(block) for block in blocks if '"input"' in block]


def find_json_replies() -> list[str]:
    """Every reply that a page shows."""
    blocks = [block for path in documents() for block in re.findall(r"```json\n(.*?)```", path.read_text(), re.DOTALL)]
    return [block for block in blocks if '"input"' not in block]


def decode_audio(reply: Mapping[str, Any]) -> bytes:
    return base64.b64decode(str(reply["output_audio"]), validate=True)


def describe(job: Mapping[str, Any]) -> str:
    return json.dumps(job["input"])[:60]


def test_there_are_requests_to_try() -> None:
    assert len(find_shell_requests()) >= 4 and len(find_json_requests()) >= 15


@pytest.mark.parametrize("job", find_shell_requests(), ids=describe)
def test_every_request_in_a_shell_block_succeeds(job: dict[str, Any]) -> None:
    reply = handler.handler(job)
    if reply.get("operation") == "health_check":
        assert reply["status"] in ("healthy", "degraded")
    else:
        assert reply.get("success") is True, reply


@pytest.mark.parametrize("job", find_json_requests(), ids=describe)
def test_every_example_request_has_valid_parameters(job: dict[str, Any]) -> None:
    given = dict(job["input"])
    _, operation = find_operation(given.pop("operation"))
    assert operation.params.parse(given.pop("params", None) or given)


@pytest.mark.parametrize("block", find_json_replies(), ids=lambda block: block[:60])
def test_every_reply_shown_is_json(block: str) -> None:
    assert json.loads(block)["success"] is True


def test_every_operation_has_a_page_with_an_example() -> None:
    for name in load_operations():
        assert f'"operation": "{name}"' in (DOCS / "operations" / f"{name}.md").read_text()


def test_test_input_json_makes_music_of_the_requested_length() -> None:
    import soundfile

    job = json.loads((ROOT / "test_input.json").read_text())
    reply = handler.handler(job)
    assert reply.get("success") is True, reply
    audio = decode_audio(reply)
    assert hashlib.sha256(audio).hexdigest() == reply["sha256"] and len(audio) == reply["size"]
    waveform, sample_rate = soundfile.read(io.BytesIO(audio))
    assert sample_rate == reply["sample_rate"] == 32_000
    assert abs(len(waveform) / sample_rate - job["input"]["params"]["duration"]) < 0.1
    assert abs(waveform).max() > 0.05


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    assert path.read_text() == fill(path.read_text()), "run `make docs`"


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_points_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", sorted((DOCS / "operations").glob("*.md")), ids=lambda path: path.stem)
def test_every_error_code_that_a_page_names_exists(path: Path) -> None:
    section = path.read_text().partition("## Errors you may meet\n")[2]
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert named - {"replace", "task_id", "error_code"} <= {code.value for code in ErrorCode}


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= MAX_README_BYTES


def test_every_guard_in_security_md_has_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
