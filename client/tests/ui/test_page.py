"""The page in a real browser, before a client whose jobs do what the test says."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import choose, open_page, read_request, start_browser, unfold, visit, wait_until_ready
from fake_client import FakeClient, FakeJob, make_audio, make_wav
from playwright.sync_api import Browser, Page, expect

from music_worker.errors import JobCancelledError, WorkerError
from music_worker.jobs import JobState
from music_worker.schema import load_schemas
from music_worker.ui_server import PageServer

KEPT = """() => new Promise((resolve) => {
    indexedDB.open("music-worker").onsuccess = ({ target }) => {
        const request = target.result.transaction("files").objectStore("files").count();
        request.onsuccess = () => { target.result.close(); resolve(request.result === 1); };
    };
})"""
"""Whether the browser has its own copy of one file."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def server(client: FakeClient) -> Iterator[PageServer]:
    with PageServer(client, port=0) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: PageServer) -> Iterator[Page]:
    with open_page(browser, server.url) as page:
        yield page


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def drop_files(page: Page, *names: str) -> None:
    """Drops files on the page as a user does who does not aim at a field."""
    page.evaluate(
        """(names) => {
            const data = new DataTransfer();
            for (const name of names) data.items.add(new File([`content of ${name}`], name));
            const options = { dataTransfer: data, bubbles: true, cancelable: true };
            for (const type of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(type, options));
        }""",
        list(names),
    )


def test_every_operation_has_a_control_for_each_field_and_sends_only_what_is_set(page: Page) -> None:
    for operation, schema in load_schemas().operations.items():
        choose(page, operation)
        shown = page.evaluate(
            "() => [...document.querySelectorAll('#fields > .fields > [data-field], #fields > .fields > details"
            " [data-field]')].map((field) => field.dataset.field)"
        )
        assert set(schema["properties"]) <= set(shown)
        sent = read_request(page)["input"]["params"]
        assert sent == {"mix_audio": {"tracks": [{}, {}]}, "pipeline": {"steps": [{}]}}.get(operation, {}), operation


def test_an_operation_says_whether_the_worker_can_do_it(page: Page) -> None:
    notice = page.locator("#operation-notice")
    expect(page.locator(".operation", has_text="Add a voice").locator(".tag")).to_have_text("off")
    expect(page.locator(".operation", has_text="Separate stems").locator(".tag")).to_have_text("demo")
    expect(page.locator(".operation", has_text="Analyze").locator(".tag")).to_have_count(0)
    choose(page, "add_voice")
    expect(notice).to_contain_text("set ALLOW_VOICE_UPLOAD=1")
    choose(page, "separate")
    expect(notice).to_be_hidden()


def test_values_of_every_kind_become_json_of_their_types(page: Page) -> None:
    choose(page, "generate_music")
    unfold(page)
    page.get_by_label("Prompt", exact=True).fill("calm piano")
    page.get_by_label("Model", exact=True).select_option("demo")
    page.get_by_label("Duration", exact=True).fill("12.5")
    page.get_by_label("Seed", exact=True).fill("1, 2")
    page.get_by_label("BPM", exact=True).fill("auto")
    page.get_by_label("Number of samples", exact=True).fill("2")
    page.get_by_label("Include prompt").uncheck()
    page.get_by_label("Output format").select_option("flac")
    page.get_by_label("Bit depth").select_option("24")
    params = read_request(page)["input"]["params"]
    assert params == {
        "prompt": "calm piano",
        "model": "demo",
        "duration": 12.5,
        "seed": [1, 2],
        "bpm": "auto",
        "n_samples": 2,
        "include_prompt": False,
        "output_format": "flac",
        "bit_depth": 24,
    }


def test_the_settings_of_other_engines_disappear_with_the_choice_of_a_model(page: Page) -> None:
    choose(page, "generate_music")
    expect(page.get_by_label("Lyrics", exact=True)).to_be_visible()
    page.get_by_label("Lyrics", exact=True).fill("la la")
    page.get_by_label("Model", exact=True).select_option("demo")
    expect(page.get_by_label("Lyrics", exact=True)).to_be_hidden()
    expect(page.get_by_text("ACE-Step settings")).to_be_hidden()
    assert read_request(page)["input"]["params"] == {"model": "demo"}


def test_wrong_values_are_named_beside_their_fields_and_nothing_is_sent(page: Page, client: FakeClient) -> None:
    choose(page, "generate_music")
    page.get_by_label("Duration", exact=True).fill("900")
    page.get_by_label("Seed", exact=True).fill("many")
    run(page)
    expect(page.get_by_text("Duration must be less than or equal to 600.")).to_be_visible()
    expect(page.get_by_text("2 fields need other values.")).to_be_visible()
    expect(page.get_by_label("Duration", exact=True)).to_be_focused()
    expect(page.get_by_label("Duration", exact=True)).to_have_attribute("aria-invalid", "true")
    assert [job.operation for job in client.jobs] == ["list_models", "health_check"]
    page.get_by_label("Duration", exact=True).fill("9")
    expect(page.get_by_text("Duration must be")).to_be_hidden()


