"""Imports audiocraft without the training-time packages that its modules name at the top.

audiocraft 1.3.0 imports xformers, flashy, librosa, spacy, num2words and, through its solvers, dora and torchmetrics.
Inference uses two trivial helpers of them. They are left out of the image, because importing them takes 4 to 10 s. Each
stub below says what audiocraft takes from it. An installed package is never replaced.
"""

import importlib
import importlib.util
import logging
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

logger = logging.getLogger(__name__)

_LOCK = threading.RLock()


def import_audiocraft() -> ModuleType:
    """Returns the `audiocraft` package with `audiocraft.models` imported and torch attention selected.

    Safe to call from any thread, any number of times: the first call does the work, the others wait for it.
    """
    with _LOCK:
        if "audiocraft.models" not in sys.modules:
            _install_stubs()
        package = importlib.import_module("audiocraft")
        importlib.import_module("audiocraft.models")
        # xformers' kernels do not load with this torch; torch's own attention (SDPA) computes the same thing.
        importlib.import_module("audiocraft.modules.transformer").set_efficient_attention_backend("torch")
        return package


def _install_stubs() -> None:
    stubs = {
        "xformers": _stub_xformers,
        "flashy": _stub_flashy,
        "librosa": _stub_librosa,
        "num2words": _stub_num2words,
        "spacy": _stub_spacy,
    }
    for name in (*stubs, "dora", "torchmetrics", "av"):
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            _register(stubs[name]() if name in stubs else {name: _make_module(name)})
            logger.debug("Using a stub for %s, which is not installed", name)
    # Always: multibanddiffusion.py imports CompressionSolver for one loader that we do not call, and the real module
    # pulls in dora, torchmetrics, every loss, metric and discriminator.
    if "audiocraft.solvers" not in sys.modules:
        _register(_stub_solvers())


def _register(modules: dict[str, ModuleType]) -> None:
    """Puts `modules` (by full dotted name) into sys.modules, each as an attribute of its parent."""
    for name, module in modules.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)


def _make_module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name, f"A stub for {name}, which inference does not use.")
    # Other libraries probe with importlib.util.find_spec, which raises for a loaded module that has no spec.
    module.__spec__ = ModuleSpec(name, loader=None, is_package=True)
    module.__path__ = []
    vars(module).update(members)
    return module


def _stub_xformers() -> dict[str, ModuleType]:
    """`ops.unbind` splits q, k, v in every attention call; of a mask, only whether it is None matters."""
    import torch

    def memory_efficient_attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_bias: Any = None, p: float = 0.0
    ) -> torch.Tensor:
        """SDPA in xformers' layout: `[B, T, H, D]` in and out. MAGNeT alone uses it, with a dense bias."""
        causal = isinstance(attn_bias, LowerTriangularMask)
        out = torch.nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=None if causal else attn_bias,
            dropout_p=p,
            is_causal=causal,
        )
        return out.transpose(1, 2)

    class LowerTriangularMask:
        """Marks causal attention."""

    ops = _make_module(
        "xformers.ops",
        unbind=torch.unbind,
        LowerTriangularMask=LowerTriangularMask,
        memory_efficient_attention=memory_efficient_attention,
    )
    # Every layer asks at every step whether xformers is profiling. A failed import there takes longer than this answer.
    profiler = _make_module("xformers.profiler.profiler", _Profiler=SimpleNamespace(_CURRENT_PROFILER=None))
    return {
        "xformers": _make_module("xformers"),
        "xformers.ops": ops,
        "xformers.profiler": _make_module("xformers.profiler"),
        "xformers.profiler.profiler": profiler,
    }


def _stub_flashy() -> dict[str, ModuleType]:
    """One process, rank 0. The vector quantiser synchronises with other processes only while it trains."""
    distrib = _make_module(
        "flashy.distrib",
        rank=lambda: 0,
        world_size=lambda: 1,
        is_rank_zero=lambda: True,
        is_distributed=lambda: False,
        barrier=lambda: None,
        broadcast_tensors=lambda tensors, src=0: None,
        broadcast_object=lambda item, src=0: item,
        all_reduce=lambda tensor, op=None: tensor,
    )
    return {"flashy": _make_module("flashy"), "flashy.distrib": distrib, "flashy.utils": _make_module("flashy.utils")}


def _stub_spacy() -> dict[str, ModuleType]:
    """A language is loaded for `normalize_text` or a whitespace tokenizer only; no public checkpoint has either."""

    def load(language: str, *_: Any, **__: Any) -> Any:
        raise ImportError(f"This checkpoint needs the spaCy language {language!r}, and spaCy is not installed.")

    return {"spacy": _make_module("spacy", load=load)}


def _stub_num2words() -> dict[str, ModuleType]:
    """Used together with spaCy only, to spell numbers out."""
    return {"num2words": _make_module("num2words", num2words=str)}


def _stub_librosa() -> dict[str, ModuleType]:
    """Its filter bank is for melodies only, whose chroma is ours (models/musicgen/chroma.py)."""
    return {"librosa": _make_module("librosa"), "librosa.filters": _make_module("librosa.filters")}


def _stub_solvers() -> dict[str, ModuleType]:
    """`CompressionSolver.model_from_checkpoint` is for the 24 kHz MultiBandDiffusion loader alone."""
    solver = type("CompressionSolver", (), {})
    return {
        "audiocraft.solvers": _make_module("audiocraft.solvers"),
        "audiocraft.solvers.compression": _make_module("audiocraft.solvers.compression", CompressionSolver=solver),
    }
