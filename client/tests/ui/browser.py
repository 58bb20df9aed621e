"""A headless Chromium, and pages in it that fail a test on any error in their console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
]
TIMEOUT_MS = 20_000


@contextmanager
def start_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, url: str, *, expected: str = "no error", **options: Any) -> Iterator[Page]:
    """The page at `url` in a profile of its own, once its forms and its history are shown.

    Args:
        expected: what stands in messages of the console that are no fault of the page.
    """
    context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    problems: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and expected not in message.text:
            problems.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        visit(page, url)
        yield page
        assert problems == []
    finally:
        context.close()


def visit(page: Page, url: str) -> None:
    page.goto(url)
    wait_until_ready(page)


def wait_until_ready(page: Page) -> None:
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector(".connection[data-state=ready]")


def choose(page: Page, operation: str) -> None:
    """Opens the form of an operation."""
    page.evaluate("name => { location.hash = name }", operation)
    page.locator(f'.operation[href="#{operation}"][aria-current]').wait_for(state="attached")


def unfold(page: Page) -> None:
    """Opens every folded group."""
    page.evaluate("() => document.querySelectorAll('details').forEach((details) => { details.open = true })")


def read_request(page: Page) -> Any:
    """The request that the page would send, as its button copies it."""
    page.evaluate("() => navigator.clipboard.writeText('')")
    page.get_by_role("button", name="Copy JSON").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()) !== ''")
    return page.evaluate("async () => JSON.parse(await navigator.clipboard.readText())")
