"""The examples of the README run as they stand, against the fake platform."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE
from fake_platform import KEY, FakePlatform, completed, in_progress, make_artefact, make_reply, make_wav

import music_worker
from music_worker import errors

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def answer(job_input: Mapping[str, Any]) -> list[dict[str, Any]]:
    stems = {name: make_artefact(make_wav(), f"{name}.wav") for name in ("vocals", "no_vocals")}
    reply = make_reply("separate", stems=stems) if job_input["operation"] == "separate" else make_reply()
    return [in_progress("generate", 50.0), completed(reply)]


@pytest.fixture
def namespace(platform: FakePlatform) -> dict[str, Any]:
    """Names of the package whose clients talk to the fake platform, whatever the example says."""
    platform.statuses = answer
    options: dict[str, Any] = {"url": platform.url, "api_key": KEY, "patience": PATIENCE}
    return {
        "Client": lambda **_: music_worker.Client(**options),
        "AsyncClient": lambda **_: music_worker.AsyncClient(**options),
        "client": music_worker.Client(**options),
        "prompts": ["a", "b"],
        "asyncio": asyncio,
    }


@pytest.mark.parametrize("block", BLOCKS, ids=[block.partition("\n")[0] for block in BLOCKS])
def test_an_example_of_the_readme_runs(
    block: str, namespace: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: FakePlatform
) -> None:
    monkeypatch.chdir(tmp_path)
    code = block.replace("from music_worker import Client\n", "")  # the clients of the namespace
    code = code.replace("from music_worker import Bucket, Client\n", "from music_worker import Bucket\n")
    if "await" in code:
        lines = "".join(f"    {line}\n" for line in code.splitlines())
        code = f"async def run():\n{lines}    return songs\nsongs = asyncio.run(run())"
    exec(compile(code, "README.md", "exec"), namespace)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    if "save_all" in block:
        assert files == ["piano.wav", "stems/no_vocals.wav", "stems/vocals.wav"]
    assert platform.jobs or "Bucket" in block


def test_every_exception_is_in_the_readme() -> None:
    bases = {"MusicWorkerError", "EndpointError", "JobError", "RequestRejectedError"}
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    table = README[README.index("### Errors") :]
    assert {name for name in names if f"`{name}`" not in table} <= bases
    codes = [value.code for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "code")]
    assert len(set(codes)) == len(codes) - 1, "WorkerError alone has no code of its own"