def test_a_missing_file_is_named(page: Page) -> None:
    choose(page, "separate")
    run(page)
    expect(page.get_by_text("Audio is required.")).to_be_visible()
    expect(page.get_by_role("button", name="Choose a file for Audio")).to_be_focused()


def test_a_refusal_of_the_worker_stands_in_the_results_and_beside_its_field(browser: Browser) -> None:
    def refuse(job: FakeJob) -> dict[str, Any]:
        problem = {"field": "key", "problem": "must be a key such as 'C minor'"}
        message = "Invalid request: 'key' must be a key such as 'C minor'."
        raise WorkerError("invalid_request", message, {"errors": [problem]})

    with PageServer(FakeClient(generate_music=refuse), port=0) as server, open_page(browser, server.url) as page:
        unfold(page)
        page.get_by_label("Key", exact=True).fill("H <b>dur</b>")
        run(page)
        card = page.locator(".card[data-state=failed]")
        expect(card.get_by_role("alert")).to_contain_text("Invalid request: 'key' must be")
        expect(card.get_by_role("alert")).to_contain_text("invalid_request")
        expect(page.locator("[data-field=key] .error")).to_have_text("Key must be a key such as 'C minor'.")
        expect(page.locator("#announcements")).to_contain_text("Generate music: failed: Invalid request")


def test_a_job_shows_queue_progress_and_time_left_and_can_be_cancelled(browser: Browser) -> None:
    go_on = threading.Event()

    def work(job: FakeJob) -> dict[str, Any]:
        job.report(state=JobState.IN_QUEUE)
        assert go_on.wait(20)
        job.report("generate", 25.0)
        assert job.cancelled.wait(20)
        raise JobCancelledError("It was cancelled.")

    with PageServer(FakeClient(generate_music=work), port=0) as server, open_page(browser, server.url) as page:
        run(page)
        card = page.locator(".card")
        expect(card.locator(".stage")).to_have_text("In the queue")
        go_on.set()
        expect(card.locator(".stage")).to_have_text("Generate, 25 %")
        expect(card.locator(".times")).to_contain_text("about 1 min 15 s left")
        expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
        page.reload()
        expect(card.locator(".stage")).to_have_text("Generate, 25 %")
        card.get_by_role("button", name="Cancel Generate music").click()
        expect(page.locator(".card[data-state=cancelled]")).to_contain_text("Cancelled.")


def test_dropped_files_fill_the_free_fields_and_add_tracks(page: Page, client: FakeClient) -> None:
    choose(page, "mix_audio")
    drop_files(page, "drums.wav", "bass.wav", "voice.wav")
    expect(page.locator(".file-name")).to_have_text(["drums.wav", "bass.wav", "voice.wav"])
    run(page)
    page.wait_for_selector(".card[data-state=done]")
    tracks = client.last("mix_audio").params["tracks"]
    assert [Path(track["audio"]).read_text() for track in tracks] == [
        f"content of {name}.wav" for name in ("drums", "bass", "voice")
    ]


def test_a_file_is_chosen_and_taken_back_by_keyboard(page: Page, client: FakeClient) -> None:
    choose(page, "separate")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file for Audio").press("Enter")
    chooser.value.set_files({"name": "song.mp3", "mimeType": "audio/mpeg", "buffer": b"song"})
    expect(page.locator(".file-name")).to_have_text("song.mp3")
    page.get_by_role("button", name="Remove song.mp3").press("Enter")
    expect(page.get_by_role("button", name="Choose a file for Audio")).to_be_focused()
    page.get_by_label("Audio: URL or path on the volume").fill("/runpod-volume/song.wav")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".card[data-state=done]")
    assert client.last("separate").params["audio"].url == "/runpod-volume/song.wav"


def test_a_pipeline_is_made_of_the_forms_of_its_steps(page: Page) -> None:
    choose(page, "pipeline")
    page.get_by_label("ID", exact=True).fill("parts")
    page.locator("[data-field=operation] input").fill("separate")
    page.get_by_label("Audio: URL or path on the volume").fill("https://example.com/song.mp3")
    page.get_by_label("Two stems", exact=True).fill("vocals")
    page.get_by_role("button", name="Add step").click()
    page.get_by_label("ID", exact=True).nth(1).fill("song")
    page.locator("[data-field=operation] input").nth(1).fill("analyze")
    page.get_by_label("Use a result as Audio").nth(1).focus()
    page.get_by_label("Use a result as Audio").nth(1).select_option("$parts.stems.vocals")
    assert read_request(page)["input"]["params"]["steps"] == [
        {
            "id": "parts",
            "operation": "separate",
            "params": {"audio": "https://example.com/song.mp3", "two_stems": "vocals"},
        },
        {"id": "song", "operation": "analyze", "params": {"audio": "$parts.stems.vocals"}},
    ]
    page.get_by_role("button", name="Move up step 2").click()
    assert [step["id"] for step in read_request(page)["input"]["params"]["steps"]] == ["song", "parts"]


