"""Trains the audio tokenizer, and then the diffusion transformer with the text, lyric and timbre encoders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from demo.training.songs import clock, text
from demo.training.songs.data import Batch, Crops
from demo.training.songs.networks import CONFIG, SongNetworks
from demo.training.songs.render import BUILD
from demo.training.songs.schedule import TrainingClock, is_unfinished
from models.acestep.catalog import TURBO
from models.acestep.request import DiffusionSampling
from models.acestep.schedule import compute_timesteps

CODES_CHECKPOINT = BUILD / "codes.pt"
CLOCK_CHECKPOINT = BUILD / "clock.pt"
CHECKPOINT = BUILD / "dit.pt"
_SHORT, _LONG = 256, 750  # latents of a crop: 10 and 30 s
_LONG_EVERY = 6
_HARMONICS = (1, 2, 4, 8, 16)  # of the bar, which the lower layers are to know
_PROBED_LAYERS = (1, 2)
_PROBE_WEIGHT = 0.5
_FIRST_OUTPUT = 0.1  # of the initial weights: velocities are small at first


class _Probes(nn.Module):
    """Reads the angle of the bar off the lower layers. Only used in training: it makes them pass on the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = nn.ModuleList(
            nn.Linear(CONFIG.transformer.hidden_size, 2 * len(_HARMONICS)) for _ in _PROBED_LAYERS
        )

    def forward(self, states: list[torch.Tensor], batch: Batch) -> torch.Tensor:
        """Returns the mean squared error of cosines and sines."""
        angle = clock.compute_bar_angle(states[0].shape[1], batch.bpm, batch.first_token)
        angles = torch.stack([angle * harmonic for harmonic in _HARMONICS], dim=-1)
        wanted = torch.cat([angles.cos(), angles.sin()], dim=-1)
        losses = [
            (reader(states[layer].float()) - wanted).square().mean(dim=(1, 2))
            for reader, layer in zip(self.readers, _PROBED_LAYERS, strict=True)
        ]
        told = (~batch.dropped).float()  # without conditions there is no tempo to know
        return (torch.stack(losses).mean(0) * told).sum() / told.sum().clamp(min=1)


