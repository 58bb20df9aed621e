"""The page at its real worker: makes music with the demo model, plays it, separates it, downloads a stem."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import open_page, start_browser, wait_until_ready
from playwright.sync_api import expect

REPOSITORY = Path(__file__).resolve().parents[3]
DONE_MS = 120_000  # the worker loads a model first, on a machine that may be busy


@contextmanager
def start_command(*arguments: str) -> Iterator[str]:
    """Runs `music-worker ui` as a user does, yields the address that it prints, and ends it by Ctrl-C."""
    command = [sys.executable, "-c", "from music_worker.cli import main; main()", "ui", "--no-browser", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "120"}) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("The page is at http://127.0.0.1:"), line
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert process.returncode == 0


@pytest.mark.timeout(300)
def test_music_is_made_played_separated_and_downloaded_and_is_still_there_after_a_reload() -> None:
    local = ("--local", "--repository", str(REPOSITORY), "--port", "0")
    with start_command(*local) as url, start_browser() as browser, open_page(browser, url) as page:
        page.get_by_label("Prompt", exact=True).fill("upbeat techno, 128 bpm, drums and synth bass")
        page.get_by_label("Model", exact=True).select_option("demo")
        page.get_by_label("Duration", exact=True).fill("3")
        page.get_by_label("Seed", exact=True).fill("7")
        page.get_by_role("button", name="Run", exact=True).click()
        music = page.locator(".card", has_text="Generate music")
        page.wait_for_selector(".card[data-state=done] .player", timeout=DONE_MS)

        seek = music.get_by_role("slider")
        expect(seek).to_have_attribute("aria-valuemax", "3.0")
        expect(music.locator(".canvas-note")).to_have_text("")
        music.get_by_role("button", name="Play Audio").click()
        page.wait_for_function("() => document.querySelector('.card audio').currentTime > 0.3")
        music.get_by_role("button", name="Spectrogram").click()
        colours = page.evaluate(
            """() => {
                const canvas = document.querySelector(".card .canvas");
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height >> 1);
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
        assert colours > 50
        seek.click(position={"x": 10, "y": 20})
        page.wait_for_function("() => document.querySelector('.card audio').currentTime < 0.6")

        music.get_by_label("in another operation").select_option("separate")
        expect(page.locator(".file-name")).to_have_text("music.wav")
        page.get_by_label("Model", exact=True).select_option("demo-htdemucs")
        page.get_by_label("Two stems", exact=True).fill("drums")
        page.get_by_role("button", name="Run", exact=True).click()
        parts = page.locator(".card[data-state=done]", has_text="Separate stems")
        parts.get_by_role("slider", name="Position in Drums").wait_for(timeout=DONE_MS)
        expect(parts.get_by_role("slider", name="Position in No drums")).to_have_count(1)
        parts.get_by_role("button", name="Play Drums").click()
        page.wait_for_function("() => document.querySelector('.card audio').currentTime > 0.2")

        with page.expect_download() as download:
            parts.get_by_role("button", name="Download Drums").click()
        drums = Path(download.value.path()).read_bytes()
        with wave.open(io.BytesIO(drums)) as sound:
            assert sound.getnframes() / sound.getframerate() == pytest.approx(3.0, abs=0.01)
            assert any(sound.readframes(sound.getnframes()))

        page.reload()
        wait_until_ready(page)
        expect(page.locator(".card[data-state=done]")).to_have_count(2)
        expect(parts.get_by_role("slider", name="Position in Drums")).to_have_attribute("aria-valuemax", "3.0")
