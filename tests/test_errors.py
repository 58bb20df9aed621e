"""Every error code is raised somewhere, documented, and spelled by its enum only."""

from __future__ import annotations

import ast
import re

import pytest

from errors import ErrorCode, RequestError, sanitize, suggest_name, unknown_name_error
from testing.repository import ROOT

PRODUCT = [ROOT / "handler.py", ROOT / "errors.py"] + [
    path for package in ("operations", "models", "worker", "audio") for path in sorted((ROOT / package).rglob("*.py"))
]


def find_used_codes() -> set[str]:
    """Names of `ErrorCode` members that product code refers to."""
    return {name for path in PRODUCT for name in re.findall(r"ErrorCode\.([A-Z_0-9]+)", path.read_text())}


@pytest.mark.parametrize("code", ErrorCode, ids=str)
def test_every_error_code_is_used(code: ErrorCode) -> None:
    assert code.name in find_used_codes()


@pytest.mark.parametrize("code", ErrorCode, ids=str)
def test_every_error_code_has_a_meaning_and_a_remedy_in_sentences(code: ErrorCode) -> None:
    assert code.value == code.name.lower()
    for text in (code.meaning, code.remedy):
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")


def test_no_error_code_is_given_as_a_plain_string() -> None:
    plain = [
        f"{path.name}:{node.value.lineno}"
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant)
    ]
    assert plain == []


def test_every_exception_class_has_a_code_of_its_own_and_a_docstring() -> None:
    classes = [RequestError]
    for parent in classes:
        classes += parent.__subclasses__()
    assert all(cls.__doc__ and isinstance(cls.code, ErrorCode) for cls in classes)


def test_a_reply_is_plain_json_values() -> None:
    reply = RequestError("No.", code=ErrorCode.RATE_LIMITED, details={"retry_after_s": 3}).to_reply()
    assert reply == {"error": "No.", "error_code": "rate_limited", "details": {"retry_after_s": 3}}
    assert type(reply["error_code"]) is str


def test_an_unknown_name_gets_the_valid_names_and_the_nearest() -> None:
    error = unknown_name_error("operation", "seperate", ["separate", "health_check"])
    assert error.error_code == "unknown_operation" and "Did you mean 'separate'?" in error.message
    assert error.details["valid"] == ["health_check", "separate"]
    assert suggest_name("zzz", ["separate"]) == ""


def test_a_quoted_name_is_short_and_printable() -> None:
    assert sanitize("a\x00b\n") == "a?b?"
    assert len(sanitize("x" * 1000)) == 67
