"""Downloads the named models into the repository's `weights` folder, as the image's build does.

python -m models.bake [NAME ...]        NAME as list_models shows it, or family/name
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from errors import RequestError, UnknownNameError
from models.cache import Models
from models.registry import BAKED, build

logger = logging.getLogger(__name__)


def bake(names: Sequence[str], models: Models) -> None:
    """Fetches every model of `names`.

    Raises:
        RequestError: a name is unknown, or its files cannot be had.
    """
    for name in names:
        family, canonical = _found(name, models)
        logger.info("Fetching %s/%s", family, canonical)
        models.families[family].fetch(canonical)  # type: ignore[attr-defined]  # only families with weights are asked


def _found(name: str, models: Models) -> tuple[str, str]:
    """(family, canonical name) of the first family with weights that knows `name`."""
    family, slash, short = name.partition("/")
    if slash and family in models.families:
        return family, models.families[family].resolve(short)
    unknown: UnknownNameError | None = None
    for family_name, one in models.families.items():
        if hasattr(one, "fetch"):
            try:
                return family_name, one.resolve(name)
            except UnknownNameError as error:
                unknown = unknown or error
    assert unknown is not None, "there are families with weights"
    raise unknown


def main() -> int:
    """Exit code 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m models.bake", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    BAKED.mkdir(exist_ok=True)
    try:
        bake(parser.parse_args().names, build(device="cpu", download_dir=BAKED))
    except RequestError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
