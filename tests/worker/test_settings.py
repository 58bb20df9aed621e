"""The environment as one value: validated strictly, secrets never shown."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from worker.settings import Platform, Settings, SettingsError

INVALID = {
    "LOG_LEVEL": "LOUD",
    "ALLOW_PRIVATE_URLS": "maybe",
    "ALLOW_VOICE_UPLOAD": "2",
    "MAX_INPUT_SECONDS": "long",
    "SUNO_RATE_LIMIT": "many",
    "CONCURRENCY": "1.5",
    "DEVICE": "banana",
}

OUT_OF_RANGE = [
    ("MODEL_MEMORY_BYTES", "-1", "at least 0"),
    ("INLINE_BUDGET_BYTES", "-5", "at least 100000"),
    ("INLINE_BUDGET_BYTES", "99999", "at least 100000"),
    ("MAX_INPUT_BYTES", "-1", "at least 1"),
    ("MAX_INPUT_BYTES", "0", "at least 1"),
    ("MAX_INPUT_SECONDS", "-0.5", "more than 0"),
    ("MAX_INPUT_SECONDS", "0", "more than 0"),
    ("MAX_INPUT_SECONDS", "nan", "more than 0"),
    ("MAX_INPUT_SECONDS", "inf", "more than 0"),
    ("MAX_INPUT_SECONDS", "1e9", "at most 31536000"),
    ("MAX_DECODED_BYTES", "-1", "at least 1"),
    ("MAX_DECODED_BYTES", "0", "at least 1"),
    ("MAX_INPUT_SAMPLE_RATE", "-44100", "at least 8000"),
    ("MAX_INPUT_SAMPLE_RATE", "7999", "at least 8000"),
    ("MAX_INPUT_CHANNELS", "-2", "at least 1"),
    ("MAX_INPUT_CHANNELS", "0", "at least 1"),
    ("DOWNLOAD_TIMEOUT_S", "-1", "more than 0"),
    ("DOWNLOAD_TIMEOUT_S", "0", "more than 0"),
    ("DOWNLOAD_TIMEOUT_S", "nan", "more than 0"),
    ("SUNO_RATE_LIMIT", "-1", "at least 1"),
    ("SUNO_RATE_LIMIT", "0", "at least 1"),
    ("CONCURRENCY", "-1", "at least 1"),
    ("CONCURRENCY", "0", "at least 1"),
    ("JOB_TIMEOUT_S", "-1", "0 or more"),
    ("JOB_TIMEOUT_S", "nan", "0 or more"),
    ("CANCEL_GRACE_S", "-1", "0 or more"),
    ("SHUTDOWN_GRACE_S", "-1", "0 or more"),
    ("SHUTDOWN_GRACE_S", "inf", "0 or more"),
    ("CANCEL_GRACE_S", "inf", "0 or more"),
    ("CANCEL_GRACE_S", "1e300", "at most 31536000"),
    ("JOB_TIMEOUT_S", "1e300", "at most 31536000"),
    ("DOWNLOAD_TIMEOUT_S", "1e300", "at most 31536000"),
]


@pytest.mark.parametrize(("variable", "value"), INVALID.items())
def test_an_invalid_value_is_an_error_that_names_the_variable_and_not_the_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        Settings.from_env({variable: value})
    assert f"'{value}'" not in str(caught.value)


@pytest.mark.parametrize(("variable", "value", "accepted"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_an_error_that_names_the_variable_and_the_range(
    variable: str, value: str, accepted: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: value})
    assert variable in str(caught.value) and accepted in str(caught.value)


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_out_of_range_is_an_error(port: str) -> None:
    with pytest.raises(SettingsError, match="RUNPOD_REALTIME_PORT.* 0 to 65535"):
        Platform.from_env({"RUNPOD_REALTIME_PORT": port})


def test_every_number_among_the_settings_has_a_tested_range() -> None:
    numbers = {f.metadata["variable"] for f in fields(Settings) if type(f.default) in (int, float)}
    assert numbers == {variable for variable, _, _ in OUT_OF_RANGE}


def test_the_ends_of_a_range_are_accepted() -> None:
    settings = Settings.from_env({"MODEL_MEMORY_BYTES": "0", "CONCURRENCY": "1", "JOB_TIMEOUT_S": "0"})
    assert (settings.model_memory_bytes, settings.concurrency, settings.job_timeout_s) == (0, 1, 0.0)


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.from_env({f.metadata["variable"]: "" for f in fields(Settings)}) == Settings()


@pytest.mark.parametrize(
    "environ",
    [{}, {"TORCH_HOME": "/a/torch"}, {"XDG_CACHE_HOME": "/c"}, {"TORCH_HOME": "~/t", "XDG_CACHE_HOME": "/c"}],
)
def test_torchs_cache_is_where_torch_itself_has_it(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert str(Settings.from_env().find_torch_home() / "hub") == torch.hub.get_dir()


def test_a_log_level_may_be_in_lower_case() -> None:
    assert Settings.from_env({"LOG_LEVEL": "debug"}).log_level == "DEBUG"


def test_the_device_is_named_without_a_number() -> None:
    """CUDA graphs, events and memory queries are on the process's first GPU."""
    assert Settings.from_env({"DEVICE": "CUDA"}).device == "cuda"
    with pytest.raises(SettingsError, match="one of auto, cuda, cpu, mps; CUDA_VISIBLE_DEVICES chooses"):
        Settings.from_env({"DEVICE": "cuda:1"})


def test_every_setting_has_a_group_and_a_description_for_the_documentation() -> None:
    groups = {"models", "limits", "delivery", "suno", "runtime"}
    assert {f.metadata["group"] for f in fields(Settings)} == groups
    assert all(f.metadata["doc"].endswith(".") for f in fields(Settings))


def test_secrets_are_marked_and_are_not_in_any_repr() -> None:
    environ = {f.metadata["variable"]: f"secret-{f.name}" for f in fields(Settings) if f.metadata["secret"]}
    settings = Settings.from_env(environ)
    platform = Platform.from_env({"RUNPOD_AI_API_KEY": "secret-key"})
    assert set(settings.secrets()) >= {"secret-suno_api_token", "secret-bucket_secret_access_key"}
    assert platform.secrets() == ("secret-key",) and "secret-key" not in repr(platform)
    assert not [secret for secret in settings.secrets() if secret in repr(settings)]
