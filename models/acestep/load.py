"""Loads the networks of an ACE-Step model: built without memory, then filled tensor by tensor from the files.

No second copy of the weights is ever made, whatever they are stored in, and no code of a checkpoint is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from errors import sanitize
from models.acestep.checkpoint import (
    SILENCE_FILE,
    SILENCE_LIMITS,
    SILENCE_TENSOR,
    ModelPart,
    TextEncoderPart,
    VaePart,
    check_silence_file,
    report_part,
)
from models.acestep.config import SamplingDefaults
from models.acestep.network import AceStepConfig, Components, build_networks, build_text_encoder, build_vae
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import read_tokenizer_file
from models.checkpoints.safetensors_shards import Tensors, check_shapes
from models.checkpoints.tensor_loader import copy_to
from models.checkpoints.torch_file import open_torch_file
from models.device import prepare_device
from models.runtime.dtype import ACESTEP, ACESTEP_VAE, inference_dtype

if TYPE_CHECKING:
    import tokenizers

END_TOKEN = "<|endoftext|>"


def load_components(  # noqa: PLR0913  (three parts, and how they run)
    model: ModelPart,
    vae: VaePart,
    text_encoder: TextEncoderPart,
    *,
    defaults: SamplingDefaults,
    device: str,
    dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype | None = None,
) -> Components:
    """Loads a model whose parts are all on this machine.

    Args:
        defaults: of sampling.
        device: `cpu`, `cuda` or `mps`.
        dtype: of all networks but the VAE; None: as the policy `ACESTEP` says.
        vae_dtype: None: as the policy `ACESTEP_VAE` says.

    Raises:
        ModelError: a file is broken, lacks a tensor, or holds values that are not finite; the message names it.
    """
    prepare_device(device)
    dtype = dtype or inference_dtype(ACESTEP, device)
    vae_dtype = vae_dtype or inference_dtype(ACESTEP_VAE, device)
    folders = model.folders
    with torch.device("meta"):
        networks = {name: net for name, net in build_networks(model.config).items() if name in model.tensors}
        vae_network, text_network = build_vae(vae.config), build_text_encoder(text_encoder.config)
    with report_part(folders, SILENCE_FILE):
        extra = _read_silence(model, device, dtype)
    with report_part(folders, "weights"):
        for name, network in networks.items():
            extra_state = extra if name == "condition_encoder" else {}
            _fill(network, model.tensors[name], extra_state, device=device, dtype=dtype)
    with report_part(folders, "vae"):
        _fill(vae_network, vae.tensors, {}, device=device, dtype=vae_dtype)
    with report_part(folders, "text_encoder"):
        _fill(text_network, text_encoder.tensors, {}, device=device, dtype=dtype)
        tokenizer = _read_tokenizer(text_encoder)
    _make_constants(networks, text_network, device)
    return Components(
        transformer=networks["transformer"],
        condition_encoder=networks["condition_encoder"],
        audio_tokenizer=networks.get("audio_tokenizer"),
        audio_token_detokenizer=networks.get("audio_token_detokenizer"),
        vae=vae_network,
        text_encoder=text_network,
        tokenizer=tokenizer,
        silence_latent=cast("torch.Tensor", networks["condition_encoder"].silence_latent),
        config=AceStepConfig(sizes=model.config, defaults=defaults, device=torch.device(device), dtype=dtype),
    )


def _fill(
    network: nn.Module,
    tensors: Tensors,
    extra: Mapping[str, torch.Tensor],
    *,
    device: str,
    dtype: torch.dtype,
) -> None:
    """Gives a network that was built on the device `meta` its weights, from its files and from `extra`.

    Raises:
        CheckpointError: a tensor is missing, left over, of another shape, or not finite.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name not in extra}
    label = type(network).__name__
    check_shapes(tensors, expected, label)
    if unused := sorted(name for name in tensors.keys() - expected.keys() if name.endswith(("weight", "bias"))):
        raise CheckpointError(
            f"{len(unused)} tensors are left over that its {label} does not have; the first is '{sanitize(unused[0])}'"
        )
    state = dict(extra)
    by_file = defaultdict(list)
    for name in expected:
        by_file[tensors[name].path].append(name)
    for path, names in by_file.items():
        try:
            # Mapped from disk: what has been copied can be dropped from memory before the rest is read.
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in names:
                    state[name] = _copy(file.get_tensor(tensors[name].name), name, device, dtype)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"its file {sanitize(path.name)} is broken or cut short") from error
    _check_finite(state)
    network.load_state_dict(state, strict=True, assign=True)
    network.eval().requires_grad_(False)


def _copy(tensor: torch.Tensor, name: str, device: str, dtype: torch.dtype) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(f"the tensor '{sanitize(name)}' holds no floating-point numbers")
    return copy_to(tensor, device, dtype)


def _check_finite(state: Mapping[str, torch.Tensor]) -> None:
    """Raises `CheckpointError` for a tensor with a value that is not finite.

    Such a value is in the extremes. Comparing each value took 20 times as long, on a CPU longer than the reading.
    """
    names = list(state)
    extremes = torch.stack([torch.stack(tensor.aminmax()) for tensor in state.values()])
    bad = (~extremes.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise CheckpointError(
            f"'{sanitize(names[bad[0]])}' holds values that are not finite, so it would produce no sound"
        )


def _read_silence(model: ModelPart, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Returns the condition encoder's silence, `[1, T, C]`, if it is in a file of its own."""
    if model.silence is None:
        return {}
    with open_torch_file(model.silence, SILENCE_LIMITS) as file:
        stored = file.read({SILENCE_TENSOR: check_silence_file(file)})[SILENCE_TENSOR]
    return {SILENCE_TENSOR: stored.transpose(1, 2).to(device, dtype).contiguous()}


def _read_tokenizer(part: TextEncoderPart) -> tokenizers.Tokenizer:
    tokenizer = read_tokenizer_file(part.tokenizer.parent)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if tokenizer.token_to_id(END_TOKEN) is None or largest >= part.config.vocab_size:
        raise CheckpointError(f"its {part.tokenizer.name} is not that of its text encoder")
    return tokenizer


def _make_constants(networks: Mapping[str, nn.Module], text_encoder: nn.Module, device: str) -> None:
    """Makes the buffers that no checkpoint holds, which networks that were built on the device `meta` lack."""
    rotary = cast("nn.Module", text_encoder.rotary_emb)
    text_encoder.rotary_emb = type(rotary)(text_encoder.config).to(device)
    if "audio_tokenizer" in networks:
        quantizer = cast("nn.Module", networks["audio_tokenizer"].quantizer)
        made = type(quantizer)(dim=1, levels=quantizer.levels, num_quantizers=quantizer.num_quantizers)
        for name, buffer in made.named_buffers():
            quantizer.register_buffer(name, buffer.to(device), persistent=False)
    for name, network in (*networks.items(), ("text_encoder", text_encoder)):
        left = [key for key, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]
        assert not left, f"{name} has tensors without values: {left}"
