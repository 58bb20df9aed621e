"""Melody conditioning: audiocraft's chroma features, of a melody that was freed of drums and bass before.

audiocraft runs Demucs inside its conditioner, at every window and for the null condition too, with a random shift. Here
the caller separates once (with the worker's own Demucs) and hands over what is left; the features are the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def melody_conditioner(settings: Mapping[str, Any], *, width: int, window: float, device: str) -> Any:
    """A `ChromaStemConditioner` without a Demucs of its own.

    Args:
        settings: the checkpoint's `chroma_stem`, as plain values.
        width: of the language model.
        window: s; every melody is cut or repeated to that.
    """
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

        def _get_stemmed_wav(self, wav: Any, sample_rate: int) -> Any:
            return convert_audio(wav, sample_rate, self.sample_rate, 1)

    names = ("sample_rate", "n_chroma", "radix2_exp", "nfft", "winlen", "winhop", "argmax", "norm")
    extractor = {name: settings[name] for name in names if settings.get(name) is not None}
    return Melody()
