"""Reads RVC's `.pth` files: what a voice is, without torch and without its weights; its weights when they are needed.

The files are untrusted. Everything in them is checked against `config`, and `config` against bounds, before a weight is
read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ErrorCode, ModelError, sanitize
from models.checkpoints.errors import CheckpointError, report_broken
from models.checkpoints.safe_pickle import TensorRef
from models.checkpoints.torch_file import FileLimits, TorchFile, open_torch_file, select_tensors
from models.hubert.catalog import ENCODERS, find_encoder
from models.rvc.config import (
    FEATURE_WIDTHS,
    MAX_PARAMETERS,
    Shape,
    SynthesizerConfig,
    expected_shapes,
    parse_config,
)

if TYPE_CHECKING:
    import torch

REMEDY = "Replace the file by the one that its maker published."
VOICE_LIMITS = FileLimits(
    max_bytes=512 << 20, max_entries=4000, max_index_bytes=1 << 20, max_steps=100_000, old_format=True
)
_PARTS = ("enc_p.", "dec.", "flow.", "emb_g.")  # of the network; `enc_q.` and whatever else is there is not used
_FLOATS = ("float16", "float32", "bfloat16", "float64")
_VOCODERS = ("hifigan",)
_F0_WORDS: Mapping[int | str, bool] = {0: False, 1: True, "0": False, "1": True}  # True and False are 1 and 0
_PROBLEMS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint is, and where its weights are; checked, with no weight read.

    Args:
        version, f0: by the weights, whatever the file says.
        warnings: sentences about what the file says of itself and its weights contradict.
        embedder: the content encoder that the file states; None: it states none.
    """

    version: str
    sample_rate: int
    f0: bool
    config: SynthesizerConfig
    tensors: Mapping[str, TensorRef]
    warnings: tuple[str, ...] = ()
    embedder: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A voice's network.

    Args:
        version: `v1` (256 content features) or `v2` (768).
        sample_rate: in Hz.
        f0: whether it takes a pitch.
        weights: every tensor of `expected_shapes`, in the stored dtype (float64 comes as float32).
    """

    version: str
    sample_rate: int
    f0: bool
    config: SynthesizerConfig
    weights: dict[str, torch.Tensor]


def read_header(path: Path) -> Header:
    """Reads what the checkpoint at `path` is, in milliseconds and without torch.

    Raises:
        ModelError: `broken_checkpoint` or `model_unsupported`.
    """
    with _open(path) as file:
        return _read_header(file)


def check_checkpoint(path: Path) -> Header:
    """Checks as `read_header` does, and that every weight is a finite number. Keeps no weights, and needs no torch."""
    with _open(path) as file:
        header = _read_header(file)
        file.check(header.tensors)
        return header


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the voice at `path`.

    Raises:
        ModelError: as `read_header`; also if a weight is missing, has another shape or is not finite.
    """
    with _open(path) as file:
        header = _read_header(file)
        weights = file.read(header.tensors)
    weights = {name: value.float() if value.itemsize == 8 else value for name, value in weights.items()}
    return Checkpoint(header.version, header.sample_rate, header.f0, header.config, weights)


@contextmanager
def _open(path: Path) -> Iterator[TorchFile]:
    """Opens the file of a voice; errors name it."""
    with report_broken(f"'{sanitize(path.name)}'", REMEDY), open_torch_file(path, VOICE_LIMITS) as file:
        yield file


def _read_header(file: TorchFile) -> Header:
    content = file.content
    if not isinstance(content, dict) or not isinstance(content.get("weight"), dict):
        raise CheckpointError(_explain_no_voice(content))
    _check_supported(content)
    weight = {key: value for key, value in content["weight"].items() if str(key).startswith(_PARTS)}
    if not all(isinstance(value, TensorRef) for value in weight.values()):
        raise CheckpointError("its 'weight' holds something that is no tensor")
    tensors = select_tensors(weight)
    version, f0 = _find_version(tensors), "enc_p.emb_pitch.weight" in tensors
    config = _read_config(content, tensors)
    _check_shapes(tensors, expected_shapes(config, version, f0))
    warnings = tuple(_find_contradictions(content, version=version, f0=f0))
    stated = content.get("embedder_model")
    embedder = find_encoder(stated) if isinstance(stated, str) else None
    return Header(version, config.sample_rate, f0, config, tensors, warnings, embedder)


