"""What the folders of an ACE-Step model hold: sizes, and every tensor by its network. Reads headers, without torch.

Both layouts give the same: the original one (one folder of weights, with key names of its own; the VAE and the text
encoder beside it), and diffusers' (a folder for each network).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from errors import ErrorCode, ModelError, sanitize
from models.acestep.config import (
    NetworkConfig,
    TextEncoderConfig,
    VaeConfig,
    read_network_config,
    read_text_encoder_config,
    read_vae_config,
)
from models.checkpoints.errors import CheckpointError, UnsafeCheckpointError, broken_checkpoint
from models.checkpoints.hf_folder import CONFIG_FILE, TOKENIZER_FILE, read_config
from models.checkpoints.safe_pickle import TensorRef
from models.checkpoints.safetensors_shards import (
    StoredTensor,
    Tensors,
    check_shapes,
    count_elements,
    find_tensors,
    list_weight_files,
)
from models.checkpoints.settings import Settings
from models.checkpoints.torch_file import FileLimits, TorchFile, open_torch_file
from models.checkpoints.weight_norm import use_old_names

Layout = Literal["original", "diffusers"]

MODEL_STEM: Final = "model"  # of weights in the original layout, and of a text encoder
PART_STEM: Final = "diffusion_pytorch_model"  # of weights of a network as diffusers stores it
SILENCE_FILE: Final = "silence_latent.pt"
SILENCE_TENSOR: Final = "silence_latent"
INDEX_FILE: Final = "model_index.json"
SILENCE_FRAMES: Final = 15_000  # 600 s, the longest song
SILENCE_LIMITS: Final = FileLimits(max_bytes=64 << 20, max_entries=64, max_index_bytes=1 << 16, max_steps=1000)

NETWORKS: Final = ("transformer", "condition_encoder", "audio_tokenizer", "audio_token_detokenizer")
_TOKENIZERS: Final = NETWORKS[2:]

_PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "decoder.": "transformer",
        "encoder.": "condition_encoder",
        "tokenizer.": "audio_tokenizer",
        "detokenizer.": "audio_token_detokenizer",
    }
)
_RENAMES: Mapping[str, str] = MappingProxyType(
    {
        ".q_proj.": ".to_q.",
        ".k_proj.": ".to_k.",
        ".v_proj.": ".to_v.",
        ".o_proj.": ".to_out.0.",
        ".q_norm.": ".norm_q.",
        ".k_norm.": ".norm_k.",
        "proj_in.1.": "proj_in_conv.",
        "proj_out.1.": "proj_out_conv.",
    }
)
"""ACE-Step's names of tensors, and diffusers' (scripts/convert_ace_step_to_diffusers.py)."""


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """Where the parts of a model are.

    Args:
        model: the folder of the diffusion transformer, or of everything in diffusers' layout.
        layout: of `model`.
        vae, text_encoder: None: not on this machine.
    """

    model: Path
    layout: Layout
    vae: Path | None
    text_encoder: Path | None

    @property
    def label(self) -> str:
        """The model's name for messages; a snapshot in a hub cache is named after its repository."""
        for folder in (self.model, self.model.parent):
            if folder.parent.name == "snapshots":
                return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        return self.model.name

    @property
    def tokenizer(self) -> Path | None:
        """The text encoder's tokenizer file."""
        if self.layout == "diffusers":
            return self.model / "tokenizer" / TOKENIZER_FILE
        return self.text_encoder / TOKENIZER_FILE if self.text_encoder else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """The networks of one checkpoint, whose sizes and tensors fit together.

    Args:
        folders: where it is.
        config: the sizes.
        tensors: by network, then by diffusers' names. Without an audio tokenizer there are two networks.
        silence: the file with the latents of silence; None: they are a tensor of the condition encoder.
    """

    folders: ModelFolders
    config: NetworkConfig
    tensors: Mapping[str, Tensors]
    silence: Path | None

    @property
    def takes_codes(self) -> bool:
        """Whether there is an audio tokenizer, which covers and audio codes need."""
        return set(_TOKENIZERS) <= self.tensors.keys()

    @property
    def elements(self) -> int:
        """Number of values in all tensors, with the silence."""
        silence = SILENCE_FRAMES * self.config.latent_channels if self.silence else 0
        return silence + sum(count_elements(tensors) for tensors in self.tensors.values())


