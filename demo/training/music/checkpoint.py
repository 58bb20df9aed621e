"""Writes and reads the demo folder as audiocraft does: state_dict.bin, compression_state_dict.bin, t5/ beside them."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import T5EncoderModel, T5Tokenizer

from demo.training.music import codec, lm, text
from demo.training.music.pieces import BUILD
from models.musicgen.audiocraft_import import import_audiocraft

FOLDER = Path(__file__).parents[2] / "weights" / "musicgen"
# Factors of each codebook's logits: what `temperature` would do, made part of the weights (see demo/music.md).
SHARPNESS = (1.6, 2.0, 2.0, 2.0)
HEADS = tuple(f"linears.{codebook}.weight" for codebook in range(len(SHARPNESS)))
T5_PREFIX = "condition_provider.conditioners.description.t5."


def export(folder: Path = FOLDER) -> None:
    """Write what was trained. As in every public checkpoint the T5 is not inside state_dict.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = torch.load(lm.CHECKPOINT, weights_only=True)
    model = lm.build(lm.T5_WINDOW)
    model.load_state_dict(trained)
    t5 = model.condition_provider.conditioners["description"].t5
    tokenizer = T5Tokenizer.from_pretrained(lm.T5_WINDOW)
    text.share_spellings(t5, tokenizer)
    t5.save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    lm_state = {name: tensor for name, tensor in trained.items() if not name.startswith(T5_PREFIX)}
    for name, factor in zip(HEADS, SHARPNESS, strict=True):
        lm_state[name] = factor * lm_state[name]
    _save(lm_state, lm.CONFIG, folder / "state_dict.bin")
    _save(torch.load(codec.CHECKPOINT, weights_only=True), codec.CONFIG, folder / "compression_state_dict.bin")


def resume(folder: Path = FOLDER) -> None:
    """Write an exported checkpoint back to where training keeps its own, in float32, to be trained further."""
    BUILD.mkdir(parents=True, exist_ok=True)
    T5EncoderModel.from_pretrained(folder / "t5", dtype=torch.float32).save_pretrained(lm.T5_WINDOW)
    T5Tokenizer.from_pretrained(folder / "t5").save_pretrained(lm.T5_WINDOW)
    model = lm.build(lm.T5_WINDOW)
    state = torch.load(folder / "state_dict.bin", weights_only=True)["best_state"]
    for name, factor in zip(HEADS, SHARPNESS, strict=True):
        state[name] = state[name].float() / factor
    missing = model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    assert not missing.unexpected_keys and all(name.startswith(T5_PREFIX) for name in missing.missing_keys), missing
    torch.save(model.state_dict(), lm.CHECKPOINT)
    state = torch.load(folder / "compression_state_dict.bin", weights_only=True)["best_state"]
    torch.save({name: tensor.float() for name, tensor in state.items()}, codec.CHECKPOINT)


def _save(state: dict[str, torch.Tensor], config: str, path: Path) -> None:
    """The four keys that audiocraft.utils.export writes, weights in half precision."""
    halves = {name: tensor.half().contiguous().clone() for name, tensor in state.items()}
    version = import_audiocraft().__version__
    cfg = OmegaConf.create({**OmegaConf.create(config), "device": "cpu", "dtype": "float32"})
    package = {"best_state": halves, "xp.cfg": OmegaConf.to_yaml(cfg), "version": version, "exported": True}
    torch.save(package, path)


def load_musicgen(folder: Path = FOLDER) -> Any:
    """audiocraft's own MusicGen on the CPU, built and filled by audiocraft's builders from `folder`."""
    import_audiocraft()
    from audiocraft.models import builders
    from audiocraft.models.musicgen import MusicGen

    package = torch.load(folder / "state_dict.bin", weights_only=True)
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.conditioners.description.t5.name = lm.register_t5(folder / "t5")
    language_model = builders.get_lm_model(cfg)
    language_model.load_state_dict(package["best_state"])
    language_model.cfg = cfg
    package = torch.load(folder / "compression_state_dict.bin", weights_only=True)
    compression_model = builders.get_compression_model(OmegaConf.create(package["xp.cfg"]))
    compression_model.load_state_dict(package["best_state"])
    return MusicGen("demo", compression_model.eval(), language_model.eval())
