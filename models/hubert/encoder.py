"""Content features of a voice: HuBERT-base with ContentVec's weights, on the layers of transformers' `HubertModel`.

v1 voices take the output of the ninth layer, so the layers are run here and not by transformers' `forward`. The demo's
encoder is a smaller HuBERT, whose final projection gives the 768 features that v2 voices take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from errors import ErrorCode, ModelError
from models.checkpoints.errors import CheckpointError, report_broken
from models.checkpoints.hf_folder import find_weights, read_config
from models.checkpoints.tensor_loader import read_tensors
from models.checkpoints.weight_norm import fold_weight_norm
from models.device import prepare_device
from models.runtime.dtype import HUBERT, inference_dtype

MIN_SAMPLES = 400  # at 16 kHz: what one frame is computed from; frames start every 320 samples
LAYERS = 12  # of a HuBERT-base
WIDTHS = {"v1": 256, "v2": 768}  # of the features that voices take
_V1_LAYER = 9
_MAX_LAYERS = 48
_FIRST_STRIDE = (5, 2, 2, 2, 2, 2, 2)
_GROUPS = 16
_HEAD_WIDTH = 64
_BLOCK_FRAMES = 1 << 13  # of the first layer; with 8 waveforms 134 MB in float32

# fairseq's names (also those of ContentVec's own file) -> transformers'.
# huggingface/transformers: models/hubert/convert_hubert_original_pytorch_checkpoint_to_pytorch.py
_NAMES = (
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.0)\.2\.", r"\1.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"^(encoder\.layers\.\d+)\.self_attn\.", r"\1.attention."),
    (r"^(encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.layer_norm."),
    (r"^(encoder\.layers\.\d+)\.fc1\.", r"\1.feed_forward.intermediate_dense."),
    (r"^(encoder\.layers\.\d+)\.fc2\.", r"\1.feed_forward.output_dense."),
    (r"^hubert\.", ""),
)
_POSITION = "encoder.pos_conv_embed.conv.weight"
SUBJECT = "The HuBERT weights"
REMEDY = (
    "The content encoder of voices is a HuBERT-base: put RVC's hubert_base.pt, or the files of "
    "lengyue233/content-vec-best, into MODELS_DIR; another encoder's files into the folder with its name."
)


class ContentEncoder:
    """A loaded HuBERT.

    Args:
        state: weights by transformers' names, with `final_proj.*` if the file has it.
        num_layers: that the network has; a HuBERT-base has 12.
        device: torch device name.
        precision: of the layers; None chooses by device.

    Raises:
        ModelError: the weights are not those of such a HuBERT, or give none of the features that voices take.
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        *,
        num_layers: int = LAYERS,
        device: str = "cpu",
        precision: torch.dtype | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = precision or inference_dtype(HUBERT, self.device)
        with report_broken(SUBJECT, REMEDY):
            self._projection = _build_final_projection(state)
            self._model = _build(state, num_layers)
            width = self._model.config.hidden_size
            if self._projection and self._projection.in_features != width:
                raise CheckpointError("its final projection does not fit its layers")
            projected = self._projection.out_features if self._projection else 0
            if WIDTHS["v2"] not in (width, projected):
                raise CheckpointError(f"it gives {width} features, and voices take {WIDTHS['v2']}")
        self._projects_v2 = width != WIDTHS["v2"]
        self._serves_v1 = projected == WIDTHS["v1"] and num_layers >= _V1_LAYER
        self._model.feature_extractor = FeatureEncoder(self._model.feature_extractor, self.dtype)
        for module in (self._model, self._projection):
            if module is not None:
                module.eval().requires_grad_(False).to(self.device)
        self._model.encoder.to(self.dtype)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights."""
        modules = [module for module in (self._model, self._projection) if module is not None]
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        return sum(tensor.nbytes for tensor in tensors)

    def warm_up(self) -> None:
        """Extracts the features of a second of silence."""
        self.extract_features(torch.zeros(16_000), version="v2")

    @torch.inference_mode()
    def extract_features(self, waveform: torch.Tensor, *, version: str) -> torch.Tensor:
        """Content features at 50 frames/s; frame i is computed from the samples 320 i to 320 i + 400.

        Args:
            waveform: `[T]` or `[B, T]` at 16 kHz, float32, at least 400 samples.
            version: of the voice: `v1` (layer 9, projected to 256) or `v2` (the last layer, projected if its width is
                not 768).

        Returns:
            `[T', 256 or 768]` or `[B, T', 256 or 768]` float32 on the encoder's device, T' = (T - 400) // 320 + 1.

        Raises:
            ModelError: the version is v1 and this HuBERT has no final projection to 256.
        """
        assert waveform.ndim in (1, 2), f"the waveform is [T] or [B, T], not {list(waveform.shape)}"
        assert waveform.shape[-1] >= MIN_SAMPLES, f"HuBERT needs {MIN_SAMPLES} samples, not {waveform.shape[-1]}"
        if version == "v1" and not self._serves_v1:
            raise ModelError(
                "Voices of version v1 need a HuBERT with its final projection, and the installed one has none. Put "
                "RVC's hubert_base.pt into MODELS_DIR.",
                code=ErrorCode.MODEL_INCOMPLETE,
            )
        count = _V1_LAYER if version == "v1" else None
        hidden = self._run_layers(waveform.to(self.device, torch.float32).view(-1, waveform.shape[-1]), count)
        if self._projection is not None and (version == "v1" or self._projects_v2):
            hidden = self._projection(hidden)
        return hidden if waveform.ndim == 2 else hidden[0]

    def _run_layers(self, waveforms: torch.Tensor, num_layers: int | None) -> torch.Tensor:
        model = self._model
        hidden: torch.Tensor = model.feature_projection(model.feature_extractor(waveforms).float()).to(self.dtype)
        hidden = model.encoder.layer_norm(hidden + model.encoder.pos_conv_embed(hidden))
        for layer in model.encoder.layers[:num_layers]:
            hidden = layer(hidden, attention_mask=None)
        return hidden.float()


class FeatureEncoder(nn.Module):
    """transformers' `HubertFeatureEncoder` (group norm) in a faster form: waveform to features at 50 frames/s.

    The first layer's norm over time follows from the covariance of the 10 samples that its kernel sees, so the norm is
    folded into the kernel, and the layer's large output is written once. The other layers are convolutions over
    `[B, C, 1, T]` with channels last.

    Args:
        reference: transformers' module.
        dtype: of all layers but the first, which runs in float32.
    """

    kernel: torch.Tensor

    def __init__(self, reference: Any, dtype: torch.dtype) -> None:
        super().__init__()
        first, *others = reference.conv_layers
        self.dtype = dtype
        self.norm = first.layer_norm
        self.register_buffer("kernel", first.conv.weight[:, 0].detach().float())
        self.first_stride = int(first.conv.stride[0])
        self.strides = [int(layer.conv.stride[0]) for layer in others]
        for number, layer in enumerate(others):
            weight = layer.conv.weight.detach()[:, :, None].to(dtype)
            self.register_buffer(f"weight_{number}", weight.contiguous(memory_format=torch.channels_last))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """`[B, T]` at 16 kHz -> `[B, T', C]`."""
        x = self._run_first_layer(waveform.unfold(-1, self.kernel.shape[1], self.first_stride))
        x = x[:, None].permute(0, 3, 1, 2)
        for number, stride in enumerate(self.strides):
            x = F.gelu(F.conv2d(x, self.get_buffer(f"weight_{number}"), stride=(1, stride)))
        return x[:, :, 0].transpose(1, 2)

    def _run_first_layer(self, windows: torch.Tensor) -> torch.Tensor:
        """`[B, T, K]` -> `[B, T, C]`, 40 times as large as the waveform.

        In reduced precision it is computed in blocks, so that the result never exists in float32 as a whole.
        """
        weight, bias = self._fold_norm(windows)
        weight = weight.transpose(1, 2)
        if self.dtype == torch.float32:
            return F.gelu(torch.baddbmm(bias, windows, weight))
        result = torch.empty(*windows.shape[:2], weight.shape[2], dtype=self.dtype, device=windows.device)
        for part, block in zip(*(torch.split(x, _BLOCK_FRAMES, dim=1) for x in (result, windows)), strict=True):
            part.copy_(F.gelu(torch.baddbmm(bias, block, weight).to(self.dtype)))
        return result

    def _fold_norm(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The kernel `[B, C, K]` and bias `[B, 1, C]` that give the first layer's normalized output."""
        # In float64, because neighbouring samples are nearly equal and kernels take their differences.
        exact = torch.float32 if windows.device.type == "mps" else torch.float64
        kernel, samples = self.kernel.to(exact), windows.to(exact)
        centre = samples.mean(1, keepdim=True)
        deviations = samples - centre
        covariance = deviations.transpose(1, 2) @ deviations / windows.shape[1]
        variance = ((kernel @ covariance) * kernel).sum(-1)
        scale = (self.norm.weight / torch.sqrt(variance + self.norm.eps)).float()
        bias = self.norm.bias - (centre @ kernel.T)[:, 0].float() * scale
        return self.kernel * scale[..., None], bias[:, None]


