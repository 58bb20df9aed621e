"""What a RoFormer is: its sizes, read from the shapes of its tensors, and what only its yaml states. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from errors import sanitize
from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings
from models.roformer.bands import Bands, covers_spectrum, make_mel_bands, split_bins

Kind = Literal["mel", "bs"]
Shapes = Mapping[str, tuple[int, ...]]
DEFAULT_SAMPLE_RATE = 44_100
_MAX_LAYERS = 64
_MAX_BANDS = 256
_MAX_STEMS = 256
_MAX_MASK_LINEARS = 16
_MAX_CHUNK = 1 << 23  # samples: three minutes
_MAX_FFT = 1 << 15
# Networks that share names of tensors or settings with a RoFormer, and that are not run: what tells each one.
_VARIANT_KEYS = (
    (".segm.", "HyperACE"),
    ("pope_embed", "PoPE (PolarFormer)"),
    (".conv.net.", "Conformer"),
    (".ff1.", "Conformer"),
)
_VARIANT_SETTINGS = (
    ("use_pope", "PoPE (PolarFormer)"),
    ("linear_transformer_depth", "linear transformer"),
    ("time_conformer_depth", "Conformer"),
    ("freq_conformer_depth", "Conformer"),
    ("use_value_residual_learning", "value residual"),
)


class UnsupportedVariantError(CheckpointError):
    """The file holds a network that is derived from RoFormer, and that is not run."""

    def __init__(self, variant: str) -> None:
        super().__init__(
            f"it is the variant '{variant}', which is not supported; plain Mel-Band and BS RoFormer models are"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoformerConfig:
    """The sizes of one network, and how it goes through a song.

    Args:
        kind: `mel`: overlapping bands on the mel scale; `bs`: adjacent bands.
        dim: of the residual stream.
        depth: pairs of transformers, one along time and one along the bands.
        time_depth, freq_depth: layers of each of these.
        num_attention_heads, head_dim: of every layer.
        channels: that the network gets at once: 2, or 1 if it gets each channel alone.
        bands: the bins of each band.
        mask_linears: linear layers in each band's mask estimator, as the file has them: the yaml counts them in one way
            for a Mel-Band RoFormer and in another for a BS RoFormer.
        mask_estimators: numbers in the file of the mask estimators, one for each of `stems`.
        n_fft, hop_length, win_length, normalized: of the spectrogram, as `torch.stft` takes them.
        zero_dc: whether the lowest bin of the result is set to 0.
        skip_connection: whether each pair of transformers gets the sum of all results before it.
        sample_rate: in Hz.
        stems: that the network gives, in the order of its output; in lower case.
        complement: the name of what remains of the mix, for a network that gives one stem of it; None: the network
            gives all stems that its yaml names.
        chunk_length: samples that the network gets at once.
        num_overlap: chunks that each sample is in.
        normalize: whether the mix is scaled to a mean of 0 and a standard deviation of 1.
    """

    kind: Kind
    dim: int
    depth: int
    time_depth: int
    freq_depth: int
    num_attention_heads: int
    head_dim: int
    channels: int
    bands: Bands
    mask_linears: int
    mask_estimators: tuple[int, ...]
    n_fft: int
    hop_length: int
    win_length: int
    normalized: bool
    zero_dc: bool
    skip_connection: bool
    sample_rate: int
    stems: tuple[str, ...]
    complement: str | None
    chunk_length: int
    num_overlap: int
    normalize: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems, and what remains of the mix if that has a name."""
        return self.stems if self.complement is None else (*self.stems, self.complement)

    @property
    def num_bins(self) -> int:
        """Bins of the spectrogram."""
        return self.n_fft // 2 + 1


