"""The environment as one value: read strictly, secrets never shown."""

from __future__ import annotations

from dataclasses import fields

import pytest

from worker.settings import Platform, Settings, SettingsError

WRONG = {
    "CONCURRENCY": "0",
    "LOG_LEVEL": "LOUD",
    "ALLOW_PRIVATE_URLS": "maybe",
    "MAX_INPUT_SECONDS": "long",
    "SUNO_RATE_LIMIT": "many",
}


@pytest.mark.parametrize(("variable", "value"), WRONG.items())
def test_a_value_that_cannot_be_read_is_an_error_that_names_the_variable_and_not_the_value(
    variable: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        Settings.from_env({variable: value})
    assert f"'{value}'" not in str(caught.value)


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.from_env({f.metadata["variable"]: "" for f in fields(Settings)}) == Settings()


def test_a_level_may_be_written_small() -> None:
    assert Settings.from_env({"LOG_LEVEL": "debug"}).log_level == "DEBUG"


def test_secrets_are_known_as_such_and_stand_in_no_repr() -> None:
    environ = {f.metadata["variable"]: f"secret-{f.name}" for f in fields(Settings) if f.metadata["secret"]}
    settings = Settings.from_env(environ)
    platform = Platform.from_env({"RUNPOD_AI_API_KEY": "secret-key"})
    assert set(settings.secrets()) >= {"secret-suno_api_token", "secret-bucket_secret_access_key"}
    assert platform.secrets() == ("secret-key",) and "secret-key" not in repr(platform)
    assert not [secret for secret in settings.secrets() if secret in repr(settings)]
