"""EnCodec as a value: sound to codes and back, mono or as two interleaved sides. Knows no language model.

Both formats, transformers' and audiocraft's own, run as transformers' `EncodecModel`; weight norm is folded in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import parametrize

CHUNK_S = 10.0  # decoded at a time: the widest layer takes 8 MB a second
MARGIN = 16  # frames beside a chunk; what a sample hears of the layers after the LSTM is less than 4


# What audiocraft can put behind the decoder and transformers has not.
FINAL_ACTIVATIONS: Mapping[str, type[torch.nn.Module]] = {"Tanh": torch.nn.Tanh}


class Codec:
    """A loaded EnCodec.

    Args:
        model: transformers' `EncodecModel`, on its device, in float32.
        codebooks: how many of its codebooks are in use, for one side.
        stereo: two mono sides with their codebooks interleaved, as MusicGen's stereo models have it.
    """

    def __init__(self, model: Any, *, codebooks: int, stereo: bool = False) -> None:
        self._model, self._stereo, self._side_codebooks = model, stereo, codebooks
        config = model.config
        self.sample_rate = int(config.sampling_rate)
        self.hop_length = int(config.hop_length)
        self.channels = 2 if stereo else int(config.audio_channels)
        self.codebooks = codebooks * (2 if stereo else 1)
        assert len(model.quantizer.layers) >= codebooks, "describe() has seen to that"

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop_length

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self._model.parameters(), *self._model.buffers()))

    @property
    def _books(self) -> list[torch.Tensor]:
        """The codebooks in use, `[card, D]` each."""
        return [layer.codebook.embed for layer in self._model.quantizer.layers[: self._side_codebooks]]

    def sides(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, F]` to `[sides, B, K / sides, F]`."""
        batch, codebooks, frames = codes.shape
        count = 2 if self._stereo else 1
        return codes.reshape(batch, codebooks // count, count, frames).permute(2, 0, 1, 3)

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        """`[B, C, samples]` to `[B, K, F]` codes."""
        batch, channels, _ = waveform.shape
        assert channels == self.channels
        mono = waveform.reshape(batch * channels, 1, -1) if self._stereo else waveform
        residual = self._model.encoder(mono).transpose(1, 2)
        codes = []
        for book in self._books:
            nearest = torch.addmm(book.square().sum(1), residual.flatten(0, 1), book.T, alpha=-2).argmin(-1)
            codes.append(nearest.view(residual.shape[:2]))
            residual = residual - book[codes[-1]]
        made = torch.stack(codes, dim=1)
        return made.view(batch, -1, *made.shape[1:]).transpose(1, 2).flatten(1, 2)

    def latent(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, F]` codes of one side to `[B, D, F]`."""
        return torch.stack([book[codes[:, k]] for k, book in enumerate(self._books)]).sum(0).transpose(1, 2)

    def decode(self, codes: torch.Tensor, *, on_chunk: Callable[[float], None] = lambda done: None) -> torch.Tensor:
        """`[B, K, F]` codes to `[B, C, samples]`, in bounded memory whatever the length.

        The layers at frame rate, with the LSTM, see the whole; the others, which see less than `MARGIN` frames, take it
        in chunks. So there is no seam: the result is that of one pass. `on_chunk` is called with 0..1 before each.
        """
        sides = self.sides(codes)
        hidden = self.latent(sides.flatten(0, 1))
        layers = self._model.decoder.layers
        head = _layers_at_frame_rate(layers)
        for layer in layers[:head]:
            hidden = layer(hidden)
        chunk, frames = int(CHUNK_S * self.frame_rate), hidden.shape[-1]
        pieces = []
        for start in range(0, frames, chunk):
            on_chunk(start / frames)
            end, left = min(start + chunk, frames), max(start - MARGIN, 0)
            piece = hidden[..., left : end + MARGIN]
            for layer in layers[head:]:
                piece = layer(piece)
            pieces.append(piece[..., (start - left) * self.hop_length : (end - left) * self.hop_length])
        return torch.cat(torch.cat(pieces, dim=-1).chunk(len(sides)), dim=1)


def _layers_at_frame_rate(layers: Any) -> int:
    """How many of the decoder's first layers neither upsample nor come after one that does."""
    return next(index for index, layer in enumerate(layers) if isinstance(layer, torch.nn.ELU))


def from_folder(folder: Path, device: str) -> Any:
    """An `EncodecModel` from transformers' format."""
    from transformers import EncodecModel

    return _ready(EncodecModel.from_pretrained(folder), device)


def from_audiocraft(state: Mapping[str, torch.Tensor], settings: Mapping[str, Any], device: str) -> Any:
    """An `EncodecModel` from audiocraft's own format.

    Raises:
        ValueError: the settings ask for something that transformers' EnCodec has not.
        RuntimeError: tensors are missing or of another shape.
    """
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig(**_config(settings)))
    if not settings["seanet"].get("lstm"):
        _drop_lstm(model)
    _fold_weight_norm(model)
    model.load_state_dict(_renamed(state))
    if final := (settings["seanet"].get("decoder") or {}).get("final_activation"):
        model.decoder.layers.append(FINAL_ACTIVATIONS[final]())
    return _ready(model, device)


def _config(settings: Mapping[str, Any]) -> dict[str, Any]:
    encodec, seanet, rvq = settings["encodec"], settings["seanet"], settings["rvq"]
    decoder = seanet.get("decoder") or {}
    expected = {
        "autoencoder": (encodec.get("autoencoder"), "seanet"),
        "quantizer": (encodec.get("quantizer"), "rvq"),
        "renormalize": (bool(encodec.get("renormalize")), False),
        "activation": (seanet.get("activation", "ELU"), "ELU"),
        "alpha": ((seanet.get("activation_params") or {}).get("alpha", 1.0), 1.0),
        "channels": (seanet["channels"], encodec["channels"]),
        "encoder": (bool(seanet.get("encoder")), False),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise ValueError(f"codec with {name} = {found}")
    if decoder.get("final_activation") not in (None, *FINAL_ACTIVATIONS) or decoder.get("final_activation_params"):
        raise ValueError(f"codec with final_activation = {decoder.get('final_activation')}")
    if seanet.get("norm", "none") not in ("weight_norm", "none"):
        raise ValueError(f"codec with norm = {seanet.get('norm')}")
    hop = 1
    for ratio in seanet["ratios"]:
        hop *= ratio
    bits = (int(rvq["bins"]) - 1).bit_length()
    frame_rate = -(-int(encodec["sample_rate"]) // hop)
    return {
        "target_bandwidths": [frame_rate * bits * int(rvq["n_q"]) / 1000],
        "sampling_rate": int(encodec["sample_rate"]),
        "audio_channels": int(encodec["channels"]),
        "normalize": False,
        "hidden_size": int(seanet["dimension"]),
        "num_filters": int(seanet["n_filters"]),
        "num_residual_layers": int(seanet["n_residual_layers"]),
        "upsampling_ratios": list(seanet["ratios"]),
        "norm_type": "weight_norm",  # folded before the weights come
        "kernel_size": int(seanet.get("kernel_size", 7)),
        "last_kernel_size": int(seanet.get("last_kernel_size", 7)),
        "residual_kernel_size": int(seanet.get("residual_kernel_size", 3)),
        "dilation_growth_rate": int(seanet.get("dilation_base", 2)),
        "use_causal_conv": bool(seanet.get("causal")),
        "pad_mode": seanet.get("pad_mode", "reflect"),
        "compress": int(seanet.get("compress", 2)),
        "num_lstm_layers": int(seanet.get("lstm") or 1),
        "trim_right_ratio": float(decoder.get("trim_right_ratio", 1.0)),
        "codebook_size": int(rvq["bins"]),
        "codebook_dim": int(seanet["dimension"]),
        "use_conv_shortcut": not seanet.get("true_skip", True),
    }


def _drop_lstm(model: Any) -> None:
    """Takes the LSTMs out, which transformers always builds; then layers are numbered as audiocraft's are."""
    for part in (model.encoder, model.decoder):
        part.layers = torch.nn.ModuleList(layer for layer in part.layers if not hasattr(layer, "lstm"))


def _renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """audiocraft's tensor names as transformers', weight norm folded."""
    folded: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight_g"):
            direction = state[f"{name[:-1]}v"].float()
            folded[f"{name[:-2]}"] = torch._weight_norm(direction, tensor.float(), 0)
        elif not name.endswith(".weight_v"):
            folded[name] = tensor.float()
    return {_new_name(name): tensor for name, tensor in folded.items()}


def _new_name(name: str) -> str:
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv\.conv|convtr\.convtr)\.", ".conv.", name)
    return name.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")


def _fold_weight_norm(model: torch.nn.Module) -> None:
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def _ready(model: Any, device: str) -> Any:
    _fold_weight_norm(model)
    return model.to(device).eval().requires_grad_(False)
