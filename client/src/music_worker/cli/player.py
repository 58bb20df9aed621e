"""Plays a file with a player of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

PLAYERS: tuple[tuple[str, ...], ...] = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("mpv", "--no-video", "--really-quiet"),
    ("afplay",),
    ("pw-play",),
    ("paplay",),
    ("play", "-q"),
    ("aplay", "-q"),
)
ONLY_WAV = frozenset({"aplay"})


def find_player(path: Path) -> list[str] | None:
    """The command that plays the file, or None. MUSIC_WORKER_PLAYER names one."""
    if own := os.environ.get("MUSIC_WORKER_PLAYER"):
        return [*shlex.split(own), str(path)]
    for command in PLAYERS:
        if (program := shutil.which(command[0])) and (command[0] not in ONLY_WAV or path.suffix == ".wav"):
            return [program, *command[1:], str(path)]
    return None


def play(path: Path) -> str:
    """Plays the file to its end; returns why it could not be played, or an empty string."""
    command = find_player(path)
    if command is None:
        names = ", ".join(player[0] for player in PLAYERS)
        return f"No player was found for {path.name}. Install one of {names}, or set MUSIC_WORKER_PLAYER."
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        return f"{command[0]} cannot be started: {error.strerror}."
    return "" if ended.returncode == 0 else f"{command[0]} ended with exit code {ended.returncode}."
