"""The prompts of the planner, as it was trained on them: Qwen3's chat template around instructions and sections.

The literals belong to the weights. Which prompt the audio codes follow was settled by the reports 1126 to 1128 of
ace-step/ACE-Step-1.5: the assistant's turn stays open behind its thoughts, and the unconditional branch has neither
lyrics nor thoughts.
"""

from __future__ import annotations

from typing import Final

from models.acestep.metas import INSTRUMENTAL
from models.acestep.planner.request import CodesRequest, PlanMode, PlannedSong, PlanRequest
from models.acestep.planner.vocabulary import Vocabulary

NO_INPUT: Final = "NO USER INPUT"  # stands for a caption or a query that is empty
_GENERATE: Final = "Generate audio semantic tokens based on the given conditions:"
_INSTRUCTIONS: Final[dict[PlanMode, str]] = {
    "metas": _GENERATE,
    "inspire": "Expand the user's input into a more detailed and specific musical description:",
    "format": "Format the user's input into a more detailed and specific musical description:",
    "understand": "Understand the given musical conditions and describe the audio semantics accordingly:",
}


def encode_plan_prompt(request: PlanRequest, vocabulary: Vocabulary) -> list[int]:
    """The ids of everything before the planner's first token; raises `ValueError` for unknown audio codes."""
    caption, lyrics = vocabulary.escape(request.caption), vocabulary.escape(request.lyrics)
    if request.mode == "understand":
        before, after = _chat(_INSTRUCTIONS["understand"], "\0").split("\0")
        return [*vocabulary.encode(before), *vocabulary.encode_codes(request.codes), *vocabulary.encode(after)]
    if request.mode == "inspire":
        user = f"{_or_no_input(caption)}\n\ninstrumental: {'true' if request.instrumental else 'false'}"
    elif request.mode == "format":
        user = _describe(_or_no_input(caption), lyrics).removesuffix("\n")
    else:
        user = _describe(caption, lyrics)
    return vocabulary.encode(_chat(_INSTRUCTIONS[request.mode], user))


def encode_codes_prompt(request: CodesRequest, vocabulary: Vocabulary) -> list[int]:
    """The ids of everything before the first audio code: the caller's caption and lyrics, and the planned song."""
    user = _describe(vocabulary.escape(request.caption), vocabulary.escape(request.lyrics))
    thoughts = vocabulary.escape(format_thoughts(request.song, request.duration))
    return vocabulary.encode(f"{_chat(_GENERATE, user)}<think>\n{thoughts}\n</think>\n\n")


def encode_unconditional_prompt(negative_prompt: str, vocabulary: Vocabulary) -> list[int]:
    """The ids before the first audio code in the unconditional branch of classifier-free guidance."""
    user = _or_no_input(vocabulary.escape(negative_prompt))
    return vocabulary.encode(f"{_chat(_GENERATE, user)}<think>\n\n</think>\n\n")


def format_thoughts(song: PlannedSong, duration: float) -> str:
    """The planned song as the lines of YAML that the planner thinks in.

    Args:
        duration: of the song in seconds, whatever was planned.
    """
    import yaml  # type: ignore[import-untyped]

    metas = song.metas
    items = {
        "bpm": metas.bpm,
        "caption": song.caption,
        "duration": int(duration),
        "keyscale": metas.key,
        "language": song.language,
        "timesignature": metas.time_signature,
    }
    known = {key: value for key, value in items.items() if value not in (None, "")}
    text: str = yaml.dump(known, allow_unicode=True, sort_keys=True)
    return text.strip()


def _describe(caption: str, lyrics: str) -> str:
    return f"# Caption\n{caption}\n\n# Lyric\n{lyrics if lyrics.strip() else INSTRUMENTAL}\n"


def _or_no_input(text: str) -> str:
    return text if text.strip() else NO_INPUT


def _chat(instruction: str, user: str) -> str:
    """Qwen3's chat template up to the beginning of the assistant's turn."""
    return (
        f"<|im_start|>system\n# Instruction\n{instruction}\n\n<|im_end|>\n"
        f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    )
