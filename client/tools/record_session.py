"""Records a terminal session as text and SVG: the block in README.md and docs/images/terminal.svg of the repository.

Run `python -m tools.record_session` in client/. The commands are run as they are shown, with the worker of this
repository.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

CLIENT = Path(__file__).resolve().parents[1]
README = CLIENT / "README.md"
PICTURE = CLIENT.parent / "docs/images/terminal.svg"
COMMANDS = (
    'music-worker --local music "techno, 128 bpm, drums and bass" --duration 8 --seed 7 -o beat.wav',
    "music-worker --local separate beat.wav --model demo-htdemucs --two-stems bass -o stems/",
    "music-worker --local analyze beat.wav --features tempo,key,loudness",
    "music-worker music calm --duration 9999 --n-samples three",
)
WIDTH = 100
BLOCK = re.compile(r"```text\n.*?```", re.DOTALL)
# As rich's own, but without fonts from elsewhere.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run_command(command: str, folder: Path) -> str:
    """What a command prints on a terminal, as it stands at the end."""
    words = [sys.executable, "-c", "from music_worker.cli import main; main()", *shlex.split(command)[1:]]
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "COLUMNS": str(WIDTH),
        "PYTHONPATH": str(CLIENT / "src"),
        "MUSIC_WORKER_REPOSITORY": str(CLIENT.parent),
    }
    leader, follower = pty.openpty()
    process = subprocess.Popen(words, cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux's end of a terminal
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait()
    os.close(leader)
    return drop_progress(b"".join(chunks).decode(errors="replace"))


def drop_progress(text: str) -> str:
    """The lines that are left at the end, as a terminal shows them: a progress bar erases itself."""
    lines, row, is_start = [""], 0, True
    for part in re.split(r"(\r|\n|\x1b\[\??\d*[AKhl])", text):
        if part == "\r":
            is_start = True
        elif part == "\n":
            row, is_start = row + 1, True
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row = max(row - int(part[2:-1] or 1), 0)
        elif part.endswith("K") and part.startswith("\x1b"):
            lines[row], is_start = "", True
        elif part and not part.startswith("\x1b[?"):
            lines[row] = part if is_start else lines[row] + part
            is_start = False
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def main() -> None:
    """Records the session and writes both files."""
    console = Console(record=True, width=WIDTH, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            output = run_command(command, Path(folder))
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=True)
            console.print(Text.from_ansi(output), soft_wrap=False)
            console.print()
            plain = Text.from_ansi(output).plain
            shown.append(f"$ {command}\n{plain}")
    PICTURE.write_text(console.export_svg(title="music-worker", code_format=SVG), encoding="utf-8")
    block = "```text\n" + "\n\n".join(shown) + "\n```"
    README.write_text(BLOCK.sub(lambda _: block, README.read_text(encoding="utf-8"), count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
