"""What a MusicGen checkpoint folder holds and whether its parts fit together: from settings and shapes, without torch.

Format: audiocraft/utils/export.py: `best_state` (tensors) and `xp.cfg` (settings) in each of two files.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from errors import ErrorCode, ModelError, sanitize
from models.checkpoints.errors import CheckpointError, UnsafeCheckpointError, broken_checkpoint
from models.checkpoints.hf_folder import REQUIRED_FILES, measure_weights, read_config
from models.checkpoints.locations import WeightLocations
from models.checkpoints.safe_pickle import TensorRef
from models.checkpoints.settings import Settings
from models.checkpoints.torch_file import OPERATOR_LIMITS, open_torch_file, select_tensors
from models.encodec.spec import read_spec
from models.musicgen.catalog import CODEC_BYTES, CODEC_HUB_ID, TEXT_ENCODERS
from models.musicgen.xp_config import CONFIG_CLASSES, read_xp_config

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
CODEC_FOLDER = CODEC_HUB_ID.rpartition("/")[2]  # of a codec that `CODEC_FILE` points to
T5_FILES = (*REQUIRED_FILES, "tokenizer.json|spiece.model")
_MAX_WINDOW_S = 3600
_KINDS = {"t5": "text", "lut": "text", "chroma_stem": "melody"}  # conditioners of audiocraft 1.3

AUDIOCRAFT_LIMITS = replace(OPERATOR_LIMITS, max_index_bytes=8 << 20, max_steps=1_000_000, classes=CONFIG_CLASSES)
"""Of `large` the index has 73 kB and 18,000 opcodes; a pickled configuration adds 14,000."""


@dataclass(frozen=True)
class Package:
    """The dict in one of the checkpoint's files, with a `TensorRef` in place of each tensor."""

    content: Mapping[Any, Any]

    @functools.cached_property
    def settings(self) -> Settings:
        """`xp.cfg`; raises `CheckpointError` if there is none."""
        return Settings(read_xp_config(self.content.get("xp.cfg")))

    @functools.cached_property
    def state(self) -> dict[str, TensorRef]:
        """The tensors of `best_state` by name; raises `CheckpointError` if it has none."""
        if not isinstance(self.content.get("best_state"), Mapping):
            raise CheckpointError("it has no 'best_state'")
        return select_tensors(self.content["best_state"])


@dataclass(frozen=True)
class TextEncoderInfo:
    """A T5 that a conditioner needs.

    Args:
        conditioner: its name in the checkpoint.
        hub_id: its repository.
        folder: its files; None while it has to be downloaded.
    """

    conditioner: str
    hub_id: str
    folder: Path | None


@dataclass(frozen=True)
class CodecInfo:
    """The codec of a checkpoint.

    Args:
        codebooks: of one channel.
        cardinality: codes in each codebook.
        dimension: of the latents.
        hop_length: samples per frame.
        nbytes: of its weights.
        hub_id: its repository if it is in transformers' format; None for audiocraft's own.
        folder: its files if it is in transformers' format; None while it has to be downloaded.
    """

    sample_rate: int
    channels: int
    codebooks: int
    cardinality: int
    dimension: int
    hop_length: int
    nbytes: int
    hub_id: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class CheckpointInfo:
    """What is known of a checkpoint folder, whose parts fit together, before anything is loaded.

    Args:
        folder: with `state_dict.bin` and `compression_state_dict.bin`.
        channels: of the output.
        window: seconds, as trained.
        conditioning: `text`, `melody`.
        codebooks: that the language model predicts at a time, of all channels.
        cardinality: codes in each codebook.
        elements: of the language model's tensors, counted.
    """

    folder: Path
    channels: int
    window: float
    conditioning: tuple[str, ...]
    codebooks: int
    cardinality: int
    elements: int
    text_encoders: tuple[TextEncoderInfo, ...]
    codec: CodecInfo

    @property
    def sample_rate(self) -> int:
        """Of the output, in Hz."""
        return self.codec.sample_rate

    @property
    def is_interleaved(self) -> bool:
        """Whether two channels are encoded by themselves, and their codebooks interleaved."""
        return self.channels > self.codec.channels

    @property
    def to_fetch(self) -> tuple[str, ...]:
        """Hub ids of the parts that have to be downloaded."""
        missing = [encoder.hub_id for encoder in self.text_encoders if encoder.folder is None]
        codec = self.codec
        return (*missing, *([codec.hub_id] if codec.hub_id and codec.folder is None else []))

    def memory_bytes(self, *, weight_bytes: int) -> int:
        """Estimates the memory of the loaded engine, with `weight_bytes` for each of the language model's weights."""
        encoders = [
            measure_weights(encoder.folder) if encoder.folder else TEXT_ENCODERS[encoder.hub_id] * 4_000_000
            for encoder in self.text_encoders
        ]
        return self.elements * weight_bytes + self.codec.nbytes + sum(encoders)


