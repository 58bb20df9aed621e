"""Imports rvc-python's network modules without the rest of the package.

`import rvc_python` runs its command line's imports (fairseq, faiss, its own configuration, which reads `sys.argv` and
rewrites files of the package). Python runs a package's `__init__` only where the package is not in `sys.modules` yet:
an empty package object with the right `__path__`, put there first, is enough for the modules below it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType

from errors import ModelError

_LOCK = threading.RLock()
_PACKAGE = "rvc_python"


def import_rvc(module: str) -> ModuleType:
    """The module `rvc_python.<module>`, e.g. `lib.infer_pack.models`. From any thread, any number of times.

    Raises:
        ModelError: rvc-python is not installed.
    """
    with _LOCK:
        if _PACKAGE not in sys.modules:
            sys.modules[_PACKAGE] = _empty_package()
        return importlib.import_module(f"{_PACKAGE}.{module}")


def _empty_package() -> ModuleType:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("rvc-python is not installed: install the worker's requirements.txt.", code="not_installed")
    package = ModuleType(_PACKAGE, "rvc-python, without what its __init__ imports.")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = importlib.util.spec_from_loader(_PACKAGE, loader=None, is_package=True)
    return package