@dataclass(frozen=True, slots=True)
class VaePart:
    """The audio VAE."""

    config: VaeConfig
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class TextEncoderPart:
    """The text encoder; `tokenizer`: its `tokenizer.json`."""

    config: TextEncoderConfig
    tensors: Tensors
    tokenizer: Path


def find_layout(folder: Path) -> Layout | None:
    """Returns the layout of an ACE-Step model, intact or not; None if the folder holds something else."""
    if (folder / INDEX_FILE).is_file():
        return "diffusers" if _read_text(folder / INDEX_FILE, "_class_name") == "AceStepPipeline" else None
    if (folder / SILENCE_FILE).is_file() or _read_text(folder / CONFIG_FILE, "model_type") == "acestep":
        return "original"
    return None


def holds_vae(folder: Path) -> bool:
    """Whether a folder holds an audio VAE, intact or not."""
    return _read_text(folder / CONFIG_FILE, "_class_name") == "AutoencoderOobleck"


def list_missing_files(folders: ModelFolders) -> tuple[str, ...]:
    """Returns the files that the model's own folder lacks; raises `ModelError` if an index of shards is broken."""
    folder = folders.model
    if folders.layout == "original":
        with report_part(folders, CONFIG_FILE):
            needed = [CONFIG_FILE, SILENCE_FILE, *list_weight_files(folder, MODEL_STEM)]
        return _list_absent(folder, needed)
    networks = [*NETWORKS[:2], *(name for name in _TOKENIZERS if (folder / name).is_dir()), "vae"]
    needed = [f"tokenizer/{TOKENIZER_FILE}"]
    for part, stem in (*((name, PART_STEM) for name in networks), ("text_encoder", MODEL_STEM)):
        with report_part(folders, part):
            needed += [f"{part}/{file}" for file in (CONFIG_FILE, *list_weight_files(folder / part, stem))]
    return _list_absent(folder, needed)


def read_model(folders: ModelFolders) -> ModelPart:
    """Reads what the model's own folder holds.

    Raises:
        ModelError: a file is missing, broken or carries code, or the sizes do not fit the tensors.
    """
    if folders.layout == "original":
        config, tensors = _read_original(folders)
    else:
        config, tensors = _read_diffusers(folders)
    with report_part(folders, "weights"):
        for network, shapes in _list_expected_shapes(config).items():
            if network in tensors:
                check_shapes(tensors[network], shapes, network)
        for network, prefix, layers in (
            ("transformer", "layers.", config.num_layers),
            ("condition_encoder", "lyric_encoder.layers.", config.num_lyric_layers),
            ("condition_encoder", "timbre_encoder.layers.", config.num_timbre_layers),
        ):
            if any(name.startswith(f"{prefix}{layers}.") for name in tensors[network]):
                raise CheckpointError(f"its {network} has more layers than the {layers} that {CONFIG_FILE} states")
    silence = folders.model / SILENCE_FILE if folders.layout == "original" else None
    with report_part(folders, SILENCE_FILE if silence else "condition_encoder"):
        _check_silence(config, silence, tensors["condition_encoder"])
    return ModelPart(folders=folders, config=config, tensors=tensors, silence=silence)


def check_silence_file(file: TorchFile) -> TensorRef:
    """Returns the tensor `[1, C, T]` of `silence_latent.pt`; raises `CheckpointError` if it holds anything else."""
    content = file.content
    if not isinstance(content, TensorRef) or len(content.shape) != 3 or content.shape[0] != 1:  # noqa: PLR2004
        raise CheckpointError("it is not one tensor of three dimensions, the first of them 1")
    if not content.dense:
        raise CheckpointError("its tensor is not contiguous; save it with .contiguous()")
    return content


