"""The retired vocabulary stays retired: code, comments, messages and documents use the field's words.

docs/architecture.md has the glossary. A term is a regular expression. Functions are named by verbs.
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
    # retired -> use instead; matched with regard to case: `listener` is a socket, `Listener` was a conditioner
    r"Singer\b|\bsinger|\bsung\b",  # VoiceConverter, converted vocals
    r"\bHearing\b|\bSight\b|\bsights\b|\bListener\b",  # BatchConditions, SlidingWindow, ConditioningProvider
    r"\bTaker\b|\bGatherer\b|\bLouder\b|\bSpliced\b",  # TensorLoader, SampleBuffer, GainView, PatchedStream
    r"\bWish\b|\bStanding\b|\bLedger\b|\bClaim\b|\bCourse\b|FetchedTake",  # SongOptions, TaskStatus, IdempotencyStore
    r"\b_(Parcel|Placed|Wanted|Lane|Piece|Span|Kept|Tally|Song|Machine)\b",
    r"WholeLines|\bBlueprint|\bAbilities\b|BagCache|PlainCache|WordTable",
    r"\bpeek\b|\bpeeked\b",  # inspect_checkpoint
    r"\bto_wire\b|\bwhereabouts\b|\bdemand_\w+|\badmit\b",  # dump_json, error_location, require_*, plan
    r"(?<![a-z])(oracle|deaf|stranger)s?(?![a-z])",  # reference, ignores_cancel, unknown
    r"(?<!high_)(?<!low_)(?<![a-z])shel(f|ves)\b",  # models_dir; a shelving filter says which shelf it is
    r"\b_(told|opened|given|named|finished|found|listed|held|kept|made|known|seen|left|written|asked|wanted)\b",
)
# A function whose whole name is a participle does not say what it does.
PARTICIPLE = re.compile(r"_?([a-z]+(ed|en)|told|held|kept|made|found|heard|sung|left|shown)")
VERBS_LIKE_PARTICIPLES = {"open", "shorten", "widen", "listen", "embed"}
PROSE = (
    r"\bthis house\b|\bthe house\b|\bthe one door\b|\bown door\b|ground floor|\brooms?'s\b|\bwalls? of\b",
    r"\bKnows (no|nothing|neither)\b",
    # `if` or `when`; after a colon it is a place (`folder: where it is`)
    r"(?<!: )\bwhere (there (is|are)|it is|they are|that|one is)\b",
    r"\bwhere (none|no|nothing|nobody|possible|due|wanted|needed|asked)\b",
    r"\b(is|are|lies|lie) at hand\b|\bperson at hand\b",
    r"\bchoir\b|\bthe band\b|\bledger\b|\boracle\b|\bquaint\b|\bvoice's own hear",
)
EXEMPT = {Path("tests/test_language.py"), Path("docs/architecture.md"), Path("CHANGELOG.md")}
# The demo's composer writes for bands and choirs, in MIDI.
MUSICAL_WORDS = {Path("demo")}


def list_tracked_files(*patterns: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [Path(line) for line in listing.stdout.splitlines()]
    return [path for path in paths if path not in EXEMPT and not MUSICAL_WORDS & {*path.parents}]


def find_names(text: str) -> Iterator[tuple[int, str]]:
    """Every name, with its line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def find_prose(text: str) -> Iterator[tuple[int, str]]:
    """Every comment and string, with its line; strings that are split over lines are read as one."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


def find_terms(lines: Iterable[tuple[int, str]], terms: tuple[str, ...], flags: int = 0) -> list[str]:
    pattern = re.compile("|".join(terms), flags)
    matches = ((line, text, pattern.search(text)) for line, text in lines)
    return [f"line {line}: {match[0]!r} in {text[:80]!r}" for line, text, match in matches if match]


def find_retired_terms(text: str) -> list[str]:
    return find_terms(find_names(text), IDENTIFIERS) + find_terms(find_prose(text), PROSE, re.IGNORECASE)


def find_participles(text: str) -> list[str]:
    """The functions that are named by a bare participle. Properties and pytest fixtures are values, hence exempt."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [
        f"line {node.lineno}: def {node.name}"
        for node in functions
        if PARTICIPLE.fullmatch(node.name) and node.name.removeprefix("_") not in VERBS_LIKE_PARTICIPLES
        if not any(re.search(r"property|fixture", ast.unparse(decorator)) for decorator in node.decorator_list)
    ]


@pytest.mark.parametrize("path", list_tracked_files("*.py"), ids=str)
def test_code_uses_the_fields_words(path: Path) -> None:
    assert find_retired_terms((ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", list_tracked_files("*.py"), ids=str)
def test_functions_are_verbs(path: Path) -> None:
    assert find_participles((ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", list_tracked_files("*.md"), ids=str)
def test_documents_use_the_fields_words(path: Path) -> None:
    lines = enumerate((ROOT / path).read_text().splitlines(), 1)
    assert find_terms(lines, PROSE, re.IGNORECASE) == []


@pytest.mark.parametrize(
    "source",
    [
        "peek(1)",
        "_Song(left)",
        "shelf / 'voices'",
        "empty_shelf",
        "deaf_worker",
        "# the file, Where there is one",
        "'the ledger'",
    ],
)
def test_a_retired_term_is_found(source: str) -> None:
    assert find_retired_terms(source)


@pytest.mark.parametrize(
    "source",
    ["generate_song()", "HeaderParsingError", "high_shelf(db)", "probabilities", "listener", "# folder: where it is"],
)
def test_a_word_of_the_field_that_contains_a_retired_term_is_accepted(source: str) -> None:
    assert find_retired_terms(source) == []


def test_a_function_named_by_a_participle_is_found() -> None:
    source = "def _loaded(): ...\nclass A:\n    async def told(self): ...\n"
    assert find_participles(source) == ["line 1: def _loaded", "line 3: def told"]


def test_verbs_properties_and_fixtures_may_look_like_participles() -> None:
    source = """
def _open(): ...
class A:
    @property
    def closed(self): ...
@pytest.fixture
def encoded(): ...
@pytest.fixture(scope="module")
def loaded(): ...
"""
    assert find_participles(source) == []
