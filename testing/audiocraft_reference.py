"""audiocraft's own classes on a checkpoint folder: the reference for our engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf, open_dict

from models.musicgen.audiocraft_import import import_audiocraft
from models.musicgen.load import read_weights


def load_audiocraft_lm(folder: Path, *, device: str = "cpu") -> Any:
    """`LMModel` as audiocraft's loader makes it (float32 on a CPU, else float16), with the T5 in `folder/t5`."""
    import_audiocraft()
    package, state = read_weights(folder / "state_dict.bin")
    settings = OmegaConf.create(dict(package.settings.values))
    with open_dict(settings):
        settings.device, settings.dtype = device, "float32" if device == "cpu" else "float16"
        settings.conditioners.description.t5.name = register_t5(folder / "t5")
        wav = settings.conditioners.pop("self_wav", None)
    lm = importlib.import_module("audiocraft.models.builders").get_lm_model(settings)
    if wav is not None:
        window = settings.dataset.segment_duration
        conditioner = build_melody_conditioner(wav.chroma_stem, width=lm.dim, window=window, device=device)
        lm.condition_provider.conditioners["self_wav"] = conditioner
    lm.load_state_dict(state)
    lm.cfg = settings
    return lm.eval()


def load_audiocraft_codec(folder: Path, *, device: str = "cpu") -> Any:
    """The mono `CompressionModel` of `folder`."""
    import_audiocraft()
    package, state = read_weights(folder / "compression_state_dict.bin")
    settings = OmegaConf.create(dict(package.settings.values) | {"device": device})
    model = importlib.import_module("audiocraft.models.builders").get_compression_model(settings)
    model.load_state_dict(state)
    return model.eval()


def load_audiocraft_musicgen(folder: Path, *, device: str = "cpu") -> Any:
    """`MusicGen` as `get_pretrained` makes it, wrapped for stereo if the checkpoint is stereo."""
    import_audiocraft()
    musicgen = importlib.import_module("audiocraft.models.musicgen").MusicGen
    lm = load_audiocraft_lm(folder, device=device)
    # The default stride must be shorter than the window, so the window is set afterwards.
    model = musicgen("reference", load_audiocraft_codec(folder, device=device), lm, max_duration=30.0)
    model.max_duration = lm.cfg.dataset.segment_duration
    return model


def register_t5(folder: Path) -> str:
    """Adds the folder of a T5 to the names that audiocraft's conditioner accepts, and returns its name."""
    from transformers import T5Config

    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    name = str(folder)
    if name not in conditioners.T5Conditioner.MODELS:
        conditioners.T5Conditioner.MODELS.append(name)
    conditioners.T5Conditioner.MODELS_DIMS[name] = T5Config.from_pretrained(folder).d_model
    return name


def build_melody_conditioner(settings: Mapping[str, Any], *, width: int, window: float, device: str) -> Any:
    """audiocraft's `ChromaStemConditioner` without Demucs: the melody has been separated already."""
    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    chroma = importlib.import_module("audiocraft.modules.chroma")
    convert_audio = importlib.import_module("audiocraft.data.audio_utils").convert_audio

    class Melody(conditioners.ChromaStemConditioner):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            conditioners.WaveformConditioner.__init__(self, settings["n_chroma"], width, device)
            self.autocast = conditioners.TorchAutocast(enabled=False)
            self.sample_rate = settings["sample_rate"]
            self.match_len_on_eval, self._use_masking = True, False
            self.duration = window
            self.chroma = chroma.ChromaExtractor(**extractor).to(device)
            self.chroma_len = self._get_chroma_len()
            self.eval_wavs = self.cache = None

        def _get_stemmed_wav(self, wav: torch.Tensor, sample_rate: int) -> Any:
            return convert_audio(wav, sample_rate, self.sample_rate, 1)

    names = ("sample_rate", "n_chroma", "radix2_exp", "nfft", "winlen", "winhop", "argmax", "norm")
    extractor = {name: settings[name] for name in names if settings.get(name) is not None}
    return Melody()


def compute_audiocraft_conditions(lm: Any, texts: list[str]) -> Any:
    """Condition tensors of a batch with these descriptions and no melody, then of their null conditions."""
    from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes, WavCondition

    silence = WavCondition(torch.zeros(1, 1, 1), torch.tensor([0]), [16_000], [None], [0.0])
    attributes = [ConditioningAttributes(text={"description": text}) for text in texts]
    for attribute in attributes:
        attribute.wav |= {name: silence for name in lm.condition_provider.wav_conditions}
    attributes += ClassifierFreeGuidanceDropout(p=1.0)(attributes)
    return lm.condition_provider(lm.condition_provider.tokenize(attributes))


@torch.no_grad()
def compute_audiocraft_logits(lm: Any, codes: torch.Tensor, conditions: Any) -> torch.Tensor:
    """`[steps, rows, K, card]`: one pass over the whole sequence instead of step by step."""
    pattern = lm.pattern_provider.get_pattern(codes.shape[-1])
    sequence, _, _ = pattern.build_pattern_sequence(codes, lm.special_token_id)
    rows = torch.cat([sequence, sequence])[..., :-1]
    logits: torch.Tensor = lm(rows, conditions=[], condition_tensors=conditions)
    return logits.permute(2, 0, 1, 3)