def read_vae(folders: ModelFolders, config: NetworkConfig) -> VaePart:
    """Reads what the VAE's folder holds; raises `ModelError` as `read_model`."""
    assert folders.vae is not None, "the VAE has to be downloaded before it is read"
    with report_part(folders, "vae"):
        vae = read_vae_config(read_config(folders.vae), config)
        tensors = use_old_names(find_tensors(folders.vae, PART_STEM))
        wide = vae.decoder_channels * vae.channel_multiples[-1]
        shapes = {
            "decoder.conv1.weight_v": (wide, vae.latent_channels, 7),
            "encoder.conv1.weight_v": (vae.encoder_hidden_size, 2, 7),
        }
        check_shapes(tensors, shapes, "vae")
        return VaePart(vae, tensors)


def read_text_encoder(folders: ModelFolders, config: NetworkConfig) -> TextEncoderPart:
    """Reads what the text encoder's folder holds; raises `ModelError` as `read_model`."""
    assert folders.text_encoder is not None, "the text encoder has to be downloaded before it is read"
    assert folders.tokenizer is not None
    with report_part(folders, folders.text_encoder.name):
        text = read_text_encoder_config(read_config(folders.text_encoder), config)
        stored = find_tensors(folders.text_encoder, MODEL_STEM)
        tensors = {
            name.removeprefix("model."): tensor for name, tensor in stored.items() if not name.startswith("lm_head.")
        }
        widths, last = text.widths, text.num_layers - 1
        shapes = {
            "embed_tokens.weight": (text.vocab_size, widths.hidden_size),
            f"layers.{last}.mlp.gate_proj.weight": (widths.intermediate_size, widths.hidden_size),
            f"layers.{last}.self_attn.q_proj.weight": (widths.num_heads * text.head_dim, widths.hidden_size),
        }
        check_shapes(tensors, shapes, "text encoder")
        if not folders.tokenizer.is_file():
            raise CheckpointError(f"its {TOKENIZER_FILE} is missing")
        return TextEncoderPart(text, tensors, folders.tokenizer)


@contextmanager
def report_part(folders: ModelFolders, part: str) -> Iterator[None]:
    """Raises `ModelError`, which names the model and the part, in place of a `CheckpointError` inside."""
    label = sanitize(folders.label)
    try:
        yield
    except UnsafeCheckpointError as error:
        raise ModelError(
            f"The ACE-Step model '{label}' is refused: its {part} carries code ({error.name}), and only tensors are "
            "loaded. Download it again from its publisher.",
            code=ErrorCode.UNSAFE_CHECKPOINT,
            details={"part": part},
        ) from error
    except CheckpointError as error:
        raise broken_checkpoint(
            f"The part {part} of the ACE-Step model '{label}'",
            str(error),
            "Download or copy it again.",
            details={"part": part},
        ) from error


def _read_original(folders: ModelFolders) -> tuple[NetworkConfig, dict[str, Tensors]]:
    with report_part(folders, CONFIG_FILE):
        config = read_network_config(read_config(folders.model))
    with report_part(folders, "weights"):
        networks: dict[str, dict[str, StoredTensor]] = {name: {} for name in NETWORKS}
        for name, tensor in find_tensors(folders.model, MODEL_STEM).items():
            prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
            if prefix is not None:
                networks[_PREFIXES[prefix]][_rename(name.removeprefix(prefix))] = tensor
            elif name == "null_condition_emb":
                networks["condition_encoder"][name] = tensor
            else:
                raise CheckpointError(f"it holds '{sanitize(name)}', which no network of ACE-Step has")
        return config, dict(networks)


def _check_silence(config: NetworkConfig, path: Path | None, encoder: Tensors) -> None:
    """Checks the latents of silence: `[1, C, T]` in a file, or `[1, T, C]` among the condition encoder's tensors."""
    if path is None:
        check_shapes(encoder, {SILENCE_TENSOR: (1, SILENCE_FRAMES, config.latent_channels)}, "condition encoder")
        return
    with open_torch_file(path, SILENCE_LIMITS) as file:
        _, channels, frames = check_silence_file(file).shape
    if channels != config.latent_channels or frames < SILENCE_FRAMES:
        raise CheckpointError(
            f"it holds {frames} latents of silence with {channels} channels, and at least {SILENCE_FRAMES} with "
            f"{config.latent_channels} are needed"
        )


