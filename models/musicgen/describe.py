"""What a checkpoint folder holds and whether its parts fit together: read from shapes and settings, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoints.hf_folder import NEEDS, PICKLE_FILE, SAFE_FILE, read_settings
from models.checkpoints.locations import CODEC_FILE, LM_FILE, WeightLocations
from models.musicgen.catalog import CODEC_HUB_ID
from models.musicgen.contents import broken, get, need, read_contents, settings_of
from models.musicgen.peek import TensorShape

T5_FILES = (*NEEDS, "tokenizer.json|spiece.model")


@dataclass(frozen=True)
class TextEncoder:
    """A T5 that a conditioner needs; `folder` is None while it still has to be fetched."""

    conditioner: str
    hub_id: str
    folder: Path | None


@dataclass(frozen=True)
class Codec:
    """The codec of a checkpoint; `folder` is None for audiocraft's own format (and while `hub_id` is to be fetched)."""

    sample_rate: int
    channels: int
    codebooks: int
    cardinality: int
    dimension: int
    nbytes: int
    hub_id: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Description:
    """A checkpoint folder whose parts fit together.

    Args:
        folder: with `state_dict.bin` and `compression_state_dict.bin`.
        channels: of the output.
        window: s, as trained.
        conditioning: `text`, `melody`.
        codebooks: streams that the language model predicts at a time.
        cardinality: codes in each.
        elements: of the language model's tensors.
    """

    folder: Path
    channels: int
    window: float
    conditioning: tuple[str, ...]
    codebooks: int
    cardinality: int
    elements: int
    text_encoders: tuple[TextEncoder, ...]
    codec: Codec

    @property
    def sample_rate(self) -> int:
        """Of the output, Hz."""
        return self.codec.sample_rate

    @property
    def to_fetch(self) -> tuple[str, ...]:
        """Hub ids of the parts that are not here."""
        absent = [encoder.hub_id for encoder in self.text_encoders if encoder.folder is None]
        codec = self.codec
        return (*absent, *([codec.hub_id] if codec.hub_id and codec.folder is None else []))

    def memory_bytes(self, *, weight_bytes: int) -> int:
        """Of the loaded engine, with `weight_bytes` for each of the language model's weights; an estimate."""
        encoders = sum(_weights_size(encoder.folder) for encoder in self.text_encoders if encoder.folder)
        return self.elements * weight_bytes + self.codec.nbytes + encoders


def describe(folder: Path, weights: WeightLocations) -> Description:
    """Reads what is in `folder`, finds the parts that lie elsewhere, and holds them against each other.

    Raises:
        ModelError: a part is missing, broken, carries code, or does not fit the others; the message names it.
    """
    contents = read_contents(folder, LM_FILE)
    settings = settings_of(contents, folder, LM_FILE)
    state = contents.package.get("best_state")
    if not isinstance(state, Mapping):
        raise broken(folder, LM_FILE, "it has no 'best_state'")
    stereo = bool(get(settings, "interleave_stereo_codebooks.use"))
    codec = _codec(folder, weights)
    conditioners = get(settings, "conditioners") or {}
    description = Description(
        folder=folder,
        channels=2 if stereo else codec.channels,
        window=float(need(settings, "dataset.segment_duration", folder)),
        conditioning=_conditioning(conditioners, folder),
        codebooks=int(need(settings, "transformer_lm.n_q", folder)),
        cardinality=int(need(settings, "transformer_lm.card", folder)),
        elements=sum(math.prod(tensor.shape) for tensor in state.values() if isinstance(tensor, TensorShape)),
        text_encoders=_text_encoders(conditioners, folder, weights),
        codec=codec,
    )
    _match_lm(description, settings, state)
    _match_codec(description, active=get(settings, "compression_model_n_q"), stereo=stereo)
    _match_text(description, state)
    return description


