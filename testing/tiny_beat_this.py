"""Checkpoints of Beat This! with random weights, in the layout of the published files."""

from __future__ import annotations

from pathlib import Path

import torch

HEAD_DIM = 32


def make_state(*, dim: int = 64, depth: int = 1, stem: int = 32, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every tensor of a small network by its published name, without the prefix of the training module."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        state[name] = 0.2 * torch.randn(shape, generator=generator)

    def add_norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=generator)
        add(f"{name}.bias", channels)
        add(f"{name}.running_mean", channels)
        state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def add_layer(attention: str, feed_forward: str, channels: int) -> None:
        heads = channels // HEAD_DIM
        state[f"{attention}.rotary_embed.freqs"] = 1e4 ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        state[f"{attention}.norm.gamma"] = 0.5 + torch.rand(channels, generator=generator)
        add(f"{attention}.to_qkv.weight", 3 * channels, channels)
        add(f"{attention}.to_gates.weight", heads, channels)
        add(f"{attention}.to_gates.bias", heads)
        add(f"{attention}.to_out.0.weight", channels, channels)
        state[f"{feed_forward}.net.0.gamma"] = 0.5 + torch.rand(channels, generator=generator)
        add(f"{feed_forward}.net.1.weight", 4 * channels, channels)
        add(f"{feed_forward}.net.1.bias", 4 * channels)
        add(f"{feed_forward}.net.4.weight", channels, 4 * channels)
        add(f"{feed_forward}.net.4.bias", channels)

    add_norm("frontend.stem.bn1d", 128)
    add("frontend.stem.conv2d.weight", stem, 1, 4, 3)
    add_norm("frontend.stem.bn2d", stem)
    channels = stem
    for index in range(3):
        block = f"frontend.blocks.{index}"
        for axis in "FT":
            add_layer(f"{block}.partial.attn{axis}", f"{block}.partial.ff{axis}", channels)
        add(f"{block}.conv2d.weight", 2 * channels, channels, 2, 3)
        channels *= 2
        add_norm(f"{block}.norm", channels)
    add("frontend.linear.weight", dim, 4 * channels)
    add("frontend.linear.bias", dim)
    for index in range(depth):
        add_layer(f"transformer_blocks.layers.{index}.0", f"transformer_blocks.layers.{index}.1", dim)
    state["transformer_blocks.norm.gamma"] = torch.ones(dim)
    add("task_heads.beat_downbeat_lin.weight", 2, dim)
    add("task_heads.beat_downbeat_lin.bias", 2)
    return state


def write_checkpoint(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A file as the training module saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "hyper_parameters": {"spect_dim": 128, "sum_head": True, "dropout": {"frontend": 0.1, "transformer": 0.2}},
    }
    torch.save(content, path)
    return path
