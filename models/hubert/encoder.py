"""What is sung, without who sings it: HuBERT's features (ContentVec's weights), by transformers' `HubertModel`.

The layers are transformers'; the loop over them is ours, because v1 voices want the ninth layer and nothing after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from errors import ErrorCode, ModelError
from models.checkpoints.hf_folder import PICKLE_FILE, SAFE_FILE, read_safetensors, read_settings
from models.hubert.layers import FrontEnd

SAMPLE_RATE: Final = 16_000
STRIDE: Final = 320
REACH: Final = 400  # samples that one frame is made of
LAYERS: Final = {"v1": 9, "v2": 12}
_FIRST_STRIDE: Final = (5, 2, 2, 2, 2, 2, 2)
_GROUPS: Final = 16
_HEAD_WIDTH: Final = 64

# fairseq's names (also those of ContentVec's own file) -> transformers'.
# huggingface/transformers: models/hubert/convert_hubert_original_pytorch_checkpoint_to_pytorch.py
_NAMES: Final = (
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
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)
_POSITION: Final = "encoder.pos_conv_embed.conv.weight"


class ContentEncoder:
    """A loaded HuBERT-base.

    Args:
        state: weights by transformers' names, `final_proj.*` among them where the file has it.
        device: as torch names it.
        precision: None: float16 on CUDA, as RVC has always run it there, else float32.
    """

    def __init__(
        self, state: Mapping[str, Tensor], *, device: str = "cpu", precision: torch.dtype | None = None
    ) -> None:
        self.device = torch.device(device)
        self.dtype = precision or _own_choice(self.device)
        self._projection = _final_projection(state)
        self._model = _build(state)
        self._model.feature_extractor = FrontEnd(self._model.feature_extractor, self.dtype)
        for module in (self._model, self._projection):
            if module is not None:
                module.eval().requires_grad_(False).to(self.device)
        self._model.encoder.to(self.dtype)

    @property
    def memory_bytes(self) -> int:
        """What the weights hold."""
        modules = [module for module in (self._model, self._projection) if module is not None]
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        return sum(tensor.nbytes for tensor in tensors)

    @torch.inference_mode()
    def features(self, waveform: Tensor, *, version: str) -> Tensor:
        """Content of the sound, 50 frames/s; frame i is made of samples 320 i to 320 i + 400.

        Args:
            waveform: `[T]` or `[B, T]` at 16 kHz, float32, at least 400 samples.
            version: of the voice: `v1` (layer 9, projected to 256) or `v2` (layer 12).

        Returns:
            `[T', 256 or 768]` or `[B, T', 256 or 768]` float32 on the encoder's device, T' = (T - 400) // 320 + 1.

        Raises:
            ModelError: a v1 voice, and this HuBERT has no final projection.
        """
        if version == "v1" and self._projection is None:
            raise ModelError(
                "Voices of version v1 need a HuBERT with its final projection, and the one here has none. Put "
                "hubert_base.pt into MODELS_DIR.",
                code=ErrorCode.MODEL_INCOMPLETE,
            )
        hidden = self._hidden(waveform.to(self.device, torch.float32).view(-1, waveform.shape[-1]), LAYERS[version])
        if version == "v1" and self._projection is not None:
            hidden = self._projection(hidden)
        return hidden if waveform.ndim == 2 else hidden[0]

    def _hidden(self, batch: Tensor, layers: int) -> Tensor:
        model = self._model
        hidden: Tensor = model.feature_projection(model.feature_extractor(batch).float()).to(self.dtype)
        hidden = model.encoder.layer_norm(hidden + model.encoder.pos_conv_embed(hidden))
        for layer in model.encoder.layers[:layers]:
            hidden = layer(hidden, attention_mask=None)
        return hidden.float()


def load_encoder(path: Path, *, device: str) -> ContentEncoder:
    """The encoder in fairseq's file `path` (`hubert_base.pt`), or in the Hugging Face folder `path`.

    Raises:
        ModelError: the file is broken, or no HuBERT-base.
    """
    return ContentEncoder(read_folder(path) if path.is_dir() else read_fairseq(path), device=device)


def read_fairseq(path: Path) -> dict[str, Tensor]:
    """The weights of a fairseq file by transformers' names; read without its pickled classes."""
    from models.rvc.checkpoint import read_tensors

    return _renamed(read_tensors(path))