def _conditioning(conditioners: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    kinds = {str(name): get(conditioners, f"{name}.model") for name in conditioners if name != "args"}
    known = {"t5": "text", "lut": "text", "chroma_stem": "melody"}
    for name, kind in kinds.items():
        if kind not in known:
            raise broken(folder, LM_FILE, f"its conditioner '{name}' is of a kind that audiocraft 1.3 cannot load here")
        if kind == "chroma_stem" and name != "self_wav":
            raise broken(folder, LM_FILE, f"its melody conditioner is called '{name}', not 'self_wav'")
    return tuple(dict.fromkeys(known[kind] for kind in kinds.values()))


def _text_encoders(conditioners: Mapping[str, Any], folder: Path, weights: WeightLocations) -> tuple[TextEncoder, ...]:
    found = []
    for conditioner in conditioners:
        hub_id = get(conditioners, f"{conditioner}.t5.name")
        if isinstance(hub_id, str) and get(conditioners, f"{conditioner}.model") == "t5":
            name = hub_id.rpartition("/")[2]
            beside = WeightLocations(folders=(folder,)).find(("t5", name), (), T5_FILES)
            place = beside or weights.find((name,), (hub_id, f"google-t5/{hub_id}"), T5_FILES)
            found.append(TextEncoder(conditioner=str(conditioner), hub_id=hub_id, folder=place))
    return tuple(found)


def _codec(folder: Path, weights: WeightLocations) -> Codec:
    contents = read_contents(folder, CODEC_FILE)
    if "pretrained" in contents.package:
        return _hub_codec(str(contents.package["pretrained"]), folder, weights)
    settings = settings_of(contents, folder, CODEC_FILE)
    state = contents.package.get("best_state")
    if not isinstance(state, Mapping):
        raise broken(folder, CODEC_FILE, "it has no 'best_state'")
    return Codec(
        sample_rate=int(need(settings, "encodec.sample_rate", folder, CODEC_FILE)),
        channels=int(need(settings, "encodec.channels", folder, CODEC_FILE)),
        codebooks=int(need(settings, "rvq.n_q", folder, CODEC_FILE)),
        cardinality=int(need(settings, "rvq.bins", folder, CODEC_FILE)),
        dimension=int(need(settings, "seanet.dimension", folder, CODEC_FILE)),
        nbytes=sum(tensor.nbytes for tensor in state.values() if isinstance(tensor, TensorShape)),
    )


def _hub_codec(hub_id: str, folder: Path, weights: WeightLocations) -> Codec:
    """The codec that a pointer names, as transformers stores it: beside the checkpoint, or among the weights."""
    if hub_id != CODEC_HUB_ID:
        raise broken(folder, CODEC_FILE, f"it points at a codec other than {CODEC_HUB_ID}, which is not loaded here")
    name = hub_id.rpartition("/")[2]
    place = WeightLocations(folders=(folder, folder.parent)).find((name,), (), NEEDS)
    place = place or weights.find((name,), (hub_id,), NEEDS)
    if place is None:  # as published
        return Codec(32_000, 1, 4, 2048, 128, 236_000_000, hub_id=hub_id)
    config = _json(place, folder, name)
    frame_rate = need(config, "sampling_rate", folder, name) / math.prod(config.get("upsampling_ratios") or [1])
    bits = math.log2(need(config, "codebook_size", folder, name))
    return Codec(
        sample_rate=int(config["sampling_rate"]),
        channels=int(need(config, "audio_channels", folder, name)),
        codebooks=int(1000 * max(config.get("target_bandwidths") or [0]) / (frame_rate * bits)),
        cardinality=int(config["codebook_size"]),
        dimension=int(need(config, "hidden_size", folder, name)),
        nbytes=_weights_size(place),
        hub_id=hub_id,
        folder=place,
    )


def _match_lm(description: Description, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    folder, dim = description.folder, int(need(settings, "transformer_lm.dim", description.folder))
    expected = {f"emb.{k}.weight": (description.cardinality + 1, dim) for k in range(description.codebooks)}
    expected |= {f"linears.{k}.weight": (description.cardinality, dim) for k in range(description.codebooks)}
    for name, shape in expected.items():
        found = getattr(state.get(name), "shape", None)
        if found != shape:
            raise broken(
                folder, LM_FILE, f"'{name}' should be {list(shape)} by its settings, and is {found or 'absent'}"
            )
    last = int(need(settings, "transformer_lm.num_layers", folder)) - 1
    if f"transformer.layers.{last}.norm1.weight" not in state or f"emb.{description.codebooks}.weight" in state:
        raise broken(folder, LM_FILE, "its tensors are of another shape of model than its settings")


def _match_codec(description: Description, *, active: Any, stereo: bool) -> None:
    codec = description.codec
    streams = (int(active) if active else codec.codebooks) * (2 if stereo else 1)
    if (
        streams != description.codebooks
        or codec.cardinality != description.cardinality
        or (stereo and codec.channels != 1)
    ):
        raise broken(
            description.folder,
            CODEC_FILE,
            f"it makes {streams} streams of {codec.cardinality} codes, and {LM_FILE} wants {description.codebooks} of "
            f"{description.cardinality}",
        )


def _match_text(description: Description, state: Mapping[str, Any]) -> None:
    for encoder in description.text_encoders:
        if encoder.folder is None:
            continue
        config = _json(encoder.folder, description.folder, "t5")
        projection = state.get(f"condition_provider.conditioners.{encoder.conditioner}.output_proj.weight")
        wanted = projection.shape[1] if isinstance(projection, TensorShape) else None
        if config.get("d_model") != wanted:
            raise broken(
                description.folder,
                "t5",
                f"it is {config.get('d_model')} wide, and {LM_FILE} wants {wanted} ({encoder.hub_id})",
            )


def _json(place: Path, folder: Path, part: str) -> Mapping[str, Any]:
    try:
        return read_settings(place)
    except ValueError as error:
        raise broken(folder, part, str(error)) from error


def _weights_size(folder: Path) -> int:
    sizes = [(folder / name).stat().st_size for name in (SAFE_FILE, PICKLE_FILE) if (folder / name).is_file()]
    return sizes[0] if sizes else 0