def _rename(name: str) -> str:
    for old, new in _RENAMES.items():
        name = name.replace(old, new)
    return name


def _read_diffusers(folders: ModelFolders) -> tuple[NetworkConfig, dict[str, Tensors]]:
    folder = folders.model
    parts = [*NETWORKS[:2], *(name for name in _TOKENIZERS if (folder / name).is_dir())]
    configs: dict[str, Settings] = {}
    tensors: dict[str, Tensors] = {}
    for part in parts:
        with report_part(folders, part):
            configs[part] = read_config(folder / part)
            tensors[part] = find_tensors(folder / part, PART_STEM)
    with report_part(folders, CONFIG_FILE):
        return read_network_config(_merge_configs(configs)), tensors


def _merge_configs(configs: Mapping[str, Settings]) -> Settings:
    """Returns the settings of the original layout that the networks' own settings amount to."""
    transformer, encoder = configs["transformer"].values, configs["condition_encoder"].values
    for part in configs.values():
        for key in ("head_dim", "rope_theta", "rms_norm_eps", "sliding_window", "attention_bias"):
            if part.get(key) != transformer.get(key):
                raise CheckpointError(f"its networks state different values of '{key}'")
    merged: dict[str, Any] = {**transformer}
    for part in configs.values():
        merged |= {key: value for key, value in part.values.items() if key not in merged}
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        if any(configs[name].get(key) != encoder.get(key) for name in _TOKENIZERS if name in configs):
            raise CheckpointError(f"its networks state different values of '{key}'")
        merged[f"encoder_{key}"] = encoder.get(key)
    return Settings(merged, file=CONFIG_FILE)


def _list_expected_shapes(config: NetworkConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns shapes of tensors in which every size of the configuration stands.

    All other tensors are compared with the networks when a model is loaded.
    """
    hidden, encoder = config.transformer.hidden_size, config.encoder.hidden_size
    queries, keys = (
        count * config.head_dim for count in (config.transformer.num_heads, config.transformer.num_kv_heads)
    )
    wide = config.encoder.intermediate_size
    heads = (config.encoder.num_heads * config.head_dim, encoder)
    pooler = f"layers.{config.num_pooler_layers - 1}.self_attn.to_q.weight"
    return {
        "transformer": {
            "proj_in_conv.weight": (hidden, 3 * config.latent_channels, config.patch_size),
            "condition_embedder.weight": (hidden, encoder),
            "layers.0.mlp.gate_proj.weight": (config.transformer.intermediate_size, hidden),
            f"layers.{config.num_layers - 1}.self_attn.to_q.weight": (queries, hidden),
            f"layers.{config.num_layers - 1}.self_attn.to_k.weight": (keys, hidden),
        },
        "condition_encoder": {
            "null_condition_emb": (1, 1, encoder),
            "text_projector.weight": (encoder, config.text_hidden_size),
            "timbre_encoder.special_token": (1, 1, encoder),
            "timbre_encoder.embed_tokens.weight": (encoder, config.latent_channels),
            f"lyric_encoder.layers.{config.num_lyric_layers - 1}.mlp.gate_proj.weight": (wide, encoder),
            f"timbre_encoder.layers.{config.num_timbre_layers - 1}.self_attn.to_q.weight": heads,
        },
        "audio_tokenizer": {
            "quantizer.project_in.weight": (len(config.fsq_levels), config.fsq_dim),
            f"attention_pooler.{pooler}": heads,
        },
        "audio_token_detokenizer": {"special_tokens": (1, config.pool_window_size, encoder), pooler: heads},
    }


def _list_absent(folder: Path, files: list[str]) -> tuple[str, ...]:
    return tuple(file for file in files if not (folder / file).is_file())


def _read_text(path: Path, key: str) -> str:
    """Returns a text at the top of a JSON file; empty if it cannot be had."""
    try:
        with path.open(encoding="utf-8") as file:
            content = json.loads(file.read(1 << 20))
    except (OSError, ValueError, RecursionError):
        return ""
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, str) else ""
