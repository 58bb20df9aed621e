"""`music-worker mcp` as the SDK's own client sees it, over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_platform import (
    KEY,
    FakePlatform,
    completed,
    failed,
    in_progress,
    make_artefact,
    make_reply,
    make_wav,
    start_platform,
)
from jsonschema import Draft202012Validator
from mcp import Client, StdioServerParameters

from music_worker.config import save_login
from music_worker.errors import ConfigurationError, InputError
from music_worker.mcp_server import Folders, make_tools
from music_worker.schema import load_schemas


@pytest.fixture
def endpoint() -> Iterator[FakePlatform]:
    with start_platform() as platform:
        save_login(url=platform.url, api_key=KEY)
        platform.script(completed())
        yield platform


@asynccontextmanager
async def connect(folder: Path, *words: str) -> AsyncIterator[Client]:
    names = ("MUSIC_WORKER_CONFIG_DIR", "PYTHON_KEYRING_BACKEND", "PYTHONPATH", "PATH")
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", "from music_worker.cli import main; main()", "mcp", *words],
        env={name: os.environ[name] for name in names if name in os.environ},
        cwd=folder,
    )
    async with asyncio.timeout(120), Client(server) as client:
        yield client


def read_text(result: Any) -> str:
    return "\n".join(block.text for block in result.content)


def test_tools_take_and_return_paths_over_standard_input_and_output(endpoint: FakePlatform, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(make_wav())
    stems = {name: make_artefact(make_wav(), f"{name}.wav") for name in ("vocals", "drums")}
    seen: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    async def talk() -> tuple[Any, Any]:
        async with connect(tmp_path) as client:
            tools = await client.list_tools()
            assert {tool.name for tool in tools.tools} == set(load_schemas().operations)
            endpoint.script(
                *[in_progress("separate", 40.0)] * 3, completed(make_reply("separate", model_used="demo", stems=stems))
            )
            separated = await client.call_tool(
                "separate", {"audio": "song.wav", "two_stems": "vocals"}, progress_callback=on_progress
            )
            endpoint.script(completed())
            return separated, await client.call_tool("generate_music", {"prompt": "calm piano"})

    separated, made = asyncio.run(talk())
    assert not separated.is_error, read_text(separated)
    files = {entry["name"]: entry for entry in separated.structured_content["files"]}
    assert set(files) == {"vocals", "drums"} and files["vocals"]["duration"] == 0.1
    written = Path(files["vocals"]["path"])
    assert written == tmp_path / "music-worker-output/song-vocals.wav" and written.read_bytes() == make_wav()
    assert str(written) in read_text(separated) and "model_used: demo" in read_text(separated)
    assert "output_audio" not in json.dumps(separated.structured_content), "paths, never bytes"
    assert (40.0, "Separate") in seen
    assert base64.b64decode(endpoint.list_requests("run")[0].input["params"]["audio"]) == make_wav()
    assert made.structured_content["files"][0]["path"].endswith("calm-piano.wav")


def test_what_goes_wrong_is_an_error_of_the_tool(endpoint: FakePlatform, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.wav"
    inside.mkdir()
    outside.write_bytes(make_wav())
    (inside / "link.wav").symlink_to(outside)

    async def talk() -> list[Any]:
        async with connect(inside, "--tool", "separate", "-o", str(tmp_path / "results")) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["separate"]
            calls: list[dict[str, Any]] = [
                {"audio": str(outside)},
                {"audio": "../outside.wav"},
                {"audio": "link.wav"},
                {"audio": "nothing.wav"},
                {"audio": "data:audio/wav;base64,AAAA"},
                {"audio": "https://example.com/song.mp3", "shifts": 99},
            ]
            results = [await client.call_tool("separate", call) for call in calls]
            assert endpoint.list_requests("run") == [], "nothing was sent"
            endpoint.script(failed("There is no model 'x'.", "unknown_model"))
            return [*results, await client.call_tool("separate", {"audio": "https://example.com/song.mp3"})]

    results = asyncio.run(talk())
    assert all(result.is_error for result in results)
    texts = [read_text(result) for result in results]
    assert all("outside of the folders" in text for text in texts[:3]), texts
    assert "there is no file" in texts[3] and "not their content" in texts[4]
    assert "'shifts' must be less than or equal to 10" in texts[5]
    assert texts[6] == "There is no model 'x'. [unknown_model]"


def test_a_cancelled_call_cancels_the_job_on_the_platform(endpoint: FakePlatform, tmp_path: Path) -> None:
    endpoint.script(*[in_progress("generate", 1.0)] * 10_000)

    async def talk() -> None:
        async with connect(tmp_path) as client:
            started = asyncio.Event()

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                started.set()

            call = asyncio.create_task(
                client.call_tool("generate_music", {"prompt": "calm"}, progress_callback=on_progress)
            )
            await started.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            while not endpoint.jobs["job-1"].is_cancelled:
                await asyncio.sleep(0.05)

    asyncio.run(talk())


def test_the_schemas_of_tools_are_valid_and_name_paths() -> None:
    tools = {tool.name: tool for tool in make_tools()}
    for tool in tools.values():
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["type"] == "object" and tool.description
        assert "delivery" not in tool.input_schema["properties"]
    audio = tools["separate"].input_schema["properties"]["audio"]
    assert audio["description"].endswith("The path of a file, or an http(s) URL.")
    assert "title" in tools["extend_via_suno"].input_schema["properties"], "a parameter, not a keyword"
    track = tools["mix_audio"].input_schema["$defs"]["Track"]
    assert "The path of a file" in track["properties"]["audio"]["description"]


def test_paths_of_the_workers_volume_go_to_the_worker(tmp_path: Path) -> None:
    folders = Folders.build([str(tmp_path)], None)
    assert folders.resolve("/runpod-volume/not-here.wav", "audio") == "/runpod-volume/not-here.wav"
    assert folders.resolve("https://example.com/a.wav", "audio") == "https://example.com/a.wav"
    with pytest.raises(InputError):
        folders.resolve("a\0b", "audio")
    with pytest.raises(InputError, match="there is no file"):
        folders.resolve(str(tmp_path), "audio")


def test_a_folder_or_an_operation_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        Folders.build([str(tmp_path / "nothing")], None)
    with pytest.raises(ConfigurationError, match="sing"):
        make_tools(["sing"])
