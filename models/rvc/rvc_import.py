"""Imports network definitions from rvc-python without its package `__init__`.

rvc_python 0.1.5's `__init__` imports its whole inference path, and with it fairseq, which no longer installs. With an
empty package object in its place, the submodules that define networks import as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

from errors import ErrorCode, ModelError

_PACKAGE = "rvc_python"
_LOCK = threading.RLock()


def import_network_module(name: str) -> Any:
    """The module `rvc_python.<name>`, e.g. `lib.infer_pack.models` or `lib.rmvpe`. Safe from any thread.

    Raises:
        ModelError: rvc-python is not installed.
    """
    with _LOCK:
        if _PACKAGE not in sys.modules:
            sys.modules[_PACKAGE] = _bare_package()
        return importlib.import_module(f"{_PACKAGE}.{name}")


def _bare_package() -> ModuleType:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModelError(
            "The package rvc-python is not installed, and voice conversion needs its network definitions. Install it "
            "(pip install --no-deps rvc-python==0.1.5).",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )
    package = ModuleType(_PACKAGE, "rvc-python without its __init__: only its submodules are used.")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec  # importlib.util.find_spec raises for a loaded module without one
    return package
