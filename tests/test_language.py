"""The retired vocabulary stays retired: code, comments, messages and documents use the field's words.

docs/architecture.md has the glossary. A term is a regular expression, matched without regard to case unless it says so.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from testing.repository import ROOT

IDENTIFIERS = (
    # retired -> use instead
    r"Singer|\bsung\b|singer",  # VoiceConverter, converted vocals
    r"\bHearing\b|\bSight\b|\bsights\b|\bListener\b",  # BatchConditions, SlidingWindow, ConditioningProvider
    r"\bTaker\b|\bGatherer\b|\bLouder\b|\bSpliced\b",  # TensorLoader, SampleBuffer, GainView, PatchedStream
    r"\bWish\b|\bStanding\b|\bLedger\b|\bClaim\b|\bCourse\b|FetchedTake",  # SongOptions, TaskStatus, IdempotencyStore
    r"_Parcel|_Placed|_Wanted|_Lane|_Piece\b|_Span\b|_Kept\b|_Tally\b|_Song\b|_Machine\b",
    r"WholeLines|Blueprint|Abilities|BagCache|PlainCache|WordTable",
    r"\bpeek\b|\bpeeked\b",  # inspect_checkpoint
    r"\bto_wire\b|\bwhereabouts\b|\bdemand_\w+|\badmit\b",  # dump_json, error_location, require_*, plan
    r"oracle|\bshelf\b|\bdeaf\b|stranger",  # reference, models_dir, ignores_cancel
    r"\b_(told|opened|given|named|finished|found|listed|held|kept|made|known|seen|left|written|asked|wanted)\b",
)
PROSE = (
    r"\bthis house\b|\bthe house\b|\bthe one door\b|\bown door\b|ground floor|\brooms?'s\b|\bwalls? of\b",
    r"\bKnows (no|nothing|neither)\b",
    r"\bwhere (there (is|are)|it is|they are|that|one is|none|no|nothing|nobody|possible|due|wanted|needed|asked)\b",
    r"\b(is|are|lies|lie) at hand\b|\bperson at hand\b",
    r"\bchoir\b|\bthe band\b|\bledger\b|\boracle\b|\bquaint\b|\bvoice's own hear",
)
EXEMPT = {Path("tests/test_language.py"), Path("docs/architecture.md"), Path("CHANGELOG.md")}
# The demo's composer writes for bands and choirs, in MIDI.
MUSICAL_WORDS = {Path("demo")}


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [Path(line) for line in listing.stdout.splitlines()]
    return [path for path in paths if path not in EXEMPT and not MUSICAL_WORDS & {*path.parents}]


def code_of(text: str) -> Iterator[tuple[int, str]]:
    """Every name, with its line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def prose_of(text: str) -> Iterator[tuple[int, str]]:
    """Every comment and string, with its line; strings that are split over lines are read as one."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


def find_terms(lines: Iterable[tuple[int, str]], terms: tuple[str, ...]) -> list[str]:
    pattern = re.compile("|".join(terms), re.IGNORECASE)
    matches = ((line, text, pattern.search(text)) for line, text in lines)
    return [f"line {line}: {match[0]!r} in {text[:80]!r}" for line, text, match in matches if match]


@pytest.mark.parametrize("path", tracked("*.py"), ids=str)
def test_code_uses_the_fields_words(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert find_terms(code_of(text), IDENTIFIERS) == []
    assert find_terms(prose_of(text), PROSE) == []


@pytest.mark.parametrize("path", tracked("*.md"), ids=str)
def test_documents_use_the_fields_words(path: Path) -> None:
    lines = enumerate((ROOT / path).read_text().splitlines(), 1)
    assert find_terms(lines, PROSE) == []


def test_a_retired_term_is_found() -> None:
    source = "def f():\n    # the file, where there is one\n    peek(1)\n"
    assert find_terms(code_of(source), IDENTIFIERS) and find_terms(prose_of(source), PROSE)