def inspect_checkpoint(folder: Path, weights: WeightLocations) -> CheckpointInfo:
    """Reads what is in `folder`, finds the parts that are elsewhere, and compares them with each other.

    Raises:
        ModelError: a part is missing, broken, carries code, or does not fit the others; the message names it.
    """
    with report_part(folder, LM_FILE):
        package = read_package(folder / LM_FILE)
        settings, state = package.settings, package.state
        conditioners = settings.section("conditioners")
        conditioning = _read_conditioning(conditioners)
        text_encoders = _find_text_encoders(conditioners, folder, weights)
        codebooks = settings.integer("transformer_lm.n_q")
        cardinality = settings.integer("transformer_lm.card")
        window = settings.number("dataset.segment_duration", most=_MAX_WINDOW_S)
        stereo = settings.flag("interleave_stereo_codebooks.use")
        used_codebooks = settings.integer("compression_model_n_q", 0, least=0)
        _check_lm_shapes(settings, state)
    codec = _inspect_codec(folder, weights)
    with report_part(folder, CODEC_FILE):
        made = (used_codebooks or codec.codebooks) * (2 if stereo else 1)
        if (made, codec.cardinality) != (codebooks, cardinality) or (stereo and codec.channels != 1):
            raise CheckpointError(
                f"it makes {made} streams of {codec.cardinality} codes, and {LM_FILE} needs {codebooks} of "
                f"{cardinality}"
            )
    for encoder in text_encoders:
        with report_part(folder, "t5"):
            _check_text_encoder(encoder, state)
    return CheckpointInfo(
        folder=folder,
        channels=2 if stereo else codec.channels,
        window=window,
        conditioning=conditioning,
        codebooks=codebooks,
        cardinality=cardinality,
        elements=sum(tensor.count for tensor in state.values()),
        text_encoders=text_encoders,
        codec=codec,
    )


@dataclass(frozen=True)
class DiffusionInfo:
    """What a file of Multi-Band Diffusion works with: a sample rate in Hz, and the width of a codec's latents."""

    sample_rate: int
    codec_dimension: int


def inspect_diffusion(path: Path) -> DiffusionInfo:
    """Reads which codec the diffusion models in `path` were trained with.

    Raises:
        ModelError: the file is broken or carries code.
    """
    with report_part(path.parent, path.name):
        package = read_package(path)
        band = read_band(package, 0)
        dimension = band.settings.integer("diffusion_unet.codec_dim")
        return DiffusionInfo(Settings(package.content).integer("sample_rate"), dimension)


@dataclass(frozen=True)
class DiffusionBand:
    """The diffusion model of one band, its tensors unread."""

    settings: Settings
    model: dict[str, TensorRef]
    processor: dict[str, TensorRef]


def read_band(package: Package, index: int) -> DiffusionBand:
    """Raises `CheckpointError` if the package holds no such band."""
    band = package.content.get(index)
    if not isinstance(band, Mapping):
        raise CheckpointError(f"it lacks the diffusion model of band {index}")
    settings = Settings(read_xp_config(band.get("cfg")))
    return DiffusionBand(settings, select_tensors(band.get("model_state")), select_tensors(band.get("processor_state")))


