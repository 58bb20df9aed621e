"""The planner as transformers runs it: `generate` with classifier-free guidance, restricted to audio codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from models.acestep.planner.request import LmSampling


def load_reference(folder: Path, device: str = "cpu") -> Any:
    """transformers' `Qwen3ForCausalLM` with the planner's weights, in the type they are stored in."""
    from transformers import AutoModelForCausalLM

    reference: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return reference.eval().to(device)


@torch.inference_mode()
def generate_codes(  # noqa: PLR0913  (as many as `generate` has)
    reference: Any,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    *,
    num_text: int,
    num_codes: int,
    steps: int,
    sampling: LmSampling,
    clips: int = 1,
) -> list[list[int]]:
    """The audio codes of each clip that `generate` draws; with a temperature of 0 they are the most likely ones."""
    from transformers import LogitsProcessorList

    device = reference.device
    blocked = torch.zeros(reference.config.vocab_size, device=device)
    blocked[:num_text] = blocked[num_text + num_codes :] = -torch.inf

    def allow_codes(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + blocked.to(scores.dtype)

    settings: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        settings = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
    if sampling.cfg_coef != 1:
        settings |= {
            "guidance_scale": sampling.cfg_coef,
            "negative_prompt_ids": torch.tensor([list(unconditional)] * clips, device=device),
        }
    found = reference.generate(
        torch.tensor([list(prompt)] * clips, device=device),
        logits_processor=LogitsProcessorList([allow_codes]),
        min_new_tokens=steps,
        max_new_tokens=steps,
        repetition_penalty=sampling.repetition_penalty,
        pad_token_id=0,
        **settings,
    )
    return [[token - num_text for token in row] for row in found[:, len(prompt) :].tolist()]