def read_config(shapes: Shapes, settings: Settings) -> RoformerConfig:
    """Reads a network's sizes from its tensors, and what they do not show from its yaml.

    Args:
        shapes: of every tensor, by name, without `module.`.
        settings: the yaml.

    Raises:
        UnsupportedVariantError: it is a network of another kind.
        CheckpointError: it is no RoFormer, or the tensors do not fit each other or the yaml.
    """
    model = settings.section("model")
    _check_variant(shapes, model)
    kind = _read_kind(shapes)
    dim = _shape(shapes, "layers.0.0.layers.0.0.norm.gamma", 1)[0]
    depth = _count(shapes, "layers.{}.0.layers.0.0.norm.gamma", _MAX_LAYERS)
    heads = _shape(shapes, "layers.0.0.layers.0.0.to_gates.weight", 2)[0]
    inner = _shape(shapes, "layers.0.0.layers.0.0.to_out.0.weight", 2)[1]
    if not dim or not heads or inner % heads or inner // heads % 2:
        raise CheckpointError("the sizes of its attention layers do not fit each other")
    n_fft = model.integer("stft_n_fft", 2048, least=16, most=_MAX_FFT)
    sample_rate = _read_sample_rate(settings)
    channels, bands = _read_bands(shapes, kind, n_fft, sample_rate)
    estimators = _list_mask_estimators(shapes)
    stems, complement = _read_stems(settings, estimators)
    mask_linears = _count(
        shapes, f"mask_estimators.{estimators[0]}.to_freqs.0.0.{{}}.weight", _MAX_MASK_LINEARS, step=2
    )
    for estimator in estimators:
        _check_mask_estimator(shapes, estimator, dim, mask_linears, [2 * channels * len(band) for band in bands])
    win_length = model.integer("stft_win_length", n_fft, least=2, most=n_fft)
    return RoformerConfig(
        kind=kind,
        dim=dim,
        depth=depth,
        time_depth=_count(shapes, "layers.0.0.layers.{}.0.norm.gamma", _MAX_LAYERS),
        freq_depth=_count(shapes, "layers.0.1.layers.{}.0.norm.gamma", _MAX_LAYERS),
        num_attention_heads=heads,
        head_dim=inner // heads,
        channels=channels,
        bands=bands,
        mask_linears=mask_linears,
        mask_estimators=estimators,
        n_fft=n_fft,
        hop_length=model.integer("stft_hop_length", 512, most=win_length),
        win_length=win_length,
        normalized=model.flag("stft_normalized"),
        zero_dc=model.flag("zero_dc", kind == "mel"),  # the defaults of the training code
        skip_connection=model.flag("skip_connection"),
        sample_rate=sample_rate,
        stems=stems,
        complement=complement,
        chunk_length=_read_chunk_length(settings, n_fft),
        num_overlap=settings.integer("inference.num_overlap", 2, most=64),
        normalize=settings.flag("inference.normalize"),
    )


def _check_variant(shapes: Shapes, model: Settings) -> None:
    for part, variant in _VARIANT_KEYS:
        if any(part in name for name in shapes):
            raise UnsupportedVariantError(variant)
    for setting, variant in _VARIANT_SETTINGS:
        if model.get(setting):
            raise UnsupportedVariantError(variant)
    if "layers.0.2.layers.0.0.norm.gamma" in shapes:
        raise UnsupportedVariantError("linear transformer")


def _read_kind(shapes: Shapes) -> Kind:
    """A Mel-Band RoFormer has a norm after each transformer, and a BS RoFormer one after all of them."""
    if "layers.0.0.layers.0.0.to_qkv.weight" not in shapes or "band_split.to_features.0.0.gamma" not in shapes:
        raise CheckpointError("it holds the weights of another network than a Mel-Band or BS RoFormer")
    is_mel, is_bs = "layers.0.0.norm.gamma" in shapes, "final_norm.gamma" in shapes
    if is_mel == is_bs:
        raise CheckpointError("its norms are neither those of a Mel-Band RoFormer nor those of a BS RoFormer")
    return "mel" if is_mel else "bs"


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"its tensor '{name}' is missing")
    if len(shapes[name]) != dimensions:
        raise CheckpointError(f"its tensor '{name}' has {len(shapes[name])} dimensions and not {dimensions}")
    return shapes[name]


def _count(shapes: Shapes, name: str, most: int, *, step: int = 1) -> int:
    count = next((index for index in range(most + 1) if name.format(step * index) not in shapes), most + 1)
    if not 0 < count <= most:
        what = f"'{name.format(0)}' is missing" if not count else f"it has more than {most} of '{name.format('*')}'"
        raise CheckpointError(what)
    return count