def read_package(path: Path) -> Package:
    """Reads one file of a checkpoint, without its tensors.

    Raises:
        UnsafeCheckpointError: its pickle asks for a class that is neither a tensor's nor a setting's.
        CheckpointError: it is missing, broken, or holds no dict.
    """
    try:
        if not path.is_file():
            raise CheckpointError("it is missing")
        status = path.stat()
    except OSError as error:
        raise CheckpointError(f"it cannot be read ({type(error).__name__})") from error
    return _read_package(path, (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=32)
def _read_package(path: Path, version: tuple[int, int, int]) -> Package:
    """Kept while the file stays as it is: one request asks for it several times, at 10 to 30 ms each."""
    with open_torch_file(path, AUDIOCRAFT_LIMITS) as file:
        return check_package(file.content)


def check_package(content: Any) -> Package:
    """Checks that a file's content is a dict."""
    if not isinstance(content, Mapping):
        raise CheckpointError("it holds no dictionary")
    return Package(content)


@contextmanager
def report_part(folder: Path, part: str) -> Iterator[None]:
    """Raises `ModelError`, which names the checkpoint and the part, in place of a `CheckpointError` inside."""
    # A snapshot in a hub cache is named after its repository.
    label = folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name
    try:
        yield
    except UnsafeCheckpointError as error:
        raise ModelError(
            f"The checkpoint '{label}' is refused: its {part} carries code ({error.name}), and only tensors and "
            "settings are loaded. Export it again with audiocraft.utils.export.",
            code=ErrorCode.UNSAFE_CHECKPOINT,
            details={"part": part},
        ) from error
    except CheckpointError as error:
        raise broken_checkpoint(
            f"The part {part} of the checkpoint '{label}'",
            str(error),
            "Download or export it again.",
            details={"part": part},
        ) from error


def _read_conditioning(conditioners: Settings) -> tuple[str, ...]:
    conditioning = []
    for name in conditioners:
        if name == "args":
            continue
        kind = conditioners.text(f"{name}.model")
        if kind not in _KINDS:
            raise CheckpointError(
                f"its conditioner '{sanitize(name)}' is of the kind '{sanitize(kind)}', and those that run here are of "
                f"the kinds {', '.join(_KINDS)}"
            )
        if kind == "chroma_stem" and name != "self_wav":
            raise CheckpointError(f"its melody conditioner is called '{sanitize(name)}', not 'self_wav'")
        conditioning.append(_KINDS[kind])
    return tuple(dict.fromkeys(conditioning))


def _find_text_encoders(conditioners: Settings, folder: Path, weights: WeightLocations) -> tuple[TextEncoderInfo, ...]:
    found = []
    for conditioner in conditioners:
        if conditioners.get(f"{conditioner}.model") == "t5":
            # The name goes to the hub and into messages, so it has to be one that is known.
            given = conditioners.text(f"{conditioner}.t5.name")
            hub_id = given.removeprefix("google-t5/")
            if hub_id not in TEXT_ENCODERS:
                raise CheckpointError(
                    f"its conditioner '{sanitize(conditioner)}' names the text encoder '{sanitize(given)}', and those "
                    f"that are loaded are {', '.join(TEXT_ENCODERS)}"
                )
            name = hub_id.rpartition("/")[2]
            beside = WeightLocations(folders=(folder,)).find(("t5", name), (), T5_FILES)
            place = beside or weights.find((name,), (hub_id, f"google-t5/{hub_id}"), T5_FILES)
            found.append(TextEncoderInfo(conditioner, hub_id, place))
    return tuple(found)


def _inspect_codec(folder: Path, weights: WeightLocations) -> CodecInfo:
    with report_part(folder, CODEC_FILE):
        package = read_package(folder / CODEC_FILE)
        hub_id = package.content.get("pretrained")
        if hub_id is None:
            settings = package.settings
            return CodecInfo(
                sample_rate=settings.integer("encodec.sample_rate"),
                channels=settings.integer("encodec.channels"),
                codebooks=settings.integer("rvq.n_q"),
                cardinality=settings.integer("rvq.bins"),
                dimension=settings.integer("seanet.dimension"),
                hop_length=math.prod(settings.integers("seanet.ratios")),
                nbytes=sum(tensor.nbytes for tensor in package.state.values()),
            )
        if hub_id != CODEC_HUB_ID:
            raise CheckpointError(f"it points to a codec other than {CODEC_HUB_ID}, which is not loaded here")
    place = WeightLocations(folders=(folder, folder.parent)).find((CODEC_FOLDER,), (), REQUIRED_FILES)
    place = place or weights.find((CODEC_FOLDER,), (CODEC_HUB_ID,), REQUIRED_FILES)
    if place is None:  # as published
        return CodecInfo(32_000, 1, 4, 2048, 128, 640, CODEC_BYTES, hub_id=CODEC_HUB_ID)
    with report_part(folder, CODEC_FOLDER):
        return _inspect_hub_codec(place)


def _inspect_hub_codec(folder: Path) -> CodecInfo:
    """Reads the settings of transformers' EnCodec."""
    config = read_config(folder)
    spec = read_spec(config)
    if spec.segments is not None:
        raise CheckpointError("it encodes audio in segments, which the codec of a language model does not")
    return CodecInfo(
        sample_rate=spec.sample_rate,
        channels=spec.channels,
        codebooks=spec.codebooks,
        cardinality=spec.cardinality,
        dimension=config.integer("hidden_size"),
        hop_length=spec.hop_length,
        nbytes=measure_weights(folder),
        hub_id=CODEC_HUB_ID,
        folder=folder,
    )


def _check_lm_shapes(settings: Settings, state: Mapping[str, TensorRef]) -> None:
    dim, layers = settings.integer("transformer_lm.dim"), settings.integer("transformer_lm.num_layers")
    codebooks, cardinality = settings.integer("transformer_lm.n_q"), settings.integer("transformer_lm.card")
    for codebook in range(codebooks):
        for name, rows in ((f"emb.{codebook}.weight", cardinality + 1), (f"linears.{codebook}.weight", cardinality)):
            tensor = state.get(name)
            if tensor is None or tensor.shape != (rows, dim):
                found = "absent" if tensor is None else list(tensor.shape)
                raise CheckpointError(f"'{name}' should be {[rows, dim]} by its settings, and is {found}")
    if f"transformer.layers.{layers - 1}.norm1.weight" not in state or f"emb.{codebooks}.weight" in state:
        raise CheckpointError("its tensors are of another shape of model than its settings")


def _check_text_encoder(encoder: TextEncoderInfo, state: Mapping[str, TensorRef]) -> None:
    if encoder.folder is None:
        return
    width = read_config(encoder.folder).integer("d_model")
    projection = state.get(f"condition_provider.conditioners.{encoder.conditioner}.output_proj.weight")
    needed = projection.shape[-1] if projection is not None and projection.shape else None
    if width != needed:
        raise CheckpointError(f"it is {width} wide, and {LM_FILE} needs {needed} ({encoder.hub_id})")
