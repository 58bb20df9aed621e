"""Random RVC checkpoints in the real on-disk formats: voices, their faiss indexes, HuBERT (fairseq's and Hugging Face's
file) and RMVPE. Tiny ones for tests, ones of the published shapes for benchmarks; the same seed makes the same weights.

Random weights say nothing about sound quality. They are scaled so that every part affects the output, which is audible
and far from clipping.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.machinery
import io
import json
import math
import sys
import types
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from testing.vocals import make_vocal

FEATURE_WIDTH = {"v1": 256, "v2": 768}
HUBERT_LAYERS = 12
HUBERT_WIDTH = 768
OUTPUT_RMS = 0.2
RATE_NAMES = {32_000: "32k", 40_000: "40k", 48_000: "48k"}

# (spectrogram channels, upsampling rates, upsampling kernels) as RVC's own configs give them.
_SHAPES = {
    ("v1", 32_000): (513, [10, 4, 2, 2, 2], [16, 16, 4, 4, 4]),
    ("v1", 40_000): (1025, [10, 10, 2, 2], [16, 16, 4, 4]),
    ("v1", 48_000): (1025, [10, 6, 2, 2, 2], [16, 16, 4, 4, 4]),
    ("v2", 32_000): (513, [10, 8, 2, 2], [20, 16, 4, 4]),
    ("v2", 40_000): (1025, [10, 10, 2, 2], [16, 16, 4, 4]),
    ("v2", 48_000): (1025, [12, 10, 2, 2], [24, 20, 4, 4]),
}


def write_voice(  # noqa: PLR0913  (the axes along which voices differ)
    root: Path,
    name: str,
    *,
    version: str = "v2",
    sample_rate: int = 40_000,
    f0: bool = True,
    index_rows: int = 0,
    seed: int = 0,
    tiny: bool = True,
) -> Path:
    """Writes `<root>/<name>/<name>.pth` and, with `index_rows`, an index beside it; returns the folder."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    package = make_checkpoint(version=version, sample_rate=sample_rate, f0=f0, seed=seed, tiny=tiny)
    torch.save(package, folder / f"{name}.pth")
    if index_rows:
        vectors = make_index_vectors(index_rows, width=FEATURE_WIDTH[version], seed=seed)
        write_index(folder / f"added_IVF{count_lists(index_rows)}_Flat_nprobe_1_{name}_{version}.index", vectors)
    return folder


def make_checkpoint(
    *, version: str = "v2", sample_rate: int = 40_000, f0: bool = True, seed: int = 0, tiny: bool = True
) -> dict[str, Any]:
    """The content of a voice's `.pth`: half-precision weights without `enc_q`, and RVC's other keys."""
    config = make_config(version, sample_rate, tiny=tiny)
    network = make_synthesizer(config, version=version, f0=f0, seed=seed)
    weights = {key: value.half() for key, value in network.state_dict().items() if not key.startswith("enc_q.")}
    return {
        "weight": OrderedDict(weights),
        "config": config,
        "info": "20epoch",
        "sr": RATE_NAMES[sample_rate],
        "f0": int(f0),
        "version": version,
    }


def make_config(version: str, sample_rate: int, *, tiny: bool) -> list[Any]:
    """The 18 numbers and lists of a checkpoint; tiny ones keep the hop of sample_rate / 100 samples."""
    spec_channels, rates, kernels = _SHAPES[version, sample_rate]
    widths = (32, 32, 48, 2, 1) if tiny else (192, 192, 768, 2, 6)
    resblocks = ["1", [3, 7, 11], [[1, 3, 5], [1, 3, 5], [1, 3, 5]]]
    initial, speakers, conditioning = (64, 4, 16) if tiny else (512, 109, 256)
    decoder = [list(rates), initial, list(kernels), speakers, conditioning, sample_rate]
    return [spec_channels, 32, *widths, 3, 0, *resblocks, *decoder]


@contextlib.contextmanager
def import_networks() -> Iterator[types.ModuleType]:
    """rvc-python's network module without its package `__init__`; `sys.modules` is restored afterwards."""
    with restore_modules("rvc_python"):
        sys.modules["rvc_python"] = make_bare_package("rvc_python")
        yield importlib.import_module("rvc_python.lib.infer_pack.models")