class _Trained(nn.Module):
    """What a checkpoint of the training holds."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.networks, self.probes = SongNetworks(vocab_size), _Probes()


def load_networks(path: Path = CHECKPOINT) -> SongNetworks:
    """Loads trained networks."""
    trained = _Trained(text.load_tokenizer().get_vocab_size())
    trained.load_state_dict(torch.load(path, weights_only=True)["model"])
    return trained.networks.eval()


def train_codes(steps: int, *, minutes: float, seed: int = 0) -> None:
    """Trains the audio tokenizer and its detokenizer to keep of latents what fits into five codes a second."""
    torch.manual_seed(seed)
    tokenizer = text.load_tokenizer()
    trained = _Trained(tokenizer.get_vocab_size())
    networks = trained.networks
    free = [*networks.audio_tokenizer.parameters(), *networks.audio_token_detokenizer.parameters()]
    optimizer = torch.optim.AdamW(free, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = TrainingClock(CODES_CHECKPOINT, trained, optimizer, steps=steps, minutes=minutes)
    crops = Crops(networks, tokenizer, seed + schedule.step)
    for step in schedule:
        latents = crops.draw(16, 100, task="text2music").latents
        loss = (_resynthesize_smoothly(networks, latents) - latents).square().mean()
        _descend(optimizer, free, loss)
        schedule.report(step, codes=loss)
    schedule.save()


def _resynthesize_smoothly(networks: SongNetworks, latents: torch.Tensor) -> torch.Tensor:
    """Runs latents through codes with a straight-through gradient."""
    tokenizer, quantizer = networks.audio_tokenizer, networks.audio_tokenizer.quantizer
    groups = latents.view(len(latents), -1, CONFIG.pool_window_size, CONFIG.latent_channels)
    hidden = quantizer.project_in(tokenizer.attention_pooler(tokenizer.audio_acoustic_proj(groups)))
    limit = 1 + 1 / (quantizer._levels.float() - 1)
    smooth = (hidden / limit).tanh() * limit
    codes = smooth + (quantizer._quantize(smooth) - smooth).detach()
    resynthesized: torch.Tensor = networks.audio_token_detokenizer(quantizer.project_out(codes))
    return resynthesized


def train(  # noqa: PLR0913  (the lengths of the parts)
    steps: int,
    *,
    minutes: float,
    clock_steps: int = 150,
    batch_size: int = 8,
    peak_lr: float = 1.5e-3,
    seed: int = 0,
) -> None:
    """Trains the lower layers to tell the time, and then everything to predict velocities."""
    torch.manual_seed(seed)
    tokenizer = text.load_tokenizer()
    trained = _Trained(tokenizer.get_vocab_size())
    trained.load_state_dict(torch.load(CODES_CHECKPOINT, weights_only=True)["model"])
    networks = trained.networks
    with torch.no_grad():
        networks.transformer.proj_out_conv.weight *= _FIRST_OUTPUT
    clockwork = clock.Clockwork(networks, tokenizer)
    for part in (networks.audio_tokenizer, networks.audio_token_detokenizer):
        part.requires_grad_(False)
    free = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    if not is_unfinished(CHECKPOINT):
        optimizer = torch.optim.AdamW(free, lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        schedule = TrainingClock(CLOCK_CHECKPOINT, trained, optimizer, steps=clock_steps, minutes=minutes)
        crops = Crops(networks, tokenizer, seed + schedule.step)
        for step in schedule:
            batch = crops.draw(batch_size, _SHORT, task="text2music")
            _, _, states = _run(networks, batch, num_layers=_PROBED_LAYERS[-1] + 1)
            loss = trained.probes(states, batch)
            _descend(optimizer, free, loss)
            clockwork.restore()
            schedule.report(step, clock=loss)
        schedule.save()
    optimizer = torch.optim.AdamW(free, lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = TrainingClock(CHECKPOINT, trained, optimizer, steps=steps, minutes=minutes)
    crops = Crops(networks, tokenizer, seed + 1 + schedule.step)
    for step in schedule:
        is_long = step % _LONG_EVERY == _LONG_EVERY - 1
        batch = crops.draw(batch_size // 3 if is_long else batch_size, _LONG if is_long else _SHORT)
        velocity, target, states = _run(networks, batch)
        flow = (velocity - target).square().mean()
        loss, figures = flow, {"flow": flow}
        if batch.shows_clock:
            figures["clock"] = trained.probes(states, batch)
            loss = loss + _PROBE_WEIGHT * figures["clock"]
        _descend(optimizer, free, loss)
        clockwork.restore()
        schedule.report(step, **figures)
    schedule.save()


def _run(
    networks: SongNetworks, batch: Batch, *, num_layers: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Returns predicted velocities, the true ones, and the states of the layers at random timesteps."""
    timesteps = _draw_timesteps(len(batch.latents))
    noise = torch.randn_like(batch.latents)
    share = timesteps[:, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        conditions, mask = networks.encode_conditions(batch.texts, batch.references, batch.dropped)
        velocity, states = networks.predict(
            share * noise + (1 - share) * batch.latents,
            timesteps,
            batch.context,
            conditions=conditions,
            is_condition=mask,
            num_layers=num_layers,
        )
    return velocity.float(), noise - batch.latents, states


def _draw_timesteps(count: int) -> torch.Tensor:
    """Half of them are those that a turbo model is sampled at, the others are between them."""
    sampling = DiffusionSampling(num_steps=TURBO.num_steps, cfg_coef=1.0, shift=TURBO.shift)
    table = torch.tensor(compute_timesteps(sampling))
    uniform = torch.rand(count)
    between = TURBO.shift * uniform / (1 + (TURBO.shift - 1) * uniform)
    return torch.where(torch.rand(count) < 0.5, table[torch.randint(len(table), (count,))], between)  # noqa: PLR2004


def _descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
