"""Takes the picture of the page in the README: `python -m tools.screenshot`, in client/, with Chromium installed.

It starts the worker of this repository, makes music with the demo model, separates it, and writes docs/images/ui.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from music_worker.client import Client
from music_worker.ui_server import PageServer

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURE = REPOSITORY / "docs/images/ui.png"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
DONE_MS = 150_000


def main() -> None:
    """Writes the picture, or the one of dark colours to the path in the first argument."""
    dark = sys.argv[1:]
    with Client.local(REPOSITORY) as client, PageServer(client, port=0) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="dark" if dark else "light")
        page.set_default_timeout(DONE_MS)
        page.goto(server.url)
        page.wait_for_selector(".connection[data-state=ready]")
        make_results(page)
        page.screenshot(path=dark[0] if dark else PICTURE)
        browser.close()


def make_results(page: Page) -> None:
    """Makes music and separates it; the newest results are in view."""
    page.get_by_label("Prompt", exact=True).fill("upbeat techno, 128 bpm, drums and synth bass")
    page.get_by_label("Duration", exact=True).fill("10")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_selector(".card[data-state=done] .player")
    page.get_by_label("in another operation").select_option("separate")
    page.get_by_label("Model", exact=True).select_option("demo-htdemucs")
    page.get_by_label("Two stems", exact=True).fill("drums")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_selector(".card[data-state=done] >> text=No drums")
    page.get_by_role("button", name="Spectrogram of Drums").click()
    page.evaluate("() => window.scrollTo(0, 0)")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.canvas-note')].every((note) => note.textContent === '')"
    )
    for slider in page.get_by_role("slider", name="Position in").all()[:2]:
        slider.press("ArrowRight")
        slider.press("ArrowRight")
        slider.press("ArrowRight")
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
