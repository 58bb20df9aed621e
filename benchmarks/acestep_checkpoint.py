"""An ACE-Step checkpoint of the published sizes with random bfloat16 weights, in the original layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.acestep.catalog import TURBO
from models.acestep.checkpoint import read_model, read_text_encoder, read_vae
from models.acestep.config import NetworkConfig, TextEncoderConfig, VaeConfig, Widths
from models.acestep.load import load_components
from models.acestep.network import AceStepConfig, Components, build_networks, build_text_encoder, build_vae
from models.acestep.repository import AceStepRepository
from models.checkpoints.locations import WeightLocations
from testing.tiny_acestep import (
    SILENCE_FRAMES,
    describe_text_encoder,
    describe_vae,
    make_original_config,
    make_original_state,
    make_tokenizer,
)

NAME = "acestep-v15-turbo"
_WIDE = Widths(hidden_size=2048, intermediate_size=6144, num_heads=16, num_kv_heads=8)
PUBLISHED = NetworkConfig(
    transformer=_WIDE,
    encoder=_WIDE,
    num_layers=24,
    num_lyric_layers=8,
    num_timbre_layers=4,
    num_pooler_layers=2,
    head_dim=128,
    latent_channels=64,
    text_hidden_size=1024,
    is_turbo=True,
)
PUBLISHED_VAE = VaeConfig(
    encoder_hidden_size=128,
    decoder_channels=128,
    latent_channels=64,
    downsampling_ratios=(2, 4, 4, 6, 10),
    channel_multiples=(1, 2, 4, 8, 16),
)
PUBLISHED_TEXT_ENCODER = TextEncoderConfig(
    widths=Widths(hidden_size=1024, intermediate_size=3072, num_heads=16, num_kv_heads=8),
    num_layers=28,
    head_dim=128,
    vocab_size=151_669,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
)
_NOISE_VALUES = 1 << 24  # drawn once and repeated: to draw 2.4 billion takes a minute


def write_acestep(root: Path) -> None:
    """Writes `acestep-v15-turbo/`, `vae/` and `Qwen3-Embedding-0.6B/` below `root`: 6.3 GB."""
    components = _build_without_memory()
    model, vae, text = (root / name for name in (NAME, "vae", "Qwen3-Embedding-0.6B"))
    maker = WeightMaker()
    _save(maker.make(make_original_state(components)), model / "model.safetensors")
    _save(maker.make(components.vae.state_dict()), vae / "diffusion_pytorch_model.safetensors")
    _save(maker.make(components.text_encoder.state_dict()), text / "model.safetensors")
    torch.save(maker.draw((1, PUBLISHED.latent_channels, SILENCE_FRAMES), 0.5).float(), model / "silence_latent.pt")
    for folder, settings in (
        (model, make_original_config(PUBLISHED)),
        (vae, describe_vae(components)),
        (text, describe_text_encoder(components)),
    ):
        (folder / "config.json").write_text(json.dumps(settings))
    components.tokenizer.save(str(text / "tokenizer.json"))


def load_acestep(
    root: Path, device: str, *, dtype: torch.dtype | None = None, vae_dtype: torch.dtype | None = None
) -> Components:
    """Loads the model below `root`; its types are those of the device's policy unless they are given."""
    folders = AceStepRepository(WeightLocations(explicit=root)).find(NAME)
    assert folders is not None, f"there is no {NAME} below {root}"
    model = read_model(folders)
    vae, text_encoder = read_vae(folders, model.config), read_text_encoder(folders, model.config)
    return load_components(model, vae, text_encoder, defaults=TURBO, device=device, dtype=dtype, vae_dtype=vae_dtype)


def _build_without_memory() -> Components:
    with torch.device("meta"):
        networks = build_networks(PUBLISHED) | {
            "vae": build_vae(PUBLISHED_VAE),
            "text_encoder": build_text_encoder(PUBLISHED_TEXT_ENCODER),
        }
    device, dtype = torch.device("meta"), torch.bfloat16
    config = AceStepConfig(sizes=PUBLISHED, defaults=TURBO, device=device, dtype=dtype)
    silence = torch.empty(1, SILENCE_FRAMES, PUBLISHED.latent_channels, device=device)
    parts: dict[str, Any] = networks
    return Components(**parts, tokenizer=make_tokenizer(), silence_latent=silence, config=config)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"format": "pt"})


class WeightMaker:
    """Draws weights so that activations stay about as large as they are in a trained network."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(_NOISE_VALUES, generator=generator).to(torch.bfloat16)
        self._start = 0

    def make(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Makes a tensor for each one of a state dict on the device `meta`."""
        made = {name: self._make(name, tuple(tensor.shape)) for name, tensor in state.items() if "weight_g" not in name}
        for name, tensor in state.items():
            if name.endswith(".weight_g"):
                direction = made[f"{name[:-1]}v"]
                made[name] = direction.float().norm(dim=(1, 2), keepdim=True).to(direction.dtype).view(tensor.shape)
        return made

    def draw(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
        """Draws normal numbers."""
        count = torch.Size(shape).numel()
        start = self._start % _NOISE_VALUES
        self._start += count
        repeats = -(-(start + count) // _NOISE_VALUES)
        noise = (
            self._noise.repeat(repeats)[start : start + count] if repeats > 1 else self._noise[start : start + count]
        )
        return (noise * std).view(shape)

    def _make(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 1 or name.endswith((".alpha", ".beta")):
            # Norms have the only weights of one dimension.
            return torch.full(shape, float(len(shape) == 1 and name.endswith(".weight")), dtype=torch.bfloat16)
        if name.endswith(".weight_v"):
            fan_in = 2 * shape[0] if ".conv_t1." in name else shape[1] * shape[2]
            return self.draw(shape, (3 * fan_in) ** -0.5)
        return self.draw(shape, torch.Size(shape[1:]).numel() ** -0.5)
