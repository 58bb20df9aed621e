"""rvc-python 0.1.5's own pipeline on our random checkpoints: the reference for our conversion.

The package cannot be imported as it is (it needs fairseq), so its modules are imported below a bare package object,
with a stub for the one fairseq function that they call: HuBERT is then torchaudio's with the same weights. faiss,
torchcrepe, pyworld, parselmouth, RMVPE and rvc-python's own networks are the real ones. Not used are `Config`, a
process-wide singleton that rewrites files of the installed package on a CPU, and the conversion to files. The version
argument is that of the checkpoint, which rvc-python would ignore, and the cache of harvest, which is keyed by file
name, gets a new name each time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from testing.tiny_rvc import define_fairseq_classes, make_bare_package, restore_modules

_MODULES = ("modules.vc.modules", "modules.vc.pipeline", "lib.rmvpe", "lib.infer_pack.models")
Draw = Callable[[torch.Tensor], torch.Tensor]
FloatArray = NDArray[np.float32]


class Noise:
    """Gaussian noise from a seed, in the order in which the reference draws it; all draws are recorded.

    Per chunk: `[1, inter_channels, frames]` for the latents, then, with f0, `[1, samples, 1]` for the excitation. (The
    initial phase, the only uniform draw, is always set to zero by the reference, because it has one harmonic.)

    Args:
        seed: of the generator.
        scale: 0 makes every draw silent.
    """

    def __init__(self, seed: int = 0, *, scale: float = 1.0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._scale = scale
        self.drawn: list[torch.Tensor] = []

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        noise = self._scale * torch.randn(like.shape, generator=self._generator)
        self.drawn.append(noise)
        return noise.to(like)


class RvcPython:
    """The loaded reference. It converts with one voice at a time.

    Args:
        modules: rvc-python's modules by their last name.
        hubert: as fairseq would have loaded it.
        rmvpe: file of the weights, of any size; None: the method rmvpe is not available.
        device: `cpu` (float32) or `cuda` (half precision, as rvc-python configures it).
    """

    def __init__(self, modules: dict[str, Any], hubert: Any, rmvpe: Path | None, device: str) -> None:
        self.modules = modules
        self.config = _config(device)
        self.hubert = hubert.to(device).half() if self.config.is_half else hubert.to(device)
        self._rmvpe = _rmvpe(modules["rmvpe"], rmvpe, self.config) if rmvpe else None
        self._names = itertools.count()
        self._draw: Draw = torch.randn_like
        self._f0: FloatArray | None = None
        self._pad_last_frame = False
        modules["models"].torch = _TorchWithNoise(self)
        modules["pipeline"].np = _NumpyWithLongerPadding(self)
        self.folder = Path()
        self.vc: Any = None
        self.times = [0.0, 0.0, 0.0]

    def load(self, folder: Path) -> Any:
        """Loads the voice in `folder`: rvc-python's `VC`, whose network is `.net_g`."""
        vc = self.modules["modules"].VC("", self.config)
        path = next(folder.glob("*.pth"))
        version = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get("version", "v1")
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            vc.get_vc(str(path), version)
        vc.hubert_model = self.hubert
        vc.pipeline.model_rmvpe = self._rmvpe
        vc.pipeline.get_f0 = self._override_f0(vc.pipeline.get_f0)
        self.folder, self.vc = folder, vc
        return vc

    def _override_f0(self, get_f0: Any) -> Any:
        """rvc-python's `get_f0`, except that an f0 contour given to `convert` is used instead."""

        def choose_f0(name: str, waveform: Any, frames: int, semitones: float, *more: Any) -> Any:
            if self._f0 is not None:
                return _coarse(self._f0), self._f0
            return get_f0(name, waveform, frames, semitones, *more)

        return choose_f0

    def convert(  # noqa: PLR0913  (the reference's own parameters)
        self,
        folder: Path | None,
        waveform: FloatArray,
        *,
        f0_method: str = "rmvpe",
        semitones: float = 0,
        index_rate: float = 0.5,
        filter_radius: int = 3,
        rms_mix_rate: float = 0.25,
        protect: float = 0.33,
        noise: Draw | None = None,
        f0: FloatArray | None = None,
        pad_last_frame: bool = False,
    ) -> NDArray[np.int16]:
        """Does what `VC.vc_single` does after decoding, but with fractional semitones, which `vc_single` truncates.

        Args:
            folder: of the voice; None: the loaded one.
            waveform: `[T]` at 16 kHz.
            noise: draws the noise of the networks; None: torch's generator.
            f0: in Hz, transposed, of the vocal with one second of padding on each side; replaces `f0_method`.
            pad_last_frame: adds 80 samples of padding at the end, so that HuBERT gives all frames of the last chunk.

        Returns:
            `[T']` at the voice's sample rate, 20 to 40 ms shorter than the input without `pad_last_frame`.
        """
        vc = self.load(folder) if folder is not None else self.vc
        indexes = sorted(self.folder.glob("*.index"))
        self._draw, self._f0, self._pad_last_frame = noise or torch.randn_like, f0, pad_last_frame
        peak = np.abs(waveform).max() / 0.95
        self.times = [0.0, 0.0, 0.0]
        out: NDArray[np.int16] = vc.pipeline.pipeline(
            vc.hubert_model,
            vc.net_g,
            0,
            waveform / peak if peak > 1 else waveform,
            f"input {next(self._names)}",
            self.times,
            semitones,
            f0_method,
            str(indexes[0]) if indexes else "",
            index_rate,
            vc.if_f0,
            filter_radius,
            vc.tgt_sr,
            0,
            rms_mix_rate,
            vc.version,
            protect,
        )
        return out

    def f0(
        self, waveform: FloatArray, method: str, *, semitones: float = 0, filter_radius: int = 3
    ) -> tuple[NDArray[np.int32], FloatArray]:
        """f0 of `[T]` at 16 kHz without the pipeline's padding: as levels 1 to 255, and in Hz."""
        pipeline = self.modules["pipeline"].Pipeline(40_000, self.config, "")
        pipeline.model_rmvpe = self._rmvpe
        name = f"input {next(self._names)}"
        coarse, f0 = pipeline.get_f0(name, waveform, len(waveform) // 160, semitones, method, filter_radius)
        return coarse, f0.astype(np.float32)

    @torch.no_grad()
    def extract_features(self, waveform: FloatArray, version: str) -> FloatArray:
        """Content features at 50 frames/s as its `vc` method extracts them: `[T]` at 16 kHz -> `[T', 256 or 768]`."""
        source = torch.from_numpy(waveform)[None].to(self.config.device)
        source = source.half() if self.config.is_half else source.float()
        layer = 9 if version == "v1" else 12
        out = self.hubert.extract_features(source=source, padding_mask=torch.zeros(1), output_layer=layer)[0]
        return (self.hubert.final_proj(out) if version == "v1" else out)[0].float().cpu().numpy()  # type: ignore[no-any-return]

    @torch.no_grad()
    def synthesize(self, *given: torch.Tensor, noise: Draw | None = None) -> torch.Tensor:
        """`net_g.infer` of the loaded voice, from features, lengths, coarse pitch and f0 if it uses f0, and speaker."""
        self._draw = noise or torch.randn_like
        return self.vc.net_g.infer(*given)[0]  # type: ignore[no-any-return]


@contextlib.contextmanager
def rvc_python(hubert: Path, rmvpe: Path | None = None, *, device: str = "cpu") -> Iterator[RvcPython]:
    """The reference with these base models (files of `tiny_rvc.write_hubert_file` and `write_rmvpe`, tiny or not).

    `sys.modules` and `sys.path` are restored when the block ends; the object stays usable.
    """
    path = list(sys.path)
    with restore_modules("rvc_python", "fairseq"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.modules["rvc_python"] = make_bare_package("rvc_python")
        sys.modules["fairseq"] = _fairseq(hubert)
        modules = {name.rpartition(".")[2]: importlib.import_module(f"rvc_python.{name}") for name in _MODULES}
        [loaded], _, _ = modules["modules"].checkpoint_utils.load_model_ensemble_and_task([str(hubert)], suffix="")
        sys.path[:] = path
        yield RvcPython(modules, loaded.float().eval(), rmvpe, device)


def _config(device: str) -> types.SimpleNamespace:
    """The values of rvc-python's `Config` for a CPU, and for a GPU with more than 4 GB."""
    half = device != "cpu"
    seconds = (3, 10, 60, 65) if half else (1, 6, 38, 41)
    named = dict(zip(("x_pad", "x_query", "x_center", "x_max"), seconds, strict=True))
    return types.SimpleNamespace(device=device, is_half=half, use_jit=False, dml=False, **named)


def _fairseq(hubert: Path) -> types.ModuleType:
    fairseq: Any = types.ModuleType("fairseq")
    fairseq.checkpoint_utils = types.SimpleNamespace(
        load_model_ensemble_and_task=lambda paths, suffix: ([load_fairseq_model(hubert)], None, None)
    )
    return fairseq  # type: ignore[no-any-return]


def load_fairseq_model(path: Path) -> Any:
    """torchaudio's HuBERT with the weights of a fairseq file and the interface of fairseq's model."""
    with define_fairseq_classes() as dictionary, torch.serialization.safe_globals([dictionary, argparse.Namespace]):
        state = torch.load(path, map_location="cpu", weights_only=True)["model"]

    class Hubert(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _torchaudio_model(state)
            self.final_proj = torch.nn.Linear(768, 256)
            self.final_proj.load_state_dict({key: state[f"final_proj.{key}"] for key in ("weight", "bias")})

        def extract_features(self, source: torch.Tensor, padding_mask: torch.Tensor, output_layer: int) -> Any:
            assert not padding_mask.any()
            return self.model.extract_features(source, num_layers=output_layer)[0][-1], padding_mask

    return Hubert()


def _torchaudio_model(state: dict[str, torch.Tensor]) -> Any:
    import torchaudio

    conv = state["feature_extractor.conv_layers.0.0.weight"].shape[0]
    model = torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(conv, 10, 5), *[(conv, 3, 2)] * 4, *[(conv, 2, 2)] * 2],
        extractor_conv_bias=False,
        encoder_embed_dim=768,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=state["encoder.pos_conv.0.weight_v"].shape[2],
        encoder_pos_conv_groups=16,
        encoder_num_layers=12,
        encoder_num_heads=12,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=state["encoder.layers.0.fc1.weight"].shape[0],
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    unused = ("mask_emb", "label_embs_concat", "final_proj.")
    renamed = {_torchaudio_name(key): value.float() for key, value in state.items() if not key.startswith(unused)}
    model.load_state_dict(renamed)
    return model.eval()


_TORCHAUDIO_NAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.0\.2\.", r"feature_extractor.conv_layers.0.layer_norm."),
    (r"^post_extract_proj\.", r"encoder.feature_projection.projection."),
    (r"^layer_norm\.", r"encoder.feature_projection.layer_norm."),
    (r"^encoder\.pos_conv\.0\.weight_g", r"encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v", r"encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.", r"encoder.transformer.pos_conv_embed.conv."),
    (r"^encoder\.layer_norm\.", r"encoder.transformer.layer_norm."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.", r"encoder.transformer.layers.\1.attention."),
    (r"^encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"encoder.transformer.layers.\1.layer_norm."),
    (r"^encoder\.layers\.(\d+)\.fc1\.", r"encoder.transformer.layers.\1.feed_forward.intermediate_dense."),
    (r"^encoder\.layers\.(\d+)\.fc2\.", r"encoder.transformer.layers.\1.feed_forward.output_dense."),
    (r"^encoder\.layers\.(\d+)\.final_layer_norm\.", r"encoder.transformer.layers.\1.final_layer_norm."),
)


def _torchaudio_name(key: str) -> str:
    for pattern, name in _TORCHAUDIO_NAMES:
        if re.match(pattern, key):
            return re.sub(pattern, name, key)
    raise AssertionError(f"{key} is not a tensor of a fairseq HuBERT")


def _rmvpe(module: Any, path: Path, config: types.SimpleNamespace) -> Any:
    """rvc-python's `RMVPE` with a network of the size that the file has."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    blocks = len({key.split(".")[5] for key in state if key.startswith("unet.encoder.layers.0.conv.")})
    inner = len({key.split(".")[3] for key in state if key.startswith("unet.intermediate.layers.")})
    width = state["cnn.weight"].shape[1]
    network_class = module.E2E
    network = network_class(blocks, 1, (2, 2), inter_layers=inner, en_out_channels=width)
    module.E2E = lambda *fixed: network
    try:
        return module.RMVPE(path, config.is_half, config.device)
    finally:
        module.E2E = network_class


def _coarse(f0: FloatArray) -> NDArray[np.int32]:
    """RVC's 255 levels, evenly spaced in mel from 50 to 1100 Hz; unvoiced frames have level 1."""
    lowest, highest = (1127 * np.log1p(f / 700) for f in (50, 1100))
    steps = 1 + (1127 * np.log1p(f0 / 700) - lowest) * 254 / (highest - lowest)
    coarse: NDArray[np.int32] = np.rint(np.clip(steps, 1, 255)).astype(np.int32)
    return coarse


class _NumpyWithLongerPadding:
    """numpy for the reference's pipeline: `pad` adds 80 samples to a vocal when `pad_last_frame` is set."""

    def __init__(self, owner: RvcPython) -> None:
        self._owner = owner

    def pad(self, values: Any, widths: Any, **options: Any) -> Any:
        padding = self._owner.config.x_pad * 16_000
        is_vocal = self._owner._pad_last_frame and tuple(widths) == (padding, padding)
        return np.pad(values, (padding, padding + 80) if is_vocal else widths, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class _TorchWithNoise:
    """torch for the reference's networks: `randn_like` gives the noise of the current conversion."""

    def __init__(self, owner: RvcPython) -> None:
        self._owner = owner

    def randn_like(self, like: torch.Tensor) -> torch.Tensor:
        return self._owner._draw(like)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
