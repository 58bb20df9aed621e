"""What an audio field may contain, and how everything else is refused."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, assume, example, given
from hypothesis import strategies as st

from audio import Audio
from audio.types import DiskAudio
from errors import AudioError, CancelledError, DeadlineError, RequestError, SourceError
from testing.loopback import respond_with, serve
from testing.open_files import list_open_files
from worker.input.load import SPOOL_BYTES, load_audio
from worker.job import Job
from worker.settings import Settings


def make_tone(seconds: float = 0.1, *, channels: int = 1, sample_rate: int = 8000) -> np.ndarray:
    times = np.arange(int(seconds * sample_rate)) / sample_rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * (1 + c) * times) for c in range(channels)]).astype(np.float32)


def encode_tone(kind: str = "WAV", *, seconds: float = 0.1, channels: int = 1, sample_rate: int = 8000) -> bytes:
    file = io.BytesIO()
    subtype = {"WAV": "FLOAT"}.get(kind)
    samples = make_tone(seconds, channels=channels, sample_rate=sample_rate).T
    soundfile.write(file, samples, sample_rate, format=kind, subtype=subtype)
    return file.getvalue()


WAV = encode_tone()
TEXT = base64.b64encode(WAV).decode()
NO_VOLUME = Settings(volume_dirs=())


def load(source: str, settings: Settings = NO_VOLUME, job: Job | None = None) -> Audio:
    audio = load_audio(source, field="voice_audio", job=job or Job(id="j"), settings=settings)
    assert isinstance(audio, Audio)
    return audio


def catch_error(source: str, settings: Settings = NO_VOLUME) -> RequestError:
    with pytest.raises(RequestError) as caught:
        load(source, settings)
    error = caught.value
    assert "voice_audio" in error.message
    assert error.details["field"] == "voice_audio"
    assert len(error.message) < 600
    return error


def is_the_tone(audio: Audio) -> bool:
    return audio.sample_rate == 8000 and bool(np.array_equal(audio.waveform, make_tone()))


@pytest.fixture
def volume(tmp_path: Path) -> Settings:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "song.wav").write_bytes(WAV)
    (tmp_path / "secret.wav").write_bytes(WAV)
    return Settings(volume_dirs=(tmp_path / "absent", tmp_path / "volume"))


def root(settings: Settings) -> Path:
    return settings.volume_dirs[1]


# Base64


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(WAV).decode(),
        base64.urlsafe_b64encode(WAV).decode().rstrip("="),
        base64.encodebytes(WAV).decode(),
        "\r\n".join(textwrap.wrap(TEXT, 76)),
        f"  \n{TEXT}\t\n",
        " ".join(TEXT),
        f"data:audio/wav;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"DATA:audio/x-wav;codecs=1;BASE64,{TEXT}",
        "data:audio/wav;base64," + TEXT.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    ],
    ids=lambda text: None,
)
def test_base64_is_accepted_in_every_spelling(text: str) -> None:
    assert is_the_tone(load(text))


@pytest.mark.parametrize(
    "text",
    [
        "not base64 at all!",
        "invalid_base64",
        "ä" + TEXT,
        TEXT + "=" * 3,
        TEXT[:100] + "=" + TEXT[100:],
        TEXT[:100] + "\0" + TEXT[100:],
        TEXT[: len(TEXT) // 4 * 4 - 3],
        "A",
        "====",
        "\ud800",
        "song.wav",
        "data:audio/wav,RIFF",
        "data:audio/wav;base64",
        "data:audio/wav;base64,!!!",
        "data:audio/wav;base64," + "%41" * 10,
        base64.b64encode(b"GIF89a" + bytes(100)).decode(),
    ],
)
def test_invalid_base64_has_the_message_that_the_contract_fixes(text: str) -> None:
    error = catch_error(text)
    assert error.message.startswith("Invalid base64 audio data")
    assert isinstance(error, AudioError)
    assert text[:12] not in error.message


@pytest.mark.parametrize("text", ["", "  \n", "data:audio/wav;base64,", "data:audio/wav;base64, \n"])
def test_an_empty_string_is_empty_audio(text: str) -> None:
    assert catch_error(text).error_code == "empty_audio"


def test_megabytes_of_garbage_get_a_short_error() -> None:
    assert len(str(catch_error("#" * 5_000_000).to_reply())) < 1000
    assert len(str(catch_error("A" * 5_000_000).to_reply())) < 1000


def test_base64_that_starts_like_a_path_is_base64() -> None:
    """mpeg audio without a tag begins with ff fb, which is '//s' in base64."""
    mp3 = encode_tone("MP3", seconds=0.5, sample_rate=16000)
    mp3 = mp3[mp3.index(b"\xff") :]
    text = base64.b64encode(mp3).decode()
    assert text.startswith("//")
    assert load(text).sample_rate == 16000
    assert catch_error("/9j/4AAQSkZJRgABAQAAAQABAAD").message.startswith("Invalid base64 audio data")


def test_base64_over_the_limit_is_refused_without_decoding() -> None:
    class Unread(str):
        def __getitem__(self, key: object) -> str:
            if isinstance(key, slice) and key.start not in (None, 0):
                raise AssertionError("decoded")
            return super().__getitem__(key)  # type: ignore[index]

    error = catch_error(Unread("A" * 2000), Settings(volume_dirs=(), max_input_bytes=1000))
    assert error.error_code == "input_too_large"


def test_the_byte_limit_is_the_same_for_base64_a_url_and_a_path(volume: Settings) -> None:
    for limit, fits in ((len(WAV), True), (len(WAV) - 1, False)):
        settings = dataclasses.replace(volume, max_input_bytes=limit, allow_private_urls=True)
        with serve(respond_with(WAV)) as server:
            for source in (TEXT, f"data:;base64,{TEXT}", server.url(), str(root(volume) / "song.wav")):
                if fits:
                    assert is_the_tone(load(source, settings))
                else:
                    assert catch_error(source, settings).error_code == "input_too_large"


def test_large_base64_is_not_copied_in_memory() -> None:
    """In memory there are only the 40 MB text, the start of the temporary file, and slices."""
    text = base64.b64encode(b"fLaC" + bytes(30_000_000)).decode()
    tracemalloc.start()
    try:
        assert catch_error(text).error_code == "corrupt_audio"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < SPOOL_BYTES + 8_000_000


def test_a_cancelled_job_stops_decoding_its_base64() -> None:
    job = Job(id="j", cancel=threading.Event())
    job.cancel.set()
    with pytest.raises(CancelledError):
        load("A" * 3_000_000, job=job)


class CancelLater(threading.Event):
    """Set as soon as it has been looked at `looks` times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_a_cancelled_job_stops_decoding_its_audio(volume: Settings) -> None:
    (root(volume) / "long.flac").write_bytes(encode_tone("FLAC", seconds=60.0))
    cancel = CancelLater(2)
    with pytest.raises(CancelledError):
        load(str(root(volume) / "long.flac"), volume, Job(id="j", cancel=cancel))
    assert cancel.looks == -1


