"""Errors of model files: readers raise a clause, and whoever knows the model turns it into the reply's sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from errors import ErrorCode, ModelError, sanitize


class CheckpointError(ValueError):
    """A model file cannot be used; the message is a clause that says why, such as "its index is damaged"."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle asks for a class or function that is not on the reader's list, so it may carry code.

    Args:
        name: the class or function, as `module.name`, fit to be shown.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"it asks for '{name}', which may be code; a checkpoint needs only tensors and plain values")
        self.name = name


def broken_checkpoint(
    subject: str, reason: str, remedy: str, *, details: Mapping[str, Any] | None = None
) -> ModelError:
    """The error for model files that are present but cannot be used.

    Args:
        subject: what cannot be used, as the beginning of a sentence: `The separation model`.
        reason: a clause without a full stop.
        remedy: a sentence that says what to do.
    """
    return ModelError(
        f"{subject} cannot be used: {reason}. {remedy}", code=ErrorCode.BROKEN_CHECKPOINT, details=details
    )


def damaged_weights(subject: str, result: str, model: str) -> ModelError:
    """The error for weights that were read without a fault, and give samples that are not finite.

    Args:
        subject: as `broken_checkpoint` takes it.
        result: what has such samples, as the beginning of a clause: `its stems have`.
        model: the model's name, as in the request.
    """
    return broken_checkpoint(
        subject,
        f"{result} samples that are not finite, so its weights are damaged",
        "Download its files again.",
        details={"model": sanitize(model)},
    )


@contextmanager
def report_broken(subject: str, remedy: str, *, details: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Raises `broken_checkpoint` in place of every `CheckpointError` inside; any other exception passes unchanged."""
    try:
        yield
    except CheckpointError as error:
        raise broken_checkpoint(subject, str(error), remedy, details=details) from error
