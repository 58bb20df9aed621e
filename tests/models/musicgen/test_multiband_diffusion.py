"""Multi-Band Diffusion decodes long clips in chunks, each from its own seed. Its networks are audiocraft's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from models.encodec.codec import Codec
from models.encodec.load import from_folder
from models.musicgen.multiband_diffusion import CHUNK_S, CONTEXT_S, STEPS, MultiBandDiffusion
from models.runtime.progress import ignore_progress
from testing.tiny_musicgen import write_hub_codec


@dataclass
class NoiseBand:
    """A diffusion process that returns its initial noise, after as many steps as audiocraft takes."""

    model: torch.nn.Module = field(default_factory=torch.nn.Identity)

    def generate(self, *, condition: torch.Tensor, initial_noise: torch.Tensor) -> torch.Tensor:
        for _ in range(STEPS):
            self.model(condition)
        return initial_noise


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec(from_folder(write_hub_codec(tmp_path_factory.mktemp("codec")), "cpu"), codebooks=4)


def random_codes(codec: Codec, seconds: float) -> torch.Tensor:
    frames = round(seconds * codec.frame_rate)
    return torch.randint(32, (1, codec.codebooks, frames), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_every_chunk_of_a_long_clip_is_decoded_from_its_own_seed(codec: Codec) -> None:
    codes, diffusion = random_codes(codec, 2 * CHUNK_S + 5), MultiBandDiffusion((NoiseBand(), NoiseBand()))
    chunk, context = (round(seconds * codec.frame_rate) for seconds in (CHUNK_S, CONTEXT_S))
    waveform = diffusion.decode(codec, codes, seed=7, progress=ignore_progress)
    assert waveform.shape == (1, 1, codes.shape[-1] * codec.hop_length)
    for number, start in enumerate(range(0, codes.shape[-1], chunk)):
        first = max(start - context, 0)
        window = codes[..., first : start + chunk + context]
        alone = diffusion._decode_chunk(codec, window, 7 + number, ignore_progress)
        kept = alone[..., (start - first) * codec.hop_length :][..., : chunk * codec.hop_length]
        assert torch.equal(waveform[..., start * codec.hop_length :][..., : chunk * codec.hop_length], kept)


def test_the_progress_of_a_long_clip_rises_to_its_end(codec: Codec) -> None:
    reported: list[float] = []
    diffusion = MultiBandDiffusion((NoiseBand(), NoiseBand()))
    diffusion.decode(codec, random_codes(codec, CHUNK_S + 10), seed=7, progress=reported.append)
    assert reported == sorted(reported) and reported[0] == 0 and 0.9 < reported[-1] <= 1
    assert len(reported) == 2 * 2 * STEPS


def test_the_global_random_generator_is_restored(codec: Codec) -> None:
    diffusion = MultiBandDiffusion((NoiseBand(),))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = diffusion.decode(codec, random_codes(codec, 1.0), seed=7, progress=ignore_progress)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(diffusion.decode(codec, random_codes(codec, 1.0), seed=7, progress=ignore_progress), first)


def test_codes_of_several_clips_are_refused(codec: Codec) -> None:
    codes = random_codes(codec, 0.1).expand(2, -1, -1)
    with pytest.raises(AssertionError, match="not one clip's"):
        MultiBandDiffusion((NoiseBand(),)).decode(codec, codes, seed=7, progress=ignore_progress)