def test_all_results_come_as_one_archive(browser: Browser, tmp_path: Path) -> None:
    def separate(job: FakeJob) -> dict[str, Any]:
        steps = {"bass": 90, "drums": 9}
        return {"stems": {name: make_audio(make_wav(step=step), "stem.wav") for name, step in steps.items()}}

    with PageServer(FakeClient(separate=separate), port=0) as server, open_page(browser, server.url) as page:
        choose(page, "separate")
        page.get_by_label("Audio: URL or path on the volume").fill("https://example.com/song.mp3")
        run(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download all").click()
        download.value.save_as(tmp_path / "all.zip")
    assert re.fullmatch(r"separate-[\d-]+\.zip", download.value.suggested_filename)
    with zipfile.ZipFile(io.BytesIO((tmp_path / "all.zip").read_bytes())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["stem.wav", "stem (2).wav"]
        assert archive.read("stem.wav") == make_wav(step=90)


def test_a_result_that_cannot_be_fetched_says_why_beside_the_others(browser: Browser) -> None:
    def separate(job: FakeJob) -> dict[str, Any]:
        lost = {"output_path": "/runpod-volume/output/bass.wav", "filename": "bass.wav", "format": "wav"}
        return {"stems": {"drums": make_audio(make_wav(), "drums.wav"), "bass": lost}}

    with PageServer(FakeClient(separate=separate), port=0) as server, open_page(browser, server.url) as page:
        choose(page, "separate")
        page.get_by_label("Audio: URL or path on the volume").fill("https://example.com/song.mp3")
        run(page)
        expect(page.locator(".output", has_text="Bass")).to_contain_text("Mount the volume here")
        expect(page.get_by_role("button", name=re.compile("^Play"))).to_have_count(1)


def test_the_history_outlives_the_server_and_running_jobs_are_taken_up_again(browser: Browser) -> None:
    end = threading.Event()

    def analyze(job: FakeJob) -> dict[str, Any]:
        job.report("tempo", 10.0)
        assert end.wait(20)
        return {"key": {"name": "C minor"}}

    client = FakeClient(analyze=analyze)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    gone = "Failed to load resource: net::ERR_"
    with PageServer(client, port=port) as server, open_page(browser, server.url, expected=gone) as page:
        page.get_by_label("Prompt", exact=True).fill("<img src=x onerror=alert(1)> piano")
        run(page)
        page.wait_for_selector(".card[data-state=done] .player")
        choose(page, "analyze")
        page.get_by_label("Audio: URL or path on the volume").fill("https://example.com/song.mp3")
        run(page)
        page.wait_for_selector(".card[data-state=running]")
        page.wait_for_function(KEPT)
        server.__exit__(None, None, None)
        expect(page.locator(".toast")).to_contain_text("does not answer")
        with PageServer(client, port=port) as second:
            page.goto("about:blank")
            visit(page, second.url)
            music = page.locator(".card", has_text="Generate music")
            expect(music.locator(".summary")).to_have_text("<img src=x onerror=alert(1)> piano")
            expect(music.get_by_role("slider")).to_have_attribute("aria-valuemax", "0.5")
            end.set()
            expect(page.locator(".card[data-state=done] .tiles")).to_contain_text("C minor")
            assert client.jobs[-1].id == client.last("analyze").id
            with page.expect_download() as download:
                music.get_by_role("button", name=re.compile("^Download")).click()
            assert Path(download.value.path()).read_bytes() == make_wav()


def test_the_history_can_be_removed_job_by_job_and_as_a_whole(page: Page, server: PageServer) -> None:
    for count in (1, 2, 3):
        run(page)
        expect(page.locator(".card[data-state=done]")).to_have_count(count)
    page.get_by_role("button", name=re.compile("^Remove Generate music")).first.click()
    expect(page.locator(".card")).to_have_count(2)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear history").click()
    expect(page.locator(".card")).to_have_count(0)
    page.reload()
    wait_until_ready(page)
    expect(page.locator("#jobs-empty")).to_be_visible()


def test_requests_are_copied_for_use_elsewhere(page: Page) -> None:
    choose(page, "separate")
    drop_files(page, "it's a song.wav")
    expect(page.locator(".file-name")).to_have_text("it's a song.wav")
    page.get_by_role("button", name="Copy cURL").click()
    page.locator(".toast.shown").wait_for()
    command = page.evaluate("() => navigator.clipboard.readText()")
    address = "https://api.runpod.ai/v2/abc123/run"
    assert command.startswith(f'curl -s -X POST {address} -H "Authorization: Bearer $RUNPOD_API_KEY" -H ')
    body = command.partition(" -d '")[2].removesuffix("'").replace(r"'\''", "'")
    assert json.loads(body) == {"input": {"operation": "separate", "params": {"audio": "<base64 of it's a song.wav>"}}}


def test_the_page_of_an_earlier_run_is_refused_by_the_next(browser: Browser) -> None:
    with PageServer(FakeClient(), port=0) as first:
        token = urlsplit(first.url).path
    with PageServer(FakeClient(), port=0) as second:
        page = browser.new_page()
        answer = page.goto(f"http://{urlsplit(second.url).netloc}{token}")
        assert answer is not None
        assert answer.status == 404
        page.close()