def make_bare_package(name: str) -> types.ModuleType:
    """The installed package as an empty module whose submodules can be imported."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    assert spec is not None and spec.submodule_search_locations, f"{name} is not installed"
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec  # importlib.util.find_spec raises ValueError for a loaded module without a spec
    return package


@contextlib.contextmanager
def restore_modules(*packages: str) -> Iterator[None]:
    """Removes these packages and their submodules from `sys.modules` inside the block and restores them afterwards."""

    def remove() -> dict[str, types.ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in packages}

    before = remove()
    try:
        yield
    finally:
        remove()
        sys.modules.update(before)


def make_synthesizer(config: list[Any], *, version: str, f0: bool, seed: int) -> nn.Module:
    """rvc-python's synthesizer with random weights that make it neither silent nor saturated."""
    name = f"SynthesizerTrnMs{FEATURE_WIDTH[version]}NSFsid{'' if f0 else '_nono'}"
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        with import_networks() as modules:
            network: Any = getattr(modules, name)(*config, is_half=False)
        del network.enc_q
        network.eval()
        _scale_synthesizer(network)
        _set_level(network, FEATURE_WIDTH[version], f0=f0)
    return network  # type: ignore[no-any-return]


@torch.no_grad()
def _scale_synthesizer(network: Any) -> None:
    """Gives each layer of the decoder and of the flow about the level of its input."""
    for flow in network.flow.flows:
        if hasattr(flow, "post"):
            nn.init.normal_(flow.post.weight, std=0.3 / math.sqrt(flow.post.in_channels))
    nn.init.normal_(network.emb_g.weight, std=0.5)
    network.enc_p.proj.bias[network.inter_channels :] = -1.0  # keeps the noise below the features
    decoder = network.dec
    for up in decoder.ups:
        inputs, _, kernel = up.weight_v.shape
        _set_normed(up, std=math.sqrt(2 * up.stride[0] / (inputs * kernel)))
    for block in decoder.resblocks:
        for conv in [*block.convs1, *block.convs2]:
            _, inputs, kernel = conv.weight_v.shape
            _set_normed(conv, std=0.7 / math.sqrt(inputs * kernel))
    if hasattr(decoder, "m_source"):
        nn.init.constant_(decoder.m_source.l_linear.weight, 1.5)
        nn.init.zeros_(decoder.m_source.l_linear.bias)
        for conv in decoder.noise_convs:
            nn.init.normal_(conv.weight, std=4 / math.sqrt(conv.kernel_size[0]))


def _set_normed(layer: Any, *, std: float) -> None:
    nn.init.normal_(layer.weight_v, std=std)
    layer.weight_g.copy_(layer.weight_v.flatten(1).norm(dim=1).view_as(layer.weight_g))


@torch.no_grad()
def _set_level(network: Any, width: int, *, f0: bool) -> None:
    """Scales the last layer so that white features give `OUTPUT_RMS` before the final tanh, nearly so after it."""
    frames = 40
    features, lengths = torch.randn(1, frames, width), torch.tensor([frames])
    pitch = torch.linspace(110, 440, frames)[None]
    coarse = torch.linspace(30, 140, frames).round().long()[None]
    speaker = torch.tensor([0])
    for _ in range(2):
        given = (features, lengths, coarse, pitch, speaker) if f0 else (features, lengths, speaker)
        level = network.infer(*given)[0].clamp(-0.999, 0.999).atanh().square().mean().sqrt()
        network.dec.conv_post.weight.mul_(OUTPUT_RMS / level)


def make_index_vectors(rows: int, *, width: int, seed: int = 0) -> NDArray[np.float32]:
    """`[rows, width]` in clusters, like the features of a voice; float32 with about unit variance."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(rows // 50, 1), width), dtype=np.float32)
    vectors = centres[generator.integers(len(centres), size=rows)] * np.float32(0.8)
    for start in range(0, rows, 10_000):
        vectors[start : start + 10_000] += 0.6 * generator.standard_normal(
            vectors[start : start + 10_000].shape, dtype=np.float32
        )
    return vectors


def count_lists(rows: int) -> int:
    """The number of lists that RVC's training gives an index with this many rows."""
    return max(min(int(16 * math.sqrt(rows)), rows // 39), 1)


def write_index(path: Path, vectors: NDArray[np.float32], *, iterations: int = 10) -> Path:
    """Writes `IVF<n>,Flat` as RVC's training does: trained on the vectors, nprobe 1, all of them added."""
    import faiss

    index = faiss.index_factory(vectors.shape[1], f"IVF{count_lists(len(vectors))},Flat")
    inverted = faiss.extract_index_ivf(index)
    inverted.nprobe = 1
    inverted.cp.niter = iterations
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))
    return path


@dataclass(frozen=True)
class HubertShape:
    """The sizes of a HuBERT that may be small; voices always need 12 layers of width 768."""

    conv_width: int = 512
    inner_width: int = 3072
    position_kernel: int = 128
    label_count: int = 504


TINY_HUBERT = HubertShape(conv_width=32, inner_width=32, position_kernel=16, label_count=4)


