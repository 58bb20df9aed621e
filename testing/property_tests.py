"""How thoroughly property tests search: the hypothesis profiles, chosen by `--hypothesis-profile`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

DEFAULT_EXAMPLES = 100
EXPLORE_EXAMPLES = 2000


def register_profiles(*, in_ci: bool) -> None:
    """Registers and loads the profiles. None has a deadline, because test machines are shared.

    `default` draws new examples in each run, `ci` the same ones in every run, `explore` twenty times as many.
    """
    settings.register_profile("default", deadline=None, max_examples=DEFAULT_EXAMPLES, derandomize=False)
    settings.register_profile("ci", deadline=None, max_examples=DEFAULT_EXAMPLES, derandomize=True, print_blob=True)
    settings.register_profile("explore", deadline=None, max_examples=EXPLORE_EXAMPLES, derandomize=False)
    settings.load_profile("ci" if in_ci else "default")


def examples(count: int, **options: Any) -> settings:
    """Settings for a test that needs another number of examples than the default; `explore` multiplies it."""
    return settings(max_examples=count * settings().max_examples // DEFAULT_EXAMPLES, **options)
