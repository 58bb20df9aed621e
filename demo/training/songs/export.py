"""Writes the trained networks as a checkpoint in ACE-Step's original layout, in half precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from demo.training.songs import clock, dit, finish, text, vae
from demo.training.songs.networks import CONFIG, SongNetworks
from models.acestep.catalog import TEXT_ENCODER_FOLDER, TURBO, VAE_FOLDER
from models.acestep.checkpoint import MODEL_STEM, PART_STEM, SILENCE_FILE
from models.acestep.network import AceStepConfig, Components, build_vae
from models.checkpoints.hf_folder import CONFIG_FILE, TOKENIZER_FILE
from testing.tiny_acestep import (
    describe_text_encoder,
    describe_vae,
    make_original_config,
    make_original_state,
    write_weights,
)

FOLDER = Path(__file__).parents[2] / "weights" / "acestep" / "demo-acestep"
_DTYPE = torch.float16


def export(folder: Path = FOLDER) -> None:
    """Writes the model's folder, with the VAE and the text encoder inside it."""
    networks = dit.load_networks()
    components = _make_components(networks, export_vae())
    write_weights(folder, make_original_state(components), stem=MODEL_STEM, dtype=_DTYPE)
    config = make_original_config(CONFIG)
    del config["auto_map"]
    _write_json(folder / CONFIG_FILE, config | {"dtype": "float16"})
    torch.save(components.silence_latent.transpose(1, 2).to(_DTYPE).contiguous(), folder / SILENCE_FILE)
    write_weights(folder / VAE_FOLDER, components.vae.state_dict(), stem=PART_STEM, dtype=_DTYPE)
    _write_json(folder / VAE_FOLDER / CONFIG_FILE, describe_vae(components))
    shared = folder / TEXT_ENCODER_FOLDER
    write_weights(shared, networks.text_encoder.state_dict(), stem=MODEL_STEM, dtype=_DTYPE)
    _write_json(shared / CONFIG_FILE, describe_text_encoder(components))
    components.tokenizer.save(str(shared / TOKENIZER_FILE), pretty=False)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{size / 1e6:.2f} MB in {folder}")


def export_vae() -> nn.Module:
    """Returns diffusers' VAE with the trained weights, which makes and takes latents of variance 1."""
    trained: Any = vae.load_vae(finish.CHECKPOINT if finish.CHECKPOINT.exists() else vae.CHECKPOINT)
    scales = torch.load(vae.SCALES, weights_only=True)
    means, deviations = scales["means"], scales["deviations"]
    with torch.no_grad():
        encoder, decoder, size = trained.encoder, trained.decoder, CONFIG.latent_channels
        last = encoder.conv2
        last.weight[:size] /= deviations[:, None, None]
        last.bias[:size] = (last.bias[:size] - means) / deviations
        last.bias[size:] -= deviations.log()  # softplus is nearly exponential that far below 0
        first = decoder.conv1
        first.bias += torch.einsum("oik,i->o", first.weight, means)
        first.weight *= deviations[:, None]
        encoder.conv1.weight[:] = encoder.conv1.weight.mean(1, keepdim=True)
        decoder.conv2.weight[:] = decoder.conv2.weight.mean(0, keepdim=True)
    weights = trained.state_dict()
    exported = build_vae(vae.CONFIG)
    exported.load_state_dict(_restore_weight_norm(weights, exported.state_dict()))
    return exported.eval()


def _restore_weight_norm(
    weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Splits every convolution's weight into its length and its direction, as the files have them."""
    state = {}
    for name in expected:
        if name.endswith(".weight_g"):
            weight = weights[name.removesuffix("_g")]
            state[name] = weight.flatten(1).norm(dim=1).view_as(expected[name])
        elif name.endswith(".weight_v"):
            weight = weights[name.removesuffix("_v")]
            # A direction is needed for the units whose length is 0, too.
            state[name] = torch.where(weight.flatten(1).norm(dim=1).view(-1, 1, 1) > 0, weight, torch.ones_like(weight))
        else:
            state[name] = weights[name]
    return state


def _make_components(networks: SongNetworks, exported_vae: nn.Module) -> Components:
    return Components(
        transformer=networks.transformer,
        condition_encoder=networks.condition_encoder,
        audio_tokenizer=networks.audio_tokenizer,
        audio_token_detokenizer=networks.audio_token_detokenizer,
        vae=exported_vae,
        text_encoder=networks.text_encoder,
        tokenizer=text.load_tokenizer(),
        silence_latent=clock.make_silence(),
        config=AceStepConfig(sizes=CONFIG, defaults=TURBO, device=torch.device("cpu"), dtype=torch.float32),
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