def write_hubert_file(path: Path, tiny: bool = True, *, seed: int = 0, zipped: bool = True) -> Path:
    """Writes `hubert_base.pt` as fairseq saved it: half weights below "model", beside objects of its own classes.

    `zipped`: in torch's format since 2020; False: in the one before.
    """
    state = make_fairseq_state(TINY_HUBERT if tiny else HubertShape(), seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with define_fairseq_classes() as dictionary_class:
        dictionary = dictionary_class()
        dictionary.symbols = ["<s>", "<pad>", "</s>", "<unk>", *map(str, range(8))]
        dictionary.indices = {symbol: index for index, symbol in enumerate(dictionary.symbols)}
        dictionary.count = [1] * len(dictionary.symbols)
        package = {
            "args": argparse.Namespace(arch="hubert", encoder_layers=HUBERT_LAYERS, label_rate=50, fp16=True),
            "cfg": {"_name": None, "model": {"_name": "hubert", "conv_feature_layers": "[(512,10,5)]"}},
            "model": state,
            "criterion": None,
            "optimizer_history": [{"criterion_name": "HubertCriterion", "best_loss": 4.2, "num_updates": 100_000}],
            "task_state": {"dictionaries": [dictionary]},
            "extra_state": {"epoch": 7, "metrics": OrderedDict(loss=[4.5, 4.2]), "previous_training_time": 12.5},
            "last_optimizer_state": None,
        }
        torch.save(package, path, _use_new_zipfile_serialization=zipped)
    return path


@contextlib.contextmanager
def define_fairseq_classes() -> Iterator[Any]:
    """A class that pickles as fairseq's dictionary."""
    with restore_modules("fairseq"):
        for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
            sys.modules[name] = types.ModuleType(name)
        dictionary = type("Dictionary", (), {"__module__": "fairseq.data.dictionary"})
        sys.modules["fairseq.data.dictionary"].Dictionary = dictionary  # type: ignore[attr-defined]
        yield dictionary


def make_fairseq_state(shape: HubertShape, *, seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    """HuBERT-base's 214 half-precision tensors under fairseq's names."""
    generator = torch.Generator().manual_seed(seed)
    state: OrderedDict[str, torch.Tensor] = OrderedDict()

    def normal(name: str, *size: int, std: float) -> None:
        state[name] = (std * torch.randn(size, generator=generator)).half()

    def linear(name: str, outputs: int, inputs: int, gain: float = 1.0) -> None:
        normal(f"{name}.weight", outputs, inputs, std=gain / math.sqrt(inputs))
        normal(f"{name}.bias", outputs, std=0.05)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = (1 + 0.1 * torch.randn(width, generator=generator)).half()
        normal(f"{name}.bias", width, std=0.05)

    conv, inner, width = shape.conv_width, shape.inner_width, HUBERT_WIDTH
    normal("label_embs_concat", shape.label_count, 256, std=1.0)
    normal("mask_emb", width, std=1.0)
    for layer, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        inputs = conv if layer else 1
        name = f"feature_extractor.conv_layers.{layer}.0.weight"
        normal(name, conv, inputs, kernel, std=1.6 / math.sqrt(inputs * kernel))
        state[name] -= state[name].mean((1, 2), keepdim=True)  # otherwise the mean of all channels would dominate
    norm("feature_extractor.conv_layers.0.2", conv)
    linear("post_extract_proj", width, conv)
    kernel = shape.position_kernel
    normal("encoder.pos_conv.0.bias", width, std=0.05)
    state["encoder.pos_conv.0.weight_g"] = (1 + 0.2 * torch.rand(1, 1, kernel, generator=generator)).half()
    normal("encoder.pos_conv.0.weight_v", width, width // 16, kernel, std=0.05)
    for layer in range(HUBERT_LAYERS):
        name = f"encoder.layers.{layer}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(f"{name}.self_attn.{part}", width, width, 0.3 if part == "out_proj" else 1.0)
        norm(f"{name}.self_attn_layer_norm", width)
        linear(f"{name}.fc1", inner, width)
        linear(f"{name}.fc2", width, inner, 0.5)
        norm(f"{name}.final_layer_norm", width)
    norm("encoder.layer_norm", width)
    norm("layer_norm", conv)
    linear("final_proj", 256, width)
    return state


def write_hubert_folder(path: Path, tiny: bool = True, *, seed: int = 0, zipped: bool = True) -> Path:
    """Writes the weights of `write_hubert_file` as a Hugging Face folder: `config.json` and `pytorch_model.bin`."""
    shape = TINY_HUBERT if tiny else HubertShape()
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["HubertModelWithFinalProj"],
        "model_type": "hubert",
        "classifier_proj_size": 256,
        "conv_dim": [shape.conv_width] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": False,
        "do_stable_layer_norm": False,
        "feat_extract_norm": "group",
        "hidden_size": HUBERT_WIDTH,
        "intermediate_size": shape.inner_width,
        "num_attention_heads": 12,
        "num_conv_pos_embedding_groups": 16,
        "num_conv_pos_embeddings": shape.position_kernel,
        "num_hidden_layers": HUBERT_LAYERS,
        "torch_dtype": "float32",
    }
    (path / "config.json").write_text(json.dumps(config, indent=2))
    state = {_hugging_face_name(key): value.float() for key, value in make_fairseq_state(shape, seed=seed).items()}
    state.pop("label_embs_concat")
    torch.save(state, path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return path


def write_small_hubert_folder(path: Path, *, layers: int = 2, seed: int = 0) -> Path:
    """Writes a HuBERT of `layers` layers of width 128 whose final projection gives 768 features, as the demo's does."""
    from safetensors.torch import save_file
    from transformers import HubertConfig, HubertModel

    sizes: dict[str, Any] = {
        "conv_dim": [16] * 7,
        "hidden_size": 128,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_conv_pos_embeddings": 16,
        "num_hidden_layers": layers,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = HubertModel(HubertConfig(**sizes))
        projection = nn.Linear(128, HUBERT_WIDTH)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "masked_spec_embed"}
    state |= {f"final_proj.{name}": tensor for name, tensor in projection.state_dict().items()}
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(sizes | {"model_type": "hubert", "feat_extract_norm": "group"}))
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path / "model.safetensors")
    return path


_HUGGING_FACE_NAMES = (
    (".0.weight", ".conv.weight", "feature_extractor."),
    (".0.2.", ".0.layer_norm.", "feature_extractor."),
    ("post_extract_proj", "feature_projection.projection", "post_"),
    ("layer_norm", "feature_projection.layer_norm", "layer_norm"),
    ("mask_emb", "masked_spec_embed", "mask_emb"),
    ("pos_conv.0", "pos_conv_embed.conv", "encoder."),
    ("self_attn_layer_norm", "layer_norm", "encoder."),
    ("self_attn", "attention", "encoder."),
    ("fc1", "feed_forward.intermediate_dense", "encoder."),
    ("fc2", "feed_forward.output_dense", "encoder."),
)


def _hugging_face_name(key: str) -> str:
    for old, new, start in _HUGGING_FACE_NAMES:
        if key.startswith(start) and old in key:
            return key.replace(old, new)
    return key


TINY_RMVPE = {"n_blocks": 1, "inter_layers": 1, "en_out_channels": 4}
RMVPE = {"n_blocks": 4, "inter_layers": 4, "en_out_channels": 16}


def write_rmvpe(path: Path, tiny: bool = True, *, seed: int = 0) -> Path:
    """Writes `rmvpe.pt`: the half-precision state dict of `make_rmvpe`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = make_rmvpe(tiny=tiny, seed=seed).state_dict()
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(OrderedDict(halves), path)
    return path


def make_rmvpe(*, tiny: bool = True, seed: int = 0) -> nn.Module:
    """rvc-python's `E2E` of RMVPE's shape, or with fewer blocks and channels (`TINY_RMVPE`).

    Its salience has smooth hills from 80 to 800 Hz, so that pitch does not hang on the last bit of a sum, and falls
    below the voicing threshold in some frames.
    """
    with torch.random.fork_rng(devices=[]), import_networks():
        torch.manual_seed(seed)
        module = importlib.import_module("rvc_python.lib.rmvpe")
        network: Any = module.E2E(n_gru=1, kernel_size=(2, 2), **(TINY_RMVPE if tiny else RMVPE)).eval()
        _set_hills(network)
        _set_batch_norms(network, module.MelSpectrogram(False, 128, 16_000, 1024, 160, None, 30, 8000))
    return network  # type: ignore[no-any-return]


@torch.no_grad()
def _set_hills(network: Any) -> None:
    """The last layer answers each of its inputs with a hill somewhere from 80 to 800 Hz."""
    last = network.fc[1]
    bins = torch.arange(last.out_features)[:, None]
    centres = 80 + 200 * torch.rand(1, last.in_features)
    hills = torch.exp(-0.5 * ((bins - centres) / 8) ** 2)
    last.weight.copy_(3 * hills * torch.randn(1, last.in_features))
    last.bias.fill_(-6.0)
    gru = network.fc[0].gru
    update = slice(gru.hidden_size, 2 * gru.hidden_size)
    for name in ("bias_ih_l0", "bias_ih_l0_reverse"):
        getattr(gru, name)[update] = 3.0  # slow to change, so that pitch glides


@torch.no_grad()
def _set_batch_norms(network: Any, mel_spectrogram: nn.Module) -> None:
    """The running statistics of a voice-like sound, on which activations then stay level."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    network(mel_spectrogram(torch.from_numpy(make_vocal(1.28))[None])[..., :128])
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
