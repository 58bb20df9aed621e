"""diffusers' own ACE-Step pipeline on the networks of loaded components: the reference of tests and benchmarks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import tokenizers
import torch
from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import PreTrainedTokenizerFast

from models.acestep.network import Components


def build_published_pipeline(components: Components) -> Any:
    """Builds an `AceStepPipeline` of diffusers' classes as they are, which share the components' weights.

    The components' transformer has a layer of ours, and an engine folds the weights of their VAE. So call this before
    there is an engine.
    """
    transformer, vae = build_published_network(components.transformer), build_published_network(components.vae)
    vae.to(transformer.dtype)  # the pipeline hands the transformer's latents to it as they are
    return build_pipeline(replace(components, transformer=transformer, vae=vae))


def build_published_network(network: Any) -> Any:
    """Builds diffusers' class of a network as it is, with the same tensors as weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's old weight norm, whose names the files have
        published = type(network).from_config(network.config)
    published.load_state_dict(network.state_dict(), strict=True, assign=True)
    return published.eval().requires_grad_(False)


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
