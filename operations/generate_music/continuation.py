"""Codes that MusicGen continues, in place of a recording: from lists or a file, checked against the model's codec."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from errors import AudioError, ErrorCode, InvalidRequestError
from models import Models
from models.encodec.codes_file import CodesFile, read_codes
from operations.codec import check_codes
from operations.generate_music.params import Params
from worker.job import Job

FIELD = "continuation_codes"


def read_lists(params: Params) -> CodesFile | None:
    """The codes of a request that has them in lists."""
    lists = params.continuation_codes
    return None if lists is None or isinstance(lists, str) else CodesFile(np.array(lists, np.int16))


def read_file(job: Job) -> CodesFile | None:
    """The codes of a request that has them in a file."""
    file = job.files.get(FIELD)
    return None if file is None else read_codes(file, max_bytes=job.settings.max_input_bytes, field=FIELD)


def check_continuation(codes: CodesFile, model: str, window: float, models: Models) -> NDArray[np.int16]:
    """The codes `[K, T]` as the language model continues them.

    Args:
        model: the name of the MusicGen model, whose checkpoint is here.
        window: of the model, in seconds.

    Raises:
        InvalidRequestError: `invalid_codes`: they are not codes of the model's codec, or not of all its codebooks.
        AudioError: `continuation_too_long`: they fill the window.
    """
    spec = models.families.codecs.get_spec(model)
    checked = check_codes(codes, model, spec, field=FIELD).codes
    rows, frames = checked.shape
    if rows != spec.codebooks:
        raise InvalidRequestError(
            f"'{FIELD}' has {rows} codebooks, and '{model}' continues codes of all {spec.codebooks}. Encode the audio "
            "with its codec, without 'bandwidth' and 'num_codebooks'.",
            code=ErrorCode.INVALID_CODES,
            details={"field": FIELD, "num_codebooks": spec.codebooks},
        )
    if frames >= int(window * spec.frame_rate):
        seconds = frames / spec.frame_rate
        raise AudioError(
            f"The codes to continue are {seconds:.1f} s long, but they must be shorter than the window of '{model}', "
            f"{window:g} s. Send the last {0.6 * window:.1f} s of them.",
            code=ErrorCode.CONTINUATION_TOO_LONG,
            details={"length": round(seconds, 3), "window_s": window},
        )
    return checked