def _explain_no_voice(content: Any) -> str:
    if isinstance(content, dict) and "model" in content and {"optimizer", "iteration"} & content.keys():
        return (
            "it is a checkpoint of a training run (G_ or D_); extract the small model from it in the training program"
        )
    return "it is no RVC voice: it has no 'weight'"


def _check_supported(content: Mapping[str, Any]) -> None:
    """Refuses voices trained with Applio's other vocoders, and with unknown encoders: they would be misread."""
    _require_known(content, "vocoder", lambda stated: _to_plain(stated) in _VOCODERS, "HiFi-GAN")
    _require_known(content, "embedder_model", lambda stated: find_encoder(stated) is not None, ", ".join(ENCODERS))


def _require_known(content: Mapping[str, Any], key: str, is_known: Callable[[str], bool], names: str) -> None:
    stated = content.get(key)
    plain = _to_plain(stated) if isinstance(stated, str) else stated
    if plain and not (isinstance(stated, str) and is_known(stated)):
        shown = sanitize(stated) if isinstance(stated, str) else "another"
        raise ModelError(
            f"The voice was trained with the {key.partition('_')[0]} '{shown}', which is not run here. Use a voice "
            f"that was trained with {names}.",
            code=ErrorCode.MODEL_UNSUPPORTED,
            details={key: shown},
        )


def _to_plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def _find_version(tensors: Mapping[str, TensorRef]) -> str:
    """Finds the version by the width of the network's input."""
    phone = tensors.get("enc_p.emb_phone.weight")
    width = phone.shape[-1] if phone is not None and phone.shape else 0
    found = next((version for version, taken in FEATURE_WIDTHS.items() if taken == width), None)
    if found is None:
        raise CheckpointError("it takes neither 256 (v1) nor 768 (v2) content features")
    return found


def _find_contradictions(content: Mapping[str, Any], *, version: str, f0: bool) -> Iterator[str]:
    """Yields a warning for each label that the weights contradict; programs that merge voices write wrong ones."""
    stated = content.get("version")
    if stated is not None and stated != version:
        shown = f"'{sanitize(stated)}'" if isinstance(stated, str) else "another"
        yield f"The voice's file gives its version as {shown}, but its weights are {version}; it is run as {version}."
    stated = content.get("f0")
    if stated is not None and (not isinstance(stated, int | str) or _F0_WORDS.get(stated) is not f0):
        if f0:
            yield "The voice's file says that it takes no pitch, but its weights do; it is run with pitch."
        else:
            yield "The voice's file says that it takes a pitch, but its weights take none; it is run without pitch."


def _read_config(content: Mapping[str, Any], tensors: Mapping[str, TensorRef]) -> SynthesizerConfig:
    """Returns its configuration, with the number of speakers that it holds (its list often states another).

    The sample rate is the list's, not `sr`, which is often wrong in merged voices.
    """
    config = parse_config(content.get("config"))
    speakers = tensors.get("emb_g.weight")
    if speakers is None or len(speakers.shape) != 2 or not speakers.shape[0]:
        raise CheckpointError("it lacks 'emb_g.weight'")
    return replace(config, n_speakers=speakers.shape[0])


def _check_shapes(tensors: Mapping[str, TensorRef], expected: Mapping[str, Shape]) -> None:
    if sum(tensor.count for tensor in tensors.values()) > MAX_PARAMETERS:
        raise CheckpointError("its 'config' asks for a network of implausible size")
    missing = sorted(expected.keys() - tensors.keys())
    problems = [f"'{name}' is missing" for name in missing]
    problems += [f"'{sanitize(name)}' is not of its network" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor = tensors[name]
        if tensor.shape != expected[name]:
            problems.append(f"'{name}' is {list(tensor.shape)} and not {list(expected[name])}")
        elif tensor.storage.dtype not in _FLOATS:
            problems.append(f"'{name}' is of type {tensor.storage.dtype}")
    if problems:
        more = f" and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
        raise CheckpointError(f"its weights do not fit its 'config': {', '.join(problems[:_PROBLEMS_SHOWN])}{more}")
