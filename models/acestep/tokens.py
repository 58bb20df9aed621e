"""Audio codes: the 5 Hz tokens of ACE-Step, which stand for five latents each. Importable without torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

NUM_CODES: Final = 64_000  # of the finite scalar quantiser: 8 * 8 * 8 * 5 * 5 * 5
CODE_RATE: Final = 5  # codes a second
LATENTS_PER_CODE: Final = 5

_TOKEN = re.compile(r"<\|audio_code_(\d{1,9})\|>")
_SEPARATORS = re.compile(r"[\s,]*")
_MAX_SHOWN = 40


def parse_codes(codes: str | Sequence[int]) -> tuple[int, ...]:
    """Reads audio codes as the planner writes them, `<|audio_code_123|><|audio_code_7|>`, or as numbers.

    Between tokens there may be white space and commas.

    Raises:
        ValueError: there are none, something else stands between them, or one is not in 0..63,999. The message is a
            clause that begins with what is wrong and says what is allowed.
    """
    numbers = _read_tokens(codes) if isinstance(codes, str) else list(codes)
    if not numbers:
        raise ValueError("has no audio codes; give <|audio_code_N|> tokens or a list of integers")
    for position, code in enumerate(numbers):
        if isinstance(code, bool) or not isinstance(code, int):
            raise ValueError(f"has a value of type {type(code).__name__} at position {position}; give integers")
        if not 0 <= code < NUM_CODES:
            raise ValueError(f"has the code {code} at position {position}; codes are 0 to {NUM_CODES - 1}")
    return tuple(numbers)


def format_codes(codes: Sequence[int]) -> str:
    """Writes codes as the planner does; `parse_codes` reads them."""
    return "".join(f"<|audio_code_{code}|>" for code in codes)


def _read_tokens(text: str) -> list[int]:
    codes, position = [], 0
    while (start := _SEPARATORS.match(text, position)) and start.end() < len(text):
        token = _TOKEN.match(text, start.end())
        if token is None:
            rest = text[start.end() : start.end() + _MAX_SHOWN]
            raise ValueError(f"has {rest!r} at character {start.end()}; only <|audio_code_N|> tokens may stand there")
        codes.append(int(token[1]))
        position = token.end()
    return codes


class AudioTokenizer:
    """Latents of 25 Hz to audio codes of 5 Hz and back.

    Args:
        tokenizer: diffusers' `AceStepAudioTokenizer`.
        detokenizer: diffusers' `AceStepAudioTokenDetokenizer`, on the same device and in the same dtype.
        silence: `[1, T, C]`, latents of silence.
    """

    def __init__(self, tokenizer: Any, detokenizer: Any, silence: torch.Tensor) -> None:
        self._tokenizer, self._detokenizer, self._silence = tokenizer, detokenizer, silence

    def tokenize(self, latents: torch.Tensor) -> tuple[int, ...]:
        """Returns a code for every five latents; what the last five lack is filled with silence.

        Args:
            latents: `[1, T, C]`.
        """
        import torch

        with torch.inference_mode():
            _, codes = self._tokenizer.tokenize(self._cast(latents), self._silence)
        return tuple(codes.flatten().tolist())

    def detokenize(self, codes: Sequence[int]) -> torch.Tensor:
        """Returns latents `[1, 5 * len(codes), C]` in the dtype of the networks.

        Args:
            codes: at least one, each less than the size of the codebook.
        """
        import torch

        quantizer = self._tokenizer.quantizer
        assert codes and max(codes) < quantizer.codebook_size, f"{len(codes)} codes below {quantizer.codebook_size}"
        with torch.inference_mode():
            indices = torch.tensor(codes, device=self._silence.device).view(1, -1, 1)
            latents: torch.Tensor = self._detokenizer(self._cast(quantizer.get_output_from_indices(indices)))
        return latents

    def resynthesize(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns what is left of latents `[1, T, C]` after `tokenize` and `detokenize`: `[1, T, C]`.

        This is what a cover follows of its source.
        """
        return self.detokenize(self.tokenize(latents))[:, : latents.shape[1]]

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        weight = self._tokenizer.audio_acoustic_proj.weight
        return tensor.to(weight.device, weight.dtype)
