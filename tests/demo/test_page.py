"""The demo page, made of real requests and opened from disk in a real browser: its players play, and it asks for
nothing outside of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from demo.page.__main__ import make_page
from demo.page.html import write_page
from demo.page.run import EXAMPLES, Artefact, Result

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXAMPLE_NAMES = ("mix_audio", "analyze", "extend_via_suno")  # sounds, pictures, and one that is refused
WAIT_FOR_SOUND = """audio => new Promise((resolve, reject) => {
    if (audio.readyState >= 1) return resolve(audio.duration);
    audio.addEventListener('loadedmetadata', () => resolve(audio.duration));
    audio.addEventListener('error', () => reject(audio.error.message));
    audio.load();
})"""
PLAY = """async audio => {
    audio.muted = true;
    await audio.play();
    while (audio.currentTime === 0) await new Promise(resolve => setTimeout(resolve, 20));
    audio.pause();
    return audio.currentTime;
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page, results = make_page([EXAMPLES / f"{name}.json" for name in EXAMPLE_NAMES])
    assert [bool(result.error) for result in results] == [False, False, True]
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def problems() -> list[str]:
    """What the browser reported: messages of its console, errors, and requests that are not for the page itself."""
    return []


@pytest.fixture(scope="module")
def page(path: Path, problems: list[str]) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        yield page
        browser.close()


def test_every_sound_of_the_page_can_be_played(page: Page) -> None:
    players = page.locator("audio").all()
    durations = [float(player.evaluate(WAIT_FOR_SOUND)) for player in players]
    assert len(durations) == 5 and min(durations) > 5  # inputs of all three requests, and the mix
    assert float(players[0].evaluate(PLAY)) > 0


def test_the_browser_reports_no_error_and_no_request_to_the_outside(page: Page, problems: list[str]) -> None:
    page.wait_for_load_state("load")
    assert problems == []


def test_pictures_are_shown_and_described(page: Page) -> None:
    for image in page.locator("img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        assert image.get_attribute("alt")
    assert page.get_by_alt_text("Spectrogram of tracks[0].audio").count() == 1
    assert page.locator("figure", has_text="files.spectrogram").count() == 1


def test_the_page_fits_a_phone_and_is_reached_by_keyboard(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav') !== null")


def test_everything_that_takes_the_focus_has_a_name_and_headings_do_not_skip_a_level(page: Page) -> None:
    unnamed = page.evaluate(
        "[...document.querySelectorAll('a, audio, pre, summary')]"
        ".filter(element => !element.getAttribute('aria-label') && !element.textContent.trim()).length"
    )
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(heading => +heading.tagName[1])")
    identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert unnamed == 0 and levels[0] == 1 and len(identifiers) == len(set(identifiers))
    assert all(next_level - level <= 1 for level, next_level in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_schemes(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    colours = page.evaluate(
        "['.lead', 'article h3', '.facts', '.notice', 'nav a'].map(selector => {"
        "  const element = document.querySelector(selector);"
        "  let parent = element;"
        "  while (getComputedStyle(parent).backgroundColor === 'rgba(0, 0, 0, 0)') parent = parent.parentElement;"
        "  return [getComputedStyle(element).color, getComputedStyle(parent).backgroundColor];"
        "})"
    )
    for text, background in colours:
        assert contrast(text, background) >= 4.5, (text, background)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 of two colours as CSS computes them."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_request_that_is_refused_is_shown_with_its_reason(page: Page) -> None:
    notice = page.locator("article", has_text="examples/extend_via_suno.json").locator(".notice")
    assert "Not possible on this worker." in notice.inner_text() and "SUNO_API_TOKEN" in notice.inner_text()


def test_text_of_requests_and_replies_is_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    request = {"input": {"operation": "analyze", "params": {"prompt": hostile}}}
    reply = {"model_used": hostile, "warnings": [hostile]}
    result = Result("x", request, reply, 0.1, (), (Artefact(hostile, f"{hostile}.npz", b"codes"),))
    text = write_page([result], {"analyze": hostile}, version=hostile, device=hostile)
    assert "<script" not in text and json.dumps(hostile)[1:-1].replace("<", "&lt;").replace(">", "&gt;") in text
