"""References of a pipeline: `$<id>`, `$<id>.outputs.1`, `$<id>.stems.vocals`, `$<id>.files.codes`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Self

from audio.types import AudioSource
from errors import ErrorCode, InvalidRequestError, sanitize, suggest_name
from operations.operation import PlannedArtefacts
from worker.reply import FileOutput, Output, Reply

ID = r"[A-Za-z][A-Za-z0-9_-]{0,31}"
MAX_CHARS = 128
FORM = re.compile(rf"\$({ID})(?:\.(outputs)\.(\d{{1,3}})|\.(stems|files)\.(.+)|\.(codes))?", re.DOTALL)
EXAMPLES = "'$<id>', '$<id>.outputs.1', '$<id>.stems.vocals' or '$<id>.files.codes'"


@dataclass(frozen=True, slots=True)
class Reference:
    """A step, or one of its artefacts.

    Args:
        step: its id.
        kind: None: the step as a whole; as audio, its first output or stem.
        name: of the stem or file; the number of the output, from 0.
    """

    step: str
    kind: str | None = None
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The reference that `text` is; None if it is none."""
        match = FORM.fullmatch(text) if len(text) <= MAX_CHARS else None
        if match is None:
            return None
        step, outputs, number, kind, name, codes = match.groups()
        if codes:
            return cls(step, "files", "codes")
        return cls(step, outputs or kind, str(int(number)) if outputs else name or "")

    def __str__(self) -> str:
        return f"${self.step}" + (f".{self.kind}.{sanitize(self.name)}" if self.kind else "")

    def check(self, artefacts: PlannedArtefacts, *, as_input: bool) -> None:
        """Refuses an artefact that the step does not give, as far as that is known before it runs.

        Args:
            as_input: an audio field refers to it; else it is to be returned.

        Raises:
            InvalidRequestError: `unknown_stem` for a stem.
        """
        count, stems, files = artefacts.outputs, artefacts.stems, artefacts.files
        if self.kind is None:
            if as_input and count == 0 and stems == ():
                raise InvalidRequestError(f"'{self}' gives no audio. Refer to a step that does.")
        elif self.kind == "outputs":
            if count is not None and int(self.name) >= count:
                has = f"the number of its outputs is {count}, and the first is 0" if count else "it has no outputs"
                raise InvalidRequestError(f"'{self}' does not exist: {has}.{_hint(stems)}")
        elif (names := stems if self.kind == "stems" else files) is not None and self.name not in names:
            raise InvalidRequestError(
                f"'{self}' does not exist.{suggest_name(self.name, names)} The step's {self.kind}: "
                f"{', '.join(names) or 'none'}.",
                code=ErrorCode.UNKNOWN_STEM if self.kind == "stems" else None,
                details={"valid": list(names)},
            )

    def find_output(self, reply: Reply) -> Output:
        """The output or stem of the step's reply.

        Raises:
            InvalidRequestError: there is none.
        """
        found = None
        if self.kind is None:
            found = next(iter(reply.all_outputs), None)
        elif self.kind == "outputs":
            found = dict(enumerate(reply.outputs)).get(int(self.name))
        elif self.kind == "stems":
            found = reply.stems.get(reply.aliases.get(self.name, self.name))
        if found is None:
            raise self._missing_error(reply)
        return found

    def find_audio(self, results: Mapping[str, Reply]) -> AudioSource:
        """The audio that the reference stands for."""
        return self.find_output(results[self.step]).audio

    def find_file(self, reply: Reply) -> FileOutput:
        """The file of the step's reply."""
        if self.name not in reply.files:
            raise self._missing_error(reply)
        return reply.files[self.name]

    def open_file(self, results: Mapping[str, Reply]) -> BinaryIO:
        """The file that the reference stands for, at its start."""
        file = self.find_file(results[self.step]).file
        file.seek(0)
        return file

    def _missing_error(self, reply: Reply) -> InvalidRequestError:
        return InvalidRequestError(
            f"'{self}' does not exist: the step gave {len(reply.outputs)} outputs, the stems "
            f"{', '.join([*reply.stems, *reply.aliases]) or '(none)'} and the files "
            f"{', '.join(reply.files) or '(none)'}.",
            details={"reference": str(self)},
        )


def _hint(stems: tuple[str, ...] | None) -> str:
    return f" Its stems: {', '.join(stems)}." if stems else ""
