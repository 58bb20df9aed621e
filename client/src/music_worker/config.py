"""Where the endpoint and its key come from: arguments, the environment, then what `music-worker login` saved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from music_worker.bucket import Bucket
from music_worker.downloads import PartialFile
from music_worker.errors import ConfigurationError, OutputError
from music_worker.files import UploadTarget
from music_worker.transport import Endpoint, Patience, check_key

SERVICE = "music-worker"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The endpoint to use, and where its large inputs go."""

    endpoint: Endpoint
    upload: UploadTarget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What `music-worker login` saved.

    Args:
        key_place: where the API key is: `keyring`, `file`, or empty without a key.
    """

    endpoint_id: str | None = None
    url: str | None = None
    bucket: Bucket | None = None
    api_key: str | None = field(default=None, repr=False)
    key_place: str = ""


def get_config_dir() -> Path:
    """The folder of the settings: MUSIC_WORKER_CONFIG_DIR, else the platform's own."""
    return Path(os.environ.get("MUSIC_WORKER_CONFIG_DIR") or platformdirs.user_config_path(SERVICE))


def resolve_endpoint(
    *,
    url: str | None = None,
    endpoint_id: str | None = None,
    api_key: str | None = None,
    patience: Patience | None = None,
) -> Resolved:
    """The endpoint that the arguments, the environment or the login name; the first of these that names one counts.

    The key of RunPod (RUNPOD_API_KEY, or the saved one) is sent to RunPod only. An address that is given by `url` gets
    a key only if it is given as well.
    """
    if url and endpoint_id:
        raise ConfigurationError("Give either `url` or `endpoint_id`, not both.")
    saved: Login | None = None
    if not url and not endpoint_id:
        url, endpoint_id = os.environ.get("MUSIC_WORKER_URL"), os.environ.get("RUNPOD_ENDPOINT_ID")
        if url:
            endpoint_id = None
        elif not endpoint_id:
            saved = load_login()
            url, endpoint_id = saved.url, saved.endpoint_id
            if url:
                api_key = api_key or saved.api_key
    if not url and not endpoint_id:
        raise ConfigurationError(
            "No endpoint is known. Pass `url` or `endpoint_id`, set MUSIC_WORKER_URL or RUNPOD_ENDPOINT_ID, or run "
            "`music-worker login`."
        )
    upload = Bucket.from_env() or (saved or load_login(with_key=False)).bucket
    if url:
        return Resolved(Endpoint.at_url(url, api_key, patience=patience), upload)
    assert endpoint_id is not None
    key = api_key or os.environ.get("RUNPOD_API_KEY")
    if not key:
        login = saved or load_login()
        key = login.api_key if login.endpoint_id else None  # a key of RunPod is that of an account
    return Resolved(Endpoint.on_runpod(endpoint_id, key, patience=patience), upload)


def save_login(
    *, endpoint_id: str | None = None, url: str | None = None, api_key: str | None = None, bucket: Bucket | None = None
) -> Login:
    """Saves the endpoint for later, in place of an earlier one; says in `key_place` where the key went.

    The key goes to the system's keyring if the package keyring is installed and works, else to a file that only this
    user can read.
    """
    if bool(endpoint_id) == bool(url):
        raise ConfigurationError("Give either an endpoint id or a URL.")
    if url:
        Endpoint.at_url(url, api_key)
    else:
        Endpoint.on_runpod(endpoint_id or "", api_key)
    key = check_key(api_key) if api_key else None
    secrets: dict[str, str] = {}
    place = ""
    if key and _save_in_keyring(key):
        place = "keyring"
    elif key:
        place = "file"
        secrets["api_key"] = key
    if bucket is not None:
        secrets["bucket_secret_access_key"] = bucket.secret_access_key
    settings = {
        "endpoint_id": endpoint_id,
        "url": url,
        "key_place": place,
        "bucket": bucket.to_dict() if bucket else None,
    }
    folder = get_config_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    _write(folder / "credentials.json", secrets, mode=0o600)
    _write(folder / "config.json", {name: value for name, value in settings.items() if value}, mode=0o600)
    return Login(endpoint_id=endpoint_id, url=url, bucket=bucket, api_key=key, key_place=place)


def load_login(*, with_key: bool = True) -> Login:
    """What was saved; an empty `Login` if nothing was."""
    folder = get_config_dir()
    settings, secrets = _read(folder / "config.json"), _read(folder / "credentials.json")
    place = str(settings.get("key_place") or "")
    key = secrets.get("api_key")
    if with_key and place == "keyring":
        key = _read_from_keyring()
    bucket = settings.get("bucket")
    return Login(
        endpoint_id=_text(settings.get("endpoint_id")),
        url=_text(settings.get("url")),
        bucket=Bucket.from_dict(bucket, str(secrets.get("bucket_secret_access_key") or "")) if bucket else None,
        api_key=_text(key),
        key_place=place,
    )


def delete_login() -> None:
    """Removes what was saved, the key included."""
    folder = get_config_dir()
    if load_login(with_key=False).key_place == "keyring":
        _delete_from_keyring()
    for name in ("credentials.json", "config.json"):
        (folder / name).unlink(missing_ok=True)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _write(path: Path, value: Mapping[str, Any], *, mode: int) -> None:
    """Writes JSON into a file that only this user can read from its first byte on."""
    try:
        with PartialFile(path, overwrite=True, mode=mode) as part:
            part.append(json.dumps(value, indent=2).encode() + b"\n")
            part.finish()
    except OutputError as error:
        raise ConfigurationError(f"The settings were not saved. {error.message}") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"{path} is damaged. Run `music-worker login` again.") from None
    return value if isinstance(value, Mapping) else {}


def _load_keyring() -> Any:
    """The package keyring with a backend that stores something; None if there is none."""
    try:
        import keyring
        from keyring.backends import fail
    except ImportError:
        return None
    return None if isinstance(keyring.get_keyring(), fail.Keyring) else keyring


def _save_in_keyring(key: str) -> bool:
    if (keyring := _load_keyring()) is None:
        return False
    from keyring.errors import KeyringError

    try:
        keyring.set_password(SERVICE, "api_key", key)
        return bool(keyring.get_password(SERVICE, "api_key") == key)
    except (KeyringError, RuntimeError, OSError):  # a locked or absent service of the desktop
        return False


def _read_from_keyring() -> str | None:
    if (keyring := _load_keyring()) is None:
        raise ConfigurationError(
            "The API key is in the system's keyring, and the package keyring is not available. Install "
            "music-worker[keyring], set RUNPOD_API_KEY, or run `music-worker login` again."
        )
    from keyring.errors import KeyringError

    try:
        return _text(keyring.get_password(SERVICE, "api_key"))
    except (KeyringError, RuntimeError, OSError):
        raise ConfigurationError(
            "The system's keyring cannot be opened. Unlock it, set RUNPOD_API_KEY, or run `music-worker login` again."
        ) from None


def _delete_from_keyring() -> None:
    if (keyring := _load_keyring()) is None:
        return
    from keyring.errors import KeyringError

    try:
        keyring.delete_password(SERVICE, "api_key")
    except (KeyringError, RuntimeError, OSError):
        return
