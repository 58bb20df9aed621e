"""The VAE in tiles against diffusers' `AutoencoderOobleck` in one pass, on the same random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from errors import ErrorCode, ModelError
from models.acestep.codec import LatentCodec
from models.acestep.oobleck import (
    FusedSnake,
    build_decoder,
    build_encoder,
    choose_snake,
    compute_snake,
    count_decoder_context,
    count_encoder_context,
    fold_weights,
    run_layers,
)
from testing.convolutions import right_convolutions
from testing.tensors import TensorSizes
from testing.tiny_acestep import build_tiny_components

HOP = 1920
RATIOS = (2, 4, 4, 6, 10)
CHANNELS = 4  # of the tiny latents
PARITY = 1e-5  # of the largest value
SEAM_LIMIT = 1e-6


def make_vae() -> Any:
    return build_tiny_components().vae


def make_latents(frames: int) -> torch.Tensor:
    return torch.randn(1, frames, CHANNELS, generator=torch.Generator().manual_seed(1))


def make_waveform(samples: int) -> torch.Tensor:
    return 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(2))


def measure_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, of the largest expected value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def vae() -> Any:
    """With its weight norm as it is stored."""
    return make_vae()


@torch.no_grad()
def test_decoding_is_that_of_diffusers(vae: Any) -> None:
    latents = make_latents(60)
    expected = vae.decode(latents.transpose(1, 2)).sample[0]
    decoded = LatentCodec(make_vae()).decode(latents)
    assert (decoded.dtype, decoded.device.type) == (torch.float32, "cpu")
    assert measure_error(decoded, expected) <= PARITY


@torch.no_grad()
def test_encoding_is_the_mean_of_diffusers_and_draws_nothing(vae: Any) -> None:
    waveform = make_waveform(60 * HOP)
    expected = vae.encode(waveform[None]).latent_dist.mean.transpose(1, 2)
    state = torch.get_rng_state()
    codec = LatentCodec(make_vae())
    latents = codec.encode(waveform)
    assert latents.dtype == torch.float32
    assert measure_error(latents, expected) <= PARITY
    assert torch.equal(codec.encode(waveform), latents)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 7 * HOP + 500])
def test_the_last_latent_of_any_length_is_completed_with_zeros(samples: int) -> None:
    codec, waveform = LatentCodec(make_vae()), make_waveform(samples)
    latents = codec.encode(waveform)
    completed = torch.cat([waveform, torch.zeros(2, -samples % HOP)], dim=1)
    assert latents.shape == (1, -(-samples // HOP), CHANNELS)
    assert torch.equal(latents, codec.encode(completed))


@pytest.mark.parametrize(("tile_frames", "batch_size"), [(24, 1), (24, 3), (33, 2), (128, 1)])
def test_tiles_give_what_one_pass_gives(tile_frames: int, batch_size: int) -> None:
    latents, waveform = make_latents(130), make_waveform(130 * HOP)
    whole = LatentCodec(make_vae(), tile_frames=1000)
    tiled = LatentCodec(make_vae(), tile_frames=tile_frames, batch_size=batch_size)
    assert measure_error(tiled.decode(latents), whole.decode(latents)) <= SEAM_LIMIT
    assert measure_error(tiled.encode(waveform), whole.encode(waveform)) <= SEAM_LIMIT


@torch.no_grad()
def test_the_context_of_a_tile_is_the_receptive_field_and_no_more() -> None:
    vae = make_vae()
    fold_weights(vae)
    decoder, encoder = build_decoder(vae.decoder, compute_snake), build_encoder(vae.encoder, compute_snake)
    latents, waveform = make_latents(40).transpose(1, 2), make_waveform(40 * HOP)[None]
    changed, disturbed = latents.clone(), waveform.clone()
    changed[:, :, 20] += 1
    disturbed[:, :, 20 * HOP : 21 * HOP] += 1
    samples = (run_layers(decoder, changed) - run_layers(decoder, latents)).abs().amax((0, 1))
    frames = samples.view(-1, HOP).amax(1).nonzero().flatten() - 20
    context = count_decoder_context(RATIOS[::-1])
    assert (context, int(frames.min()), int(frames.max())) == (9, -9, 9)
    reached = (run_layers(encoder, disturbed) - run_layers(encoder, waveform)).abs().amax((0, 1)).nonzero() - 20
    context = count_encoder_context(RATIOS)
    assert context - 1 <= -int(reached.min()) <= context
    assert context - 1 <= int(reached.max()) <= context


@pytest.mark.parametrize("frames", [3, 40, 110])  # 60, 2400 and 6600 positions in chunks of 1024
@torch.no_grad()
def test_chunks_of_the_widest_layers_change_nothing(frames: int) -> None:
    vae, latents, waveform = make_vae(), make_latents(frames).transpose(1, 2), make_waveform(frames * HOP)[None]
    fold_weights(vae)
    for build, part, x in ((build_decoder, vae.decoder, latents), (build_encoder, vae.encoder, waveform)):
        whole = run_layers(build(part, compute_snake), x)
        sizes = TensorSizes()
        with sizes:
            chunked = run_layers(build(part, compute_snake, in_chunks=True), x)
        assert measure_error(chunked, whole) <= SEAM_LIMIT
        widest = max(math.prod(shape) for shape in sizes.shapes if len(shape) == 4 and shape[1] > 2)
        assert widest <= (1024 + 2 * 20) * 32 * 8  # positions with context, samples and channels


def test_progress_is_reported_after_every_tile() -> None:
    fractions: list[float] = []
    codec = LatentCodec(make_vae(), tile_frames=40, batch_size=2)
    codec.decode(make_latents(130), progress=fractions.append)
    assert len(fractions) == 6  # 5 tiles of 40 with 9 on either side cover 128 latents
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    fractions.clear()
    codec.encode(make_waveform(130 * HOP), progress=fractions.append)
    assert len(fractions) == 5 and fractions[-1] == 1.0


def test_what_progress_raises_ends_the_work() -> None:
    def cancel(fraction: float) -> None:
        raise TimeoutError

    codec = LatentCodec(make_vae(), tile_frames=40)
    with pytest.raises(TimeoutError):
        codec.decode(make_latents(130), progress=cancel)
    with pytest.raises(TimeoutError):
        codec.encode(make_waveform(130 * HOP), progress=cancel)


def test_no_tensor_but_the_result_grows_with_the_length() -> None:
    codec = LatentCodec(make_vae(), tile_frames=32)

    def list_shapes(work: Callable[[], object]) -> set[tuple[int, ...]]:
        sizes = TensorSizes()
        with sizes:
            work()
        return sizes.shapes

    latents = make_latents(320)
    widest = codec.hop_length * 32  # samples of a tile
    shapes = list_shapes(lambda: codec.decode(latents))
    assert max(shape[-1] for shape in shapes if len(shape) == 4) == widest
    assert {shape for shape in shapes if max(shape, default=0) > widest} == {(2, 320 * HOP)}
    waveform = make_waveform(320 * HOP)
    shapes = list_shapes(lambda: codec.encode(waveform))
    assert {shape for shape in shapes if max(shape, default=0) > widest} == {(2, 320 * HOP)}


@torch.no_grad()
def test_folding_weights_leaves_a_module_that_computes_the_same(vae: Any) -> None:
    folded, latents = make_vae(), make_latents(12).transpose(1, 2)
    fold_weights(folded)
    assert not any(name.endswith(("_g", "_v")) for name, _ in folded.named_parameters())
    assert measure_error(folded.decode(latents).sample, vae.decode(latents).sample) <= PARITY
    before = dict(folded.named_parameters())
    fold_weights(folded)
    assert all(before[name] is parameter for name, parameter in folded.named_parameters())


@torch.no_grad()
def test_weights_in_bfloat16_are_folded_in_float32() -> None:
    half = make_vae().to(torch.bfloat16)
    exact = make_vae().to(torch.bfloat16).float()
    fold_weights(half)
    fold_weights(exact)
    for (name, found), (_, expected) in zip(half.named_parameters(), exact.named_parameters(), strict=True):
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected.to(torch.bfloat16)), name


def test_bfloat16_gives_float32_samples_near_those_of_float32() -> None:
    latents, waveform = make_latents(40), make_waveform(40 * HOP)
    half, exact = LatentCodec(make_vae().to(torch.bfloat16)), LatentCodec(make_vae())
    assert half.decode(latents).dtype == half.encode(waveform).dtype == torch.float32
    with right_convolutions():
        assert measure_error(half.decode(latents), exact.decode(latents)) < 0.1
        assert measure_error(half.encode(waveform), exact.encode(waveform)) < 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_latents_of_a_damaged_model_are_reported(value: float) -> None:
    latents = make_latents(20)
    if value:
        latents[0, 7, 1] = value
    else:
        latents.zero_()
    with pytest.raises(ModelError, match="not finite, or all zero") as caught:
        LatentCodec(make_vae()).decode(latents)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT


def test_samples_of_a_damaged_vae_are_reported() -> None:
    vae = make_vae()
    vae.decoder.conv1.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="samples that its VAE gave are not finite"):
        LatentCodec(vae).decode(make_latents(20))


def test_the_snake_is_that_of_the_paper_to_rounding_and_overwrites_only_when_it_may() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 8, 1, 50, generator=generator)
    alpha, beta = (torch.randn(1, 8, 1, 1, generator=generator).exp() for _ in range(2))
    exact = x.double() + torch.sin(alpha.double() * x.double()).square() / beta.double()
    before = x.clone()
    result = compute_snake(x, alpha, 1 / beta, False)
    assert torch.equal(x, before)
    assert measure_error(result.double(), exact) < 1e-6
    overwritten = compute_snake(x, alpha, 1 / beta, True)
    assert torch.equal(overwritten, result) and overwritten.data_ptr() == x.data_ptr()


def test_a_kernel_that_cannot_be_compiled_leaves_torchs_operations(caplog: pytest.LogCaptureFixture) -> None:
    x, one = torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 1)
    calls: list[str] = []

    def fail(x: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        calls.append("compile")
        raise RuntimeError("nvrtc: error: failed to open libnvrtc-builtins")

    snake = FusedSnake(fail)
    for _ in range(2):
        assert torch.equal(snake(x, one, one, False), compute_snake(x, one, one, False))
    assert calls == ["compile"]
    assert caplog.messages == ["The VAE's activation cannot be compiled to one kernel: decoding is slower"]


def test_a_kernel_that_lacks_memory_is_tried_again() -> None:
    x = torch.ones(1, 1, 1, 3)

    def fail(x: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    snake = FusedSnake(fail)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            snake(x, x, x, False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_on_a_gpu_one_kernel_computes_the_snake(
    dtype: torch.dtype, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    device, latents, waveform = torch.device("cuda"), make_latents(60), make_waveform(60 * HOP)
    on_cpu, on_gpu = LatentCodec(make_vae()), LatentCodec(make_vae().to(device, dtype))
    assert measure_error(on_gpu.decode(latents), on_cpu.decode(latents)) <= limit
    assert measure_error(on_gpu.encode(waveform).cpu(), on_cpu.encode(waveform)) <= limit
    assert not caplog.records  # the kernel was compiled
    x = torch.randn(2, 8, 1, 50, device=device).to(dtype)
    alpha, scale = (torch.rand(1, 8, 1, 1, device=device).to(dtype) for _ in range(2))
    fused = choose_snake(device)(x, alpha, scale, False)
    exact = compute_snake(x.double(), alpha.double(), scale.double(), False)
    assert fused.dtype == dtype and measure_error(fused.double(), exact) <= torch.finfo(dtype).eps
