"""Trains the VAE's decoder alone, on latents as the transformer predicts them. The latents stay what they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from demo.training.loss import SpectralLoss
from demo.training.songs import dit, text, vae
from demo.training.songs.data import Batch, Crops
from demo.training.songs.networks import SongNetworks
from demo.training.songs.render import BUILD, load_audio
from demo.training.songs.schedule import TrainingClock

CHECKPOINT = BUILD / "finished.pt"
_FRAMES = 18  # of a crop: 0.7 s
_EDGE_FRAMES = 1  # whose surroundings the decoder does not see
_LAST_TIMESTEPS = (0.3, 0.5)  # of a turbo model
_WAVEFORM_WEIGHT = 0.3
_LEVEL_WEIGHT = 0.5
_LEVEL_SIZE, _LEVEL_FRAMES, _QUIETEST = 2048, 6, 1e-5


def train(steps: int, *, minutes: float, batch_size: int = 3, peak_lr: float = 8e-4, seed: int = 0) -> None:
    """Trains on real latents, and on as many that the transformer has cleaned of the noise of its last steps.

    Predicted latents have no phase in common with the recording: only real ones are compared as waveforms, too.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    networks, trained, audio = dit.load_networks(), vae.load_vae(), load_audio()
    scales = torch.load(vae.SCALES, weights_only=True)
    means, deviations = (scales[name][:, None] for name in ("means", "deviations"))
    spectral_loss = vae.make_spectral_loss()
    free = [parameter for parameter in trained.decoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(free, lr=peak_lr, betas=(0.8, 0.99), weight_decay=0.0)
    schedule = TrainingClock(CHECKPOINT, trained, optimizer, steps=steps, minutes=minutes)
    crops = Crops(networks, text.load_tokenizer(), seed + schedule.step)
    inside = slice(_EDGE_FRAMES * vae.HOP_LENGTH, -_EDGE_FRAMES * vae.HOP_LENGTH)
    for step in schedule:
        batch = crops.draw(batch_size, 128, task="text2music")
        offsets = rng.integers(0, 128 - _FRAMES, batch_size)
        both = torch.cat([batch.latents, _predict_clean(networks, batch)])
        latents = torch.stack([row[at : at + _FRAMES].T for row, at in zip(both, [*offsets, *offsets], strict=True)])
        starts = [(2 * int(token) + at) * vae.HOP_LENGTH for token, at in zip(batch.first_token, offsets, strict=True)]
        size = _FRAMES * vae.HOP_LENGTH
        clips = np.stack([audio[row, at : at + size] for row, at in zip(batch.rows, starts, strict=True)])
        wanted = torch.from_numpy(clips.astype(np.float32) / 32768)[:, inside]
        with torch.autocast("cpu", torch.bfloat16):
            output = trained.decode(latents * deviations + means).float()[:, inside]
        spectral = spectral_loss(output, torch.cat([wanted, wanted]))
        waveform = (output[:batch_size] - wanted).abs().mean()
        level = _compare_levels(spectral_loss, output, torch.cat([wanted, wanted]))
        optimizer.zero_grad()
        (spectral + _WAVEFORM_WEIGHT * waveform + _LEVEL_WEIGHT * level).backward()
        nn.utils.clip_grad_norm_(free, 1.0)
        optimizer.step()
        schedule.report(step, spectral=spectral, waveform=waveform, level=level)
    schedule.save()


def _compare_levels(loss: SpectralLoss, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compares the power of mel bands over tenths of a second, in nepers: sound whose phase cannot be known is not to
    become quiet, which makes its magnitudes least wrong from frame to frame."""
    window, mel = loss.get_buffer(f"window{_LEVEL_SIZE}"), loss.get_buffer(f"mel{_LEVEL_SIZE}")
    spectrum = torch.stft(
        torch.cat([output, target]), _LEVEL_SIZE, _LEVEL_SIZE // 2, window=window, return_complex=True
    )
    power = nn.functional.avg_pool1d(mel @ (spectrum.real**2 + spectrum.imag**2), _LEVEL_FRAMES, stride=2)
    made, wanted = (0.5 * torch.log(power + _QUIETEST)).chunk(2)
    return (made - wanted).abs().mean()


@torch.no_grad()
def _predict_clean(networks: SongNetworks, batch: Batch) -> torch.Tensor:
    """Returns what the transformer takes for the latents, `[B, T, C]`, when it sees them with noise."""
    choice = torch.randint(len(_LAST_TIMESTEPS), (len(batch.latents),))
    timesteps = torch.tensor(_LAST_TIMESTEPS)[choice]
    share = timesteps[:, None, None]
    noisy = share * torch.randn_like(batch.latents) + (1 - share) * batch.latents
    with torch.autocast("cpu", torch.bfloat16):
        conditions, mask = networks.encode_conditions(batch.texts, batch.references, batch.dropped)
        velocity, _ = networks.predict(noisy, timesteps, batch.context, conditions=conditions, is_condition=mask)
    return noisy - share * velocity.float()
