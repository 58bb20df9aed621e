"""The published way of separating a whole song with a RoFormer, on whole arrays: what the chunk engine is held to.

Written from the description of `demix` in ZFTurbo's Music-Source-Separation-Training, with batches of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def separate_song(
    network: Callable[[torch.Tensor], torch.Tensor],
    mix: torch.Tensor,
    *,
    chunk_size: int,
    num_overlap: int,
    normalize: bool = False,
) -> torch.Tensor:
    """Separates a song.

    Args:
        network: gives `[1, S, 2, chunk_size]` for `[1, 2, chunk_size]`.
        mix: `[2, T]`.
        chunk_size: samples that the network gets at once.
        num_overlap: chunks that each sample is in.
        normalize: whether the network gets the mix with a mean of 0 and a standard deviation of 1.

    Returns:
        `[S, 2, T]`.
    """
    mean, std = (mix.mean(0).mean(), mix.mean(0).std()) if normalize else (torch.tensor(0.0), torch.tensor(1.0))
    step, fade = chunk_size // num_overlap, chunk_size // 10
    border = chunk_size - step
    is_padded = border > 0 and mix.shape[1] > 2 * border
    padded = (mix - mean) / std
    if is_padded:
        padded = F.pad(padded[None], (border, border), mode="reflect")[0]
    sums: torch.Tensor | float = 0.0
    weights = torch.zeros(padded.shape[1])
    starts = range(0, padded.shape[1], step)
    for start in starts:
        part = padded[:, start : start + chunk_size]
        count = part.shape[1]
        mode = "reflect" if count > chunk_size // 2 else "constant"
        whole = F.pad(part[None], (0, chunk_size - count), mode=mode)
        window = torch.ones(chunk_size)
        if start != starts[0]:
            window[:fade] = torch.linspace(0, 1, fade)
        if start != starts[-1]:
            window[-fade:] = torch.linspace(1, 0, fade)
        result = network(whole)[0, ..., :count] * window[:count]
        sums = sums + F.pad(result, (start, padded.shape[1] - start - count))
        weights[start : start + count] += window[:count]
    stems: torch.Tensor = sums / weights * std + mean
    return stems[..., border : border + mix.shape[1]] if is_padded else stems
