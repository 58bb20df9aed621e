"""Writes and reads the demo folder as audiocraft does: state_dict.bin, compression_state_dict.bin, t5/ beside them."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import T5Tokenizer

from demo.training import codec, lm, text
from models.musicgen.audiocraft_import import import_audiocraft

FOLDER = Path(__file__).parents[1] / "weights" / "musicgen"
T5_PREFIX = "condition_provider.conditioners.description.t5."


def export(folder: Path = FOLDER) -> None:
    """Write what was trained. As in every public checkpoint the T5 is not inside state_dict.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = torch.load(lm.CHECKPOINT, weights_only=True)
    model = lm.build(lm.T5_CLOCK)
    model.load_state_dict(trained)
    t5 = model.condition_provider.conditioners["description"].t5
    tokenizer = T5Tokenizer.from_pretrained(lm.T5_CLOCK)
    text.share_spellings(t5, tokenizer)
    t5.save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    lm_state = {name: tensor for name, tensor in trained.items() if not name.startswith(T5_PREFIX)}
    _save(lm_state, lm.CONFIG, folder / "state_dict.bin")
    _save(torch.load(codec.CHECKPOINT, weights_only=True), codec.CONFIG, folder / "compression_state_dict.bin")


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