def _read_bands(shapes: Shapes, kind: Kind, n_fft: int, sample_rate: int) -> tuple[int, Bands]:
    """Returns the number of channels, and all bands, as the widths of their projections show them."""
    count = _count(shapes, "band_split.to_features.{}.0.gamma", _MAX_BANDS)
    widths = [_shape(shapes, f"band_split.to_features.{band}.0.gamma", 1)[0] for band in range(count)]
    bins = n_fft // 2 + 1
    for channels in (2, 1):
        sizes = tuple(width // (2 * channels) for width in widths)
        bands = make_mel_bands(sample_rate, n_fft, count) if kind == "mel" else split_bins(sizes)
        fits = [2 * channels * len(band) for band in bands] == widths
        if fits and covers_spectrum(bands, bins):
            return channels, bands
    raise CheckpointError(
        f"its {count} bands do not cover the {bins} bins of the spectrum at an n_fft of {n_fft}"
        + (f" and {sample_rate} Hz" if kind == "mel" else "")
    )


def _list_mask_estimators(shapes: Shapes) -> tuple[int, ...]:
    pattern = re.compile(r"mask_estimators\.(\d{1,4})\.to_freqs\.0\.0\.0\.weight")
    found = sorted(int(match[1]) for match in map(pattern.fullmatch, shapes) if match)
    if not found or len(found) > _MAX_STEMS:
        raise CheckpointError(f"it has {len(found)} mask estimators, and from 1 to {_MAX_STEMS} are allowed")
    return tuple(found)


def _check_mask_estimator(shapes: Shapes, estimator: int, dim: int, linears: int, widths: Sequence[int]) -> None:
    """Checks the shapes of one stem's tensors, which are read later than those of the rest."""
    for band, width in enumerate(widths):
        inputs = dim
        for index in range(linears):
            name = f"mask_estimators.{estimator}.to_freqs.{band}.0.{2 * index}"
            bias = _shape(shapes, f"{name}.bias", 1)
            # All bands of all stems have the first one's hidden layers.
            first = _shape(shapes, f"mask_estimators.{estimator}.to_freqs.0.0.{2 * index}.bias", 1)
            wanted = (2 * width,) if index == linears - 1 else first
            if bias != wanted or _shape(shapes, f"{name}.weight", 2) != (*wanted, inputs):
                raise CheckpointError(f"the sizes of its tensor '{name}.weight' do not fit those of the others")
            (inputs,) = wanted


def _read_sample_rate(settings: Settings) -> int:
    stated = settings.integer("audio.sample_rate", DEFAULT_SAMPLE_RATE, least=8000, most=192_000)
    return settings.integer("model.sample_rate", stated, least=8000, most=192_000)


def _read_chunk_length(settings: Settings, n_fft: int) -> int:
    path = "inference.chunk_size" if settings.get("inference.chunk_size") is not None else "audio.chunk_size"
    return settings.integer(path, 352_800, least=n_fft, most=_MAX_CHUNK)


def _read_stems(settings: Settings, estimators: tuple[int, ...]) -> tuple[tuple[str, ...], str | None]:
    """Returns the names of the mask estimators' stems, and that of what remains."""
    instruments = tuple(name.strip().lower() for name in settings.texts("training.instruments"))
    target = (settings.text("training.target_instrument", "") or "").strip().lower()
    if not all(instruments) or len(set(instruments)) != len(instruments):
        raise CheckpointError("its training.instruments are not different names")
    if target and len(estimators) == 1:
        others = [name for name in instruments if name != target]
        return (target,), others[0] if len(others) == 1 else "other" if target != "other" else "rest"
    if len(instruments) == len(estimators):
        return instruments, None
    is_subset = estimators != tuple(range(len(estimators)))  # a part of a file, with the numbers of the whole
    if is_subset and estimators[-1] < len(instruments):
        return tuple(instruments[index] for index in estimators), None
    names = ", ".join(sanitize(name) for name in instruments[:4]) or "none"
    raise CheckpointError(
        f"it has {len(estimators)} mask estimators, and its training.instruments name {len(instruments)} ({names}"
        f"{', ...' if len(instruments) > 4 else ''})"
    )
