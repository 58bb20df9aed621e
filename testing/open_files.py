"""Lists the files and pipes that this process has open, for tests that look for leaks."""

import contextlib
import os
from pathlib import Path


def list_open_files() -> set[tuple[str, str]]:
    """Returns the descriptor number and target of every open file and pipe.

    Compare two sets by `after - before`, never by size: the interpreter and libraries close things of their own at
    any time. Sockets are left out, because servers of the tests accept and close them in other threads.
    """
    folder = Path("/proc/self/fd")
    files = set()
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed since, as is the folder itself
            files.add((name, os.readlink(folder / name)))
    return {(name, target) for name, target in files if not target.startswith("socket:")}
