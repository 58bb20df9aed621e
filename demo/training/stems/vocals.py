"""Renders the vocals of a piece in stereo: a lead, and in some pieces one or two other voices behind it."""

import random

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from demo.training import singing
from demo.training.compose import Piece, compose
from demo.training.render import set_level

LEAD_LEVELS_DB = (-24.0, -20.0)  # RMS, re full scale
BACKING_LEVELS_DB = (-31.0, -27.0)
BACKING_COUNTS = (0, 0, 1, 1, 2)


def render_vocals(seed: int, *, seconds: float) -> dict[str, NDArray[np.float32]]:
    """The vocals of the band that plays the piece of `seed`, at 44.1 kHz.

    Singers, pan, reverberation and levels are drawn with the seed.

    Returns:
        `lead` and `backing`, [2, T] each; `backing` is silent in two of five pieces.
    """
    piece, rng = compose(seed, "full"), random.Random(f"vocals {seed}")
    names = rng.sample(list(singing.SINGERS), 1 + rng.choice(BACKING_COUNTS))
    lead = _sing(piece, names[0], seed, seconds)
    backing = np.zeros((2, len(lead)), np.float32)
    side = rng.choice((-1, 1))
    for number, name in enumerate(names[1:], 1):
        pan = side * (-1) ** number * rng.uniform(0.3, 0.8)
        backing += set_level(_pan(_sing(piece, name, seed + number, seconds), pan), -20)
    stems = {
        "lead": set_level(_pan(lead, rng.uniform(-0.1, 0.1)), rng.uniform(*LEAD_LEVELS_DB)),
        "backing": set_level(backing, rng.uniform(*BACKING_LEVELS_DB)),
    }
    room = _make_room(seed, seconds=rng.uniform(0.3, 1.2), wet_db=rng.uniform(-22, -12))
    return {name: _reverberate(stem, room) for name, stem in stems.items()}


def _sing(piece: Piece, name: str, seed: int, seconds: float) -> NDArray[np.float32]:
    singer = singing.SINGERS[name]
    return singing.sing(singing.compose_melody(piece, singer), singer, seed=seed, seconds=seconds).audio


def _pan(mono: NDArray[np.float32], pan: float) -> NDArray[np.float32]:
    """`[2, T]`; -1 is left, 1 is right."""
    angle = (pan + 1) * np.pi / 4
    return np.stack([mono * np.float32(np.cos(angle)), mono * np.float32(np.sin(angle))])


def _make_room(seed: int, *, seconds: float, wet_db: float) -> NDArray[np.float32]:
    """Decaying noise, [2, T], of the given energy: a plain reverberation of `seconds` to -60 dB."""
    noise = np.random.default_rng(seed).standard_normal((2, round(seconds * singing.SAMPLE_RATE)))
    decayed = noise * 10 ** (-3 * np.arange(noise.shape[1]) / noise.shape[1])
    decayed[:, : round(0.01 * singing.SAMPLE_RATE)] = 0  # the first reflection is 10 ms late
    room = decayed * (10 ** (wet_db / 20) / np.sqrt((decayed**2).sum(axis=1, keepdims=True)))
    result: NDArray[np.float32] = room.astype(np.float32)
    return result


def _reverberate(stereo: NDArray[np.float32], room: NDArray[np.float32]) -> NDArray[np.float32]:
    wet = fftconvolve(stereo, room, axes=1)[:, : stereo.shape[1]]
    result: NDArray[np.float32] = (stereo + wet).astype(np.float32)
    return result
