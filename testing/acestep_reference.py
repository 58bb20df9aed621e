"""diffusers' own ACE-Step pipeline on the networks of loaded components: the reference of tests and benchmarks."""

from __future__ import annotations

from typing import Any

import tokenizers
from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import PreTrainedTokenizerFast

from models.acestep.network import Components


def build_pipeline(components: Components) -> Any:
    """Builds an `AceStepPipeline` on the networks themselves.

    What is done to the components afterwards is done to the pipeline: give it components of its own, which the same
    seed makes equal, unless both are to share their memory.
    """
    networks = components.networks
    networks["condition_encoder"].register_buffer("silence_latent", components.silence_latent)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizers.Tokenizer.from_str(components.tokenizer.to_str()),  # it sets its own truncation
        pad_token="<|endoftext|>",
    )
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    pipeline = AceStepPipeline(**networks, tokenizer=tokenizer, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
