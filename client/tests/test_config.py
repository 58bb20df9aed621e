"""Where the endpoint and its key come from, and where `login` keeps them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from fake_platform import KEY

from music_worker import Bucket, Client
from music_worker.config import delete_login, get_config_dir, load_login, resolve_endpoint, save_login
from music_worker.errors import ConfigurationError

BUCKET = Bucket(endpoint_url="https://s3", name="b", access_key_id="AKIAX", secret_access_key="secret-of-bucket")
FILE_KEYRING = '''
"""A keyring in a file, for tests."""
import json, os, pathlib
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

class Keyring(KeyringBackend):
    priority = 1
    path = pathlib.Path(os.environ["TEST_KEYRING_FILE"])
    def _load(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}
    def get_password(self, service, username):
        return self._load().get(f"{service}/{username}")
    def set_password(self, service, username, password):
        self.path.write_text(json.dumps({**self._load(), f"{service}/{username}": password}))
    def delete_password(self, service, username):
        values = self._load()
        if values.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError
        self.path.write_text(json.dumps(values))
'''


def test_the_key_is_kept_in_a_file_that_only_its_owner_reads_if_there_is_no_keyring() -> None:
    saved = save_login(endpoint_id="abc123", api_key=f" {KEY}\n", bucket=BUCKET)
    assert saved.key_place == "file" and KEY not in repr(saved) and "secret-of-bucket" not in repr(saved)
    folder = get_config_dir()
    for name in ("credentials.json", "config.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    settings = (folder / "config.json").read_text()
    assert KEY not in settings and "secret-of-bucket" not in settings
    assert load_login() == saved
    resolved = resolve_endpoint()
    assert (resolved.endpoint.url, resolved.endpoint.api_key) == ("https://api.runpod.ai/v2/abc123", KEY)
    assert resolved.upload == BUCKET
    delete_login()
    assert list(folder.iterdir()) == [] and load_login().endpoint_id is None


def test_a_later_login_replaces_an_earlier_one_and_no_other_file_is_left() -> None:
    save_login(endpoint_id="abc123", api_key=KEY)
    save_login(url="http://localhost:8000")
    assert json.loads((get_config_dir() / "credentials.json").read_text()) == {}
    assert sorted(path.name for path in get_config_dir().iterdir()) == ["config.json", "credentials.json"]
    assert resolve_endpoint().endpoint.url == "http://localhost:8000"


def test_the_key_goes_to_the_keyring_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backends import fail

    (tmp_path / "file_keyring.py").write_text(FILE_KEYRING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TEST_KEYRING_FILE", str(tmp_path / "keyring.json"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "file_keyring.Keyring")
    keyring.core.init_backend()
    try:
        assert save_login(endpoint_id="abc123", api_key=KEY).key_place == "keyring"
        assert all(KEY not in path.read_text() for path in get_config_dir().iterdir())
        assert resolve_endpoint().endpoint.api_key == KEY
        delete_login()
        assert (tmp_path / "keyring.json").read_text() == "{}"
    finally:
        # The class of the file is registered from now on, and choosing a backend anew would choose it.
        keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call]


def test_arguments_come_before_the_environment_and_that_before_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    save_login(endpoint_id="saved", api_key=KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "environment")
    monkeypatch.setenv("RUNPOD_API_KEY", "key-of-environment")
    assert resolve_endpoint(endpoint_id="given", api_key="key-given").endpoint.api_key == "key-given"
    environment = resolve_endpoint().endpoint
    assert (environment.url.rpartition("/")[2], environment.api_key) == ("environment", "key-of-environment")
    monkeypatch.setenv("MUSIC_WORKER_URL", "http://localhost:8000")
    assert resolve_endpoint().endpoint.url == "http://localhost:8000"


def test_the_key_of_runpod_is_sent_to_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    save_login(endpoint_id="saved", api_key=KEY)
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    assert resolve_endpoint(url="https://worker.example.com").endpoint.api_key is None
    assert resolve_endpoint(url="http://localhost:8000").endpoint.api_key is None


def test_the_saved_key_is_that_of_the_saved_endpoint() -> None:
    save_login(endpoint_id="saved", api_key=KEY)
    assert resolve_endpoint(endpoint_id="saved").endpoint.api_key == KEY
    assert resolve_endpoint(endpoint_id="another-of-the-account").endpoint.api_key == KEY


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "No endpoint is known"),
        ({"url": "http://a", "endpoint_id": "b"}, "not both"),
        ({"url": "localhost:8000"}, "http://localhost:8000"),
        ({"url": "ftp://a"}, "must be http"),
        ({"url": "http://user:password@host"}, "without a user name"),
        ({"url": "http://192.168.1.5:8000", "api_key": KEY}, "unencrypted"),
        ({"endpoint_id": "abc"}, "needs an API key"),
        ({"endpoint_id": "../other", "api_key": KEY}, "letters and digits"),
        ({"endpoint_id": "abc", "api_key": f"{KEY}\nX-Evil: 1"}, "Copy it again"),
        ({"endpoint_id": "abc", "api_key": "schlüssel"}, "Copy it again"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence_without_the_key(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        Client(**options)
    assert KEY not in str(caught.value)


def test_settings_that_are_damaged_or_unreadable_are_named() -> None:
    get_config_dir().mkdir(parents=True)
    path = get_config_dir() / "config.json"
    path.write_text("{")
    with pytest.raises(ConfigurationError, match=r"config.json is damaged. Run `music-worker login`"):
        Client()
    path.unlink()
    os.mkdir(path)
    with pytest.raises(ConfigurationError, match=r"config.json cannot be read"):
        Client()


def test_settings_that_cannot_be_written_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MUSIC_WORKER_CONFIG_DIR", str(tmp_path / "file" / "folder"))
    with pytest.raises(ConfigurationError):
        save_login(endpoint_id="abc", api_key=KEY)