def read_folder(path: Path) -> dict[str, Tensor]:
    """The weights of a Hugging Face folder: `config.json` and `model.safetensors` or `pytorch_model.bin`."""
    from models.rvc.checkpoint import read_tensors

    try:
        config = read_settings(path)
        if config.get("do_stable_layer_norm") or config.get("feat_extract_norm", "group") != "group":
            raise not_hubert("its config.json describes another architecture")
        if (path / SAFE_FILE).is_file():
            # Copied: the file may change or go while the model is in use.
            return _renamed({name: tensor.clone() for name, tensor in read_safetensors(path).items()})
    except ValueError as error:
        raise not_hubert(str(error)) from error
    return _renamed(read_tensors(path / PICKLE_FILE))


def not_hubert(reason: str) -> ModelError:
    """The error for weights that are here but are no HuBERT-base."""
    return ModelError(
        f"The HuBERT weights cannot be used: {reason}. Voices need HuBERT-base in ContentVec's training: put RVC's "
        "hubert_base.pt, or the files of lengyue233/content-vec-best, into MODELS_DIR.",
        code=ErrorCode.BROKEN_CHECKPOINT,
    )


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for given, tensor in state.items():
        name = given
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _build(state: Mapping[str, Tensor]) -> Any:
    """transformers' `HubertModel` with these weights, in float32, weight norm folded; as large as the weights are."""
    from transformers import HubertConfig, HubertModel

    weights = {name: tensor.float() for name, tensor in state.items()}
    if f"{_POSITION}_g" in weights:
        weights[_POSITION] = torch._weight_norm(weights[f"{_POSITION}_v"], weights[f"{_POSITION}_g"], 2)
    try:
        settings: dict[str, Any] = {"apply_spec_augment": False, "attn_implementation": "sdpa"}
        config = HubertConfig(**_sizes(weights), **settings)
    except (KeyError, IndexError, ValueError) as error:
        raise not_hubert("its tensors are not those of HuBERT") from error
    with torch.device("meta"):
        model: Any = HubertModel(config)
    nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    wanted = {name: like for name, like in model.state_dict().items() if name != "masked_spec_embed"}
    wrong = [name for name, like in wanted.items() if name not in weights or weights[name].shape != like.shape]
    if wrong:
        raise not_hubert(f"{len(wrong)} of its {len(wanted)} tensors are missing or misshapen, the first is {wrong[0]}")
    model.masked_spec_embed = None  # of training
    model.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    return model


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    kernels = [weights[f"feature_extractor.conv_layers.{layer}.conv.weight"].shape for layer in range(7)]
    inner, width = weights["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape
    return {
        "conv_dim": [int(shape[0]) for shape in kernels],
        "conv_kernel": [int(shape[2]) for shape in kernels],
        "conv_stride": list(_FIRST_STRIDE),
        "hidden_size": int(width),
        "intermediate_size": int(inner),
        "num_attention_heads": int(width) // _HEAD_WIDTH,
        "num_hidden_layers": LAYERS["v2"],
        "num_conv_pos_embeddings": int(weights[_POSITION].shape[2]),
        "num_conv_pos_embedding_groups": _GROUPS,
    }


def _final_projection(state: Mapping[str, Tensor]) -> nn.Linear | None:
    if "final_proj.weight" not in state or "final_proj.bias" not in state:
        return None
    weight, bias = state["final_proj.weight"].float(), state["final_proj.bias"].float()
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer


def _own_choice(device: torch.device) -> torch.dtype:
    """Not bfloat16: its 2 % of error stand in the sound 42 dB below it, for a fifth of a conversion's time."""
    return torch.float16 if device.type == "cuda" else torch.float32