def load_encoder(path: Path, *, device: str) -> ContentEncoder:
    """Loads fairseq's file `path` (`hubert_base.pt`), or the Hugging Face folder `path`.

    Raises:
        ModelError: the weights are broken, or not those of a HuBERT-base.
    """
    prepare_device(device)
    if path.is_dir():
        state, num_layers = read_folder(path)
        return ContentEncoder(state, num_layers=num_layers, device=device)
    return ContentEncoder(read_fairseq(path), device=device)


def read_fairseq(path: Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a fairseq file, by transformers' names; its pickled classes are not imported."""
    with report_broken(SUBJECT, REMEDY):
        return _rename(read_tensors(path))


def read_folder(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Reads a Hugging Face folder: the weights by transformers' names, and the number of layers.

    Raises:
        ModelError: `config.json` or the weights are missing or broken, or of another architecture.
    """
    with report_broken(SUBJECT, REMEDY):
        config = read_config(path)
        if config.get("do_stable_layer_norm") or config.get("feat_extract_norm") not in (None, "group"):
            raise CheckpointError("its config.json describes another architecture")
        num_layers = config.integer("num_hidden_layers", LAYERS, most=_MAX_LAYERS)
        return _rename(read_tensors(find_weights(path))), num_layers


def _rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for given, tensor in state.items():
        name = given
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _build(state: Mapping[str, torch.Tensor], num_layers: int) -> Any:
    """transformers' `HubertModel` with these weights, in float32, weight norm folded; as large as the weights are."""
    from transformers import HubertConfig, HubertModel

    weights = {name: tensor.float() for name, tensor in fold_weight_norm(state).items()}
    settings: dict[str, Any] = {"apply_spec_augment": False, "attn_implementation": "sdpa"}
    config = HubertConfig(**_read_sizes(weights), num_hidden_layers=num_layers, **settings)
    with torch.device("meta"):
        model: Any = HubertModel(config)
    nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    wanted = {name: like for name, like in model.state_dict().items() if name != "masked_spec_embed"}
    wrong = [name for name, like in wanted.items() if name not in weights or weights[name].shape != like.shape]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of its {len(wanted)} tensors are missing or of another shape, the first is {wrong[0]}"
        )
    model.masked_spec_embed = None  # of training
    model.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    return model


def _read_sizes(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Reads the sizes of the network from the shapes of its tensors; `CheckpointError` if they are not HuBERT's."""
    kernels = [_read_shape(weights, f"feature_extractor.conv_layers.{layer}.conv.weight", 3) for layer in range(7)]
    inner, width = _read_shape(weights, "encoder.layers.0.feed_forward.intermediate_dense.weight", 2)
    if width % _HEAD_WIDTH:
        raise CheckpointError("its tensors are not those of HuBERT")
    return {
        "conv_dim": [shape[0] for shape in kernels],
        "conv_kernel": [shape[2] for shape in kernels],
        "conv_stride": list(_FIRST_STRIDE),
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": width // _HEAD_WIDTH,
        "num_conv_pos_embeddings": _read_shape(weights, _POSITION, 3)[2],
        "num_conv_pos_embedding_groups": _GROUPS,
    }


def _read_shape(weights: Mapping[str, torch.Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    tensor = weights.get(name)
    if tensor is None or tensor.ndim != dimensions or 0 in tensor.shape:
        raise CheckpointError("its tensors are not those of HuBERT")
    return tuple(tensor.shape)


def _build_final_projection(state: Mapping[str, torch.Tensor]) -> nn.Linear | None:
    if "final_proj.weight" not in state or "final_proj.bias" not in state:
        return None
    outer, inner = _read_shape(state, "final_proj.weight", 2)
    if _read_shape(state, "final_proj.bias", 1) != (outer,):
        raise CheckpointError("its tensors are not those of HuBERT")
    weight, bias = state["final_proj.weight"].float(), state["final_proj.bias"].float()
    layer = nn.Linear(inner, outer, device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer
