"""Downloads the named models into the repository's `weights` folder, as the image's build does.

python -m models.bake [NAME ...]        NAME as list_models shows it, or family/name
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from errors import RequestError, UnknownNameError
from models.family import ModelHandle
from models.registry import BAKED, Models, build

logger = logging.getLogger(__name__)


def bake(names: Sequence[str], models: Models) -> None:
    """Downloads every model of `names`.

    Raises:
        RequestError: a name is unknown, or its files cannot be had.
    """
    for name in names:
        handle = find_model(name, models)
        logger.info("Downloading %s", handle)
        handle.family.download(handle.name)


def find_model(name: str, models: Models) -> ModelHandle[Any]:
    """The model `family/name`, or `name` in the first family with files that has it."""
    families = [family for family in models.families if family.downloadable]
    prefix, slash, short = name.partition("/")
    for family in families:
        if slash and family.name == prefix:
            return family.resolve(short)
    unknown: UnknownNameError | None = None
    for family in families:
        try:
            return family.resolve(name)
        except UnknownNameError as error:
            unknown = unknown or error
    assert unknown is not None, "at least one family has models to download"
    raise unknown


def main() -> int:
    """Returns the exit code: 0, or 1 after one sentence on standard error."""
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
