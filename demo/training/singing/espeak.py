"""Lets espeak-ng speak syllables: audio and the start of every phoneme, through its C library.

`python -m demo.training.singing.espeak en+f3 speech.npz` records all syllables of the lexicon.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.training.singing.lexicon import SYLLABLES

LIBRARY = "libespeak-ng.so.1"
# Values of speak_lib.h.
_AUDIO_RETRIEVAL, _PHONEME_EVENTS = 1, 0x0001
_POSITION_CHARACTER = 1
_UTF8, _PHONEME_INPUT = 1, 0x100
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_EVENT_PHONEME = 7
WORDS_PER_MINUTE = 100
_BUFFER_MS = 200


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Engine:
    """The library, with one voice."""

    def __init__(self, voice: str) -> None:
        self._library: Any = ctypes.CDLL(LIBRARY)
        self.sample_rate = int(self._library.espeak_Initialize(_AUDIO_RETRIEVAL, _BUFFER_MS, None, _PHONEME_EVENTS))
        if self.sample_rate <= 0:
            raise RuntimeError("espeak-ng could not be started: its data is missing. Install Debian's espeak-ng.")
        self._blocks: list[NDArray[np.int16]] = []
        self._events: list[tuple[str, int]] = []
        self._callback = _Callback(self._receive)  # kept, because the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, WORDS_PER_MINUTE), (_PITCH, 50), (_PITCH_RANGE, 0)):
            self._library.espeak_SetParameter(parameter, value, 0)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        number = 0
        while events[number].type:
            if events[number].type == _EVENT_PHONEME:
                self._events.append((events[number].id.string.decode(), int(events[number].sample)))
            number += 1
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, phonemes: tuple[str, ...]) -> tuple[NDArray[np.int16], list[int]]:
        """The waveform, and the starts as in `recording.Speech`."""
        self._blocks.clear()
        self._events.clear()
        stressed = "".join("'" + phoneme if phoneme[0] in "AiuO0VEI3Uaeo" else phoneme for phoneme in phonemes)
        text = f"[[{stressed}]]".encode() + b"\0"
        flags = _UTF8 | _PHONEME_INPUT
        if self._library.espeak_Synth(text, len(text), 0, _POSITION_CHARACTER, 0, flags, None, None) != 0:
            raise RuntimeError(f"espeak-ng could not speak {stressed}")
        self._library.espeak_Synchronize()
        spoken = [event for event in self._events if not event[0].startswith("_")]
        if tuple(symbol for symbol, _ in spoken) != phonemes:
            raise ValueError(f"espeak-ng speaks {[symbol for symbol, _ in spoken]} for {phonemes}")
        end = next(position for symbol, position in self._events[len(spoken) :] if symbol.startswith("_"))
        return np.concatenate(self._blocks), [*(position for _, position in spoken), end]


def _main() -> None:
    voice, path = sys.argv[1:]
    engine = _Engine(voice)
    arrays: dict[str, Any] = {"sample_rate": engine.sample_rate}
    for number, phonemes in enumerate(SYLLABLES.values()):
        waveform, starts = engine.speak(phonemes)
        arrays |= {f"{number}.waveform": waveform, f"{number}.starts": starts}
    np.savez(path, **arrays)


if __name__ == "__main__":
    _main()