def test_a_job_stops_decoding_its_audio_at_its_deadline(volume: Settings) -> None:
    """As long as the decoding is not told of it, an hour of audio is decoded to its end."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((3600 * 8000, 2), np.int16), 8000, format="FLAC")
    (root(volume) / "long.flac").write_bytes(file.getvalue())
    job = Job(id="j", deadline=time.monotonic() + 0.02)
    load(TEXT, job=Job(id="j"))  # imports the decoder
    with pytest.raises(DeadlineError):
        load(str(root(volume) / "long.flac"), volume, job)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
def test_long_audio_is_on_disk_until_the_job_ends(kind: str) -> None:
    job = Job(id="j")
    text = base64.b64encode(encode_tone(kind, seconds=2.0)).decode()
    in_memory, on_disk = (
        load_audio(text, field="audio", job=job, settings=NO_VOLUME, memory_bytes=size) for size in (1 << 20, 1000)
    )
    assert isinstance(in_memory, Audio) and isinstance(on_disk, DiskAudio)
    np.testing.assert_array_equal(on_disk.read(0, 20_000), in_memory.waveform)
    job.exit_stack.close()
    with pytest.raises(ValueError, match="closed"):
        on_disk.read(0, 1)


# URLs


def test_a_url_is_loaded() -> None:
    with serve(respond_with(encode_tone("FLAC"))) as server:
        audio = load(server.url("/x.mp3"), Settings(volume_dirs=(), allow_private_urls=True))
    assert audio.sample_rate == 8000


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("http://127.0.0.1/a.wav", "private_url"),
        ("http://169.254.169.254/latest/meta-data/", "private_url"),
        ("http://[::1]/a.wav", "private_url"),
        ("http://0x7f000001/a.wav", "private_url"),
        ("HTTP://LOCALHOST/a.wav", "private_url"),
        ("file:///etc/passwd", "unsupported_url"),
        ("FILE:/etc/passwd", "unsupported_url"),
        ("ftp://example.com/a.wav", "unsupported_url"),
        ("s3://bucket/a.wav", "unsupported_url"),
        ("javascript:alert(1)", "unsupported_url"),
        ("C:\\song.wav", "unsupported_url"),
        ("http:///a.wav", "unsupported_url"),
        ("https://user:geheim@example.com/a.wav", "unsupported_url"),
    ],
)
def test_a_url_that_is_not_allowed_is_refused(source: str, code: str) -> None:
    error = catch_error(source)
    assert isinstance(error, SourceError)
    assert error.error_code == code
    assert "passwd" not in error.message and "geheim" not in error.message


def test_an_unsupported_scheme_is_named_in_the_error() -> None:
    assert "'file:'" in catch_error("file:///etc/passwd").message


# Volume paths


def test_a_path_below_a_volume_is_loaded(volume: Settings) -> None:
    assert is_the_tone(load(str(root(volume) / "song.wav"), volume))
    (root(volume) / "inner").mkdir()
    assert is_the_tone(load(f"{root(volume)}/inner/..//./song.wav", volume))


def test_a_link_inside_a_volume_is_followed_inside_it(volume: Settings) -> None:
    (root(volume) / "inner").mkdir()
    (root(volume) / "inner" / "link.wav").symlink_to("../song.wav")
    (root(volume) / "folder").symlink_to("inner")
    assert is_the_tone(load(str(root(volume) / "folder" / "link.wav"), volume))


def test_a_volume_that_is_itself_a_link_is_a_volume(volume: Settings, tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to(root(volume))
    assert is_the_tone(load(str(tmp_path / "mount" / "song.wav"), Settings(volume_dirs=(tmp_path / "mount",))))


@pytest.mark.parametrize(
    "path",
    [
        "{out}/secret.wav",
        "{vol}/../secret.wav",
        "{vol}/../absent.wav",
        "{vol}/inner/../../secret.wav",
        "{vol}/escape.wav",
        "{vol}/outside/secret.wav",
        "{vol}/outside/absent.wav",
        "{vol}/proc/self/environ",
        "{vol}/fifo",
        "{vol}/socket",
        "{vol}/null",
        "{vol}/inner",
        "{vol}/loop",
        "{vol}",
        "{vol}/",
        "{vol}/song.wav\0.txt",
        "{vol}/\ud800.wav",
        "{vol}/" + "a/" * 3000,
        "{vol}/" + "a" * 300,
        "{vol}2/secret.wav",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "../../etc/passwd",
        "./song.wav",
        "~/song.wav",
    ],
)
def test_no_path_outside_a_volume_is_read(path: str, volume: Settings, tmp_path: Path) -> None:
    import socket

    inside = root(volume)
    (inside / "inner").mkdir()
    (inside / "escape.wav").symlink_to(tmp_path / "secret.wav")
    (inside / "outside").symlink_to(tmp_path)
    (inside / "proc").symlink_to("/proc")
    (inside / "loop").symlink_to("loop")
    (inside / "null").symlink_to("/dev/null")
    (tmp_path / "volume2").mkdir()
    (tmp_path / "volume2" / "secret.wav").write_bytes(WAV)
    os.mkfifo(inside / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(inside)
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        error = catch_error(path.format(vol=inside, out=tmp_path), volume)
    assert isinstance(error, SourceError)
    assert error.error_code == "path_not_allowed"
    assert str(tmp_path) not in error.message


def test_a_file_that_does_not_exist_is_not_found(volume: Settings) -> None:
    for path in ("absent.wav", "absent/absent.wav", "song.wav/absent.wav"):
        assert catch_error(str(root(volume) / path), volume).error_code == "path_not_found"


def test_a_folder_that_is_replaced_by_a_link_after_the_check_is_not_followed(volume: Settings, tmp_path: Path) -> None:
    """Opening itself follows no link, whatever the check before it found."""
    from worker.volume import open_beneath

    (root(volume) / "swapped").symlink_to(tmp_path)
    (root(volume) / "swapped.wav").symlink_to(tmp_path / "secret.wav")
    for parts in (["swapped", "secret.wav"], ["swapped.wav"]):
        with pytest.raises(OSError):
            open_beneath(str(root(volume)), parts)


def test_the_root_folder_cannot_be_a_volume() -> None:
    assert catch_error("/etc/passwd", Settings(volume_dirs=(Path("/"),))).error_code == "path_not_allowed"


# Errors and warnings of the decoder


def test_the_decoders_error_names_the_field() -> None:
    error = catch_error(base64.b64encode(WAV[:100]).decode())
    assert error.message.startswith("voice_audio: ")
    assert isinstance(error, AudioError)


def test_limits_come_from_the_settings() -> None:
    for limits in (
        Settings(volume_dirs=(), max_input_seconds=0.05),
        Settings(volume_dirs=(), max_input_sample_rate=4000),
    ):
        assert isinstance(catch_error(TEXT, limits), AudioError)
    eight = base64.b64encode(encode_tone(channels=3)).decode()
    assert isinstance(catch_error(eight, Settings(volume_dirs=(), max_input_channels=2)), AudioError)


def test_what_the_decoder_changed_is_a_warning_that_names_the_field() -> None:
    job = Job(id="j")
    assert load(base64.b64encode(encode_tone(channels=6)).decode(), job=job).channels == 2
    assert [warning for warning in job.warnings if warning.startswith("voice_audio: ")]


# Arbitrary strings


@hypothesis.settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="ABCabc/+-_=.~:%\n ", max_size=80))
@example("data:,")
@example("data:;base64,%")
@example("//")
def test_any_string_is_loaded_or_refused(text: str) -> None:
    assume(not text.strip().lower().startswith("http"))  # downloads are tested in test_fetch.py
    try:
        load(text, Settings(volume_dirs=(Path("/runpod-volume"),)))
    except RequestError as error:
        assert error.message and error.message.isprintable()


@hypothesis.settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(max_size=40))
def test_any_path_below_a_volume_is_loaded_or_refused(name: str, volume: Settings) -> None:
    try:
        load(f"{root(volume)}/{name}", volume)
    except RequestError as error:
        assert error.error_code in ("path_not_allowed", "path_not_found")


def test_no_file_stays_open_after_an_error(volume: Settings) -> None:
    sources = ["!" * 3_000_000, "A" * 30_000_000, str(root(volume) / "absent"), str(root(volume)), TEXT[:400]]
    catch_error(sources[0])
    before = list_open_files()
    for source in sources:
        catch_error(source, volume)
    assert not list_open_files() - before


def test_loading_audio_does_not_import_torch() -> None:
    script = (
        "import sys; from worker.input.load import load_audio; from worker.job import Job\n"
        "from worker.settings import Settings\n"
        f"load_audio({TEXT!r}, field='audio', job=Job(id='j'), settings=Settings())\n"
        "sys.exit('torch' in sys.modules or 'boto3' in sys.modules or 'runpod' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=60).returncode == 0
