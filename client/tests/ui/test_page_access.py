"""The page for people who use a keyboard, a screen reader, a small screen, or need contrast."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from browser import choose, open_page, start_browser, unfold
from fake_client import FakeClient, FakeJob, make_audio, make_wav
from playwright.sync_api import Page, expect

from music_worker.errors import WorkerError
from music_worker.ui_server import PageServer

CONTROLS = {
    *("button", "checkbox", "combobox", "link", "progressbar", "radio", "searchbox", "slider", "spinbutton", "switch"),
    *("textbox", "img", "group", "navigation", "form", "region"),
}
NAMELESS = {"group"}  # <details> is a group whose name is that of its summary
CONTRASTS = """() => {
    const parse = (text) => {
        const [red, green, blue, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
        return { rgb: [red, green, blue], alpha };
    };
    const linearize = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const luminance = (rgb) => {
        const [red, green, blue] = rgb.map((value) => linearize(value / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ratio = (one, other) => {
        const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const background = (element) => {
        for (let node = element; node; node = node.parentElement) {
            const { rgb, alpha } = parse(getComputedStyle(node).backgroundColor);
            if (alpha === 1) return rgb;
        }
        return [255, 255, 255];
    };
    const found = [];
    const seen = new Set();
    const skipped = ":disabled, .toast, .visually-hidden, option, datalist, script, noscript";
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        if (seen.has(element) || !text || element.closest(skipped) || !element.checkVisibility()) continue;
        seen.add(element);
        const style = getComputedStyle(element);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        const got = ratio(parse(style.color).rgb, background(element));
        found.push([`${element.className}: ${text.slice(0, 40)}`, got, isLarge ? 3 : 4.5]);
    }
    const edged = "input[type=text], input[type=number], select, textarea, .drop";
    for (const control of document.querySelectorAll(edged)) {
        if (!control.checkVisibility() || control.disabled) continue;
        const edge = ratio(parse(getComputedStyle(control).borderTopColor).rgb, background(control.parentElement));
        found.push([`edge of ${control.id || control.className}`, edge, 3]);
    }
    return found;
}"""
"""Every text and every edge of a control: what it is, its contrast, and the least that WCAG 2.2 AA asks for."""


def separate(job: FakeJob) -> dict[str, Any]:
    stems = {name: make_audio(make_wav(), f"{name}.wav") for name in ("vocals", "no_vocals")}
    return {"stems": stems, "warnings": ["The song was shorter than a segment."]}


def refuse(job: FakeJob) -> dict[str, Any]:
    raise WorkerError("invalid_request", "Invalid request.")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page with a finished, a failed and a running job."""
    end = threading.Event()

    def analyze(job: FakeJob) -> dict[str, Any]:
        job.report("tempo", 30.0)
        assert end.wait(120)
        return {}

    client = FakeClient(separate=separate, analyze=analyze, mix_audio=refuse)
    with start_browser() as browser, PageServer(client, port=0) as server, open_page(browser, server.url) as page:
        for operation in ("separate", "mix_audio", "analyze"):
            page.evaluate(
                """async (operation) => {
                    const body = JSON.stringify({ operation, params: {} });
                    const headers = { "Content-Type": "application/json" };
                    await fetch("api/jobs", { method: "POST", headers, body });
                }""",
                operation,
            )
        page.wait_for_function(
            "async () => (await (await fetch('api/jobs')).json()).jobs.filter(({ state }) =>"
            " ['done', 'failed', 'running'].includes(state)).length === 3"
        )
        page.reload()
        page.wait_for_selector(".card[data-state=running]")
        page.wait_for_selector(".card[data-state=done] .player")
        try:
            yield page
        finally:
            end.set()


OPERATIONS = ["generate_music", "separate", "mix_audio", "pipeline", "generate_cover", "analyze"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_control_has_a_name_and_a_role(page: Page, operation: str) -> None:
    choose(page, operation)
    unfold(page)
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    shown = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in CONTROLS - NAMELESS
    ]
    assert len(shown) > 40
    assert [role for role, name in shown if not name.strip()] == []
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('[tabindex]:not([role], h1, h2, h3, input)')]"
        ".map((element) => element.outerHTML.slice(0, 80))"
    )
    assert unnamed == []


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("operation", ["generate_music", "mix_audio", "analyze"])
def test_text_and_edges_have_enough_contrast(page: Page, operation: str, colours: str) -> None:
    choose(page, operation)
    unfold(page)
    page.get_by_role("button", name=f"{colours.capitalize()} colours").click()
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 60
    assert [entry for entry in measured if entry[1] < entry[2]] == []


def test_the_switch_of_colours_wins_over_the_system_and_lasts(page: Page) -> None:
    read = "() => getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Light colours").click()
    light = page.evaluate(read)
    page.get_by_role("button", name="Colours as in the system").click()
    dark = page.evaluate(read)
    assert light != dark
    page.get_by_role("button", name="Dark colours").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(read) == dark
    page.reload()
    expect(page.get_by_role("button", name="Dark colours")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(read) == dark
    page.wait_for_selector(".card[data-state=done] .player")


def test_tab_goes_through_all_controls_in_their_order_with_a_visible_focus(page: Page) -> None:
    choose(page, "separate")
    wanted = page.evaluate(
        """() => {
            const selector = "a[href], button, input, select, textarea, summary, [tabindex='0']";
            const all = [...document.querySelectorAll(selector)].filter((element) =>
                element.checkVisibility() && !element.disabled && element.tabIndex >= 0);
            all.forEach((element, index) => { element.dataset.order = String(index); });
            document.activeElement.blur();
            window.scrollTo(0, 0);
            return all.length;
        }"""
    )
    page.evaluate(
        "() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex') }"
    )
    visited = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        visited.append(
            page.evaluate(
                """() => {
                    const element = document.activeElement;
                    const shown = element.closest(".chip") ?? element;
                    return [Number(element.dataset.order), getComputedStyle(shown).outlineStyle !== "none"];
                }"""
            )
        )
    assert [order for order, _ in visited] == list(range(wanted))
    assert [order for order, visible in visited if not visible] == []


def test_a_result_is_played_and_searched_by_keyboard(page: Page) -> None:
    seek = page.get_by_role("slider", name="Position in Vocals").first
    seek.focus()
    page.keyboard.press("End")
    expect(seek).to_have_attribute("aria-valuenow", "0.5")
    page.keyboard.press("ArrowLeft")
    expect(seek).to_have_attribute("aria-valuenow", "0.4")
    page.keyboard.press("Home")
    expect(seek).to_have_attribute("aria-valuetext", "0.0 of 0.5 seconds")
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause Vocals")).to_have_count(1)
    expect(page.get_by_role("button", name="Pause Vocals")).to_have_count(0)
    expect(seek).to_have_attribute("aria-valuenow", "0.5")


@pytest.mark.parametrize("operation", ["generate_music", "mix_audio", "analyze"])
def test_nothing_is_cut_off_on_a_phone(page: Page, operation: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    try:
        choose(page, operation)
        unfold(page)
        widest = page.evaluate(
            """() => {
                const shown = [...document.querySelectorAll("body *")].filter((element) =>
                    element.checkVisibility() && !element.closest(".visually-hidden, .skip, .bar, .toast"));
                return Math.max(document.documentElement.scrollWidth, ...shown.map((element) =>
                    Math.ceil(element.getBoundingClientRect().right)));
            }"""
        )
        assert widest <= 360
        expect(page.get_by_label("Operation", exact=True)).to_be_visible()
    finally:
        page.set_viewport_size({"width": 1440, "height": 900})


def test_motion_stops_if_the_user_wants_less_of_it(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    longest = page.evaluate(
        "() => Math.max(...[...document.querySelectorAll('*')].map((element) =>"
        " parseFloat(getComputedStyle(element).animationDuration)))"
    )
    page.emulate_media(reduced_motion="no-preference")
    assert longest < 0.001


def test_the_skip_link_leads_to_the_results(page: Page) -> None:
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Results")).to_be_focused()
