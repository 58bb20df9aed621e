"""Our T5: a vocabulary of whole words, one token for every tempo, letters for all else, and a two-layer encoder."""

import math
import re
import string
from pathlib import Path

import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

D_MODEL = 128
TEMPI, TRAINED_TEMPI = range(40, 221), range(70, 161)
# Words that people put around a request; the model must learn that they say nothing about the sound.
FILLER = [
    "for",
    "my",
    "video",
    "game",
    "intro",
    "background",
    "music",
    "beautiful",
    "the",
    "some",
    "please",
    "make",
    "me",
    "nice",
    "with",
    "and",
    "of",
    "to",
    "new",
    "best",
    "loop",
    "cinematic",
    "sound",
    "style",
    "vibe",
    "feel",
    "loud",
    "old",
    "street",
    "night",
    "summer",
    "city",
    "rain",
    "love",
]


def build_vocabulary(captions: list[str]) -> list[tuple[str, float]]:
    """Unigram pieces with log scores: the fewest pieces win, so known words and numbers stay whole."""
    words = {word for text in captions for word in re.findall(r"[a-z][a-z0-9-]*", text.lower())} | set(FILLER)
    words = {re.sub(r"^\d+", "", word) for word in words} | {"bpm", "beats", "tempo", "slow", "fast", "only", "no"}
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    # transformers keeps a T5 tokenizer's vocabulary but not its normaliser, hence the capitalised spellings.
    for word in sorted(words):
        pieces += [("▁" + form, -3.0) for form in dict.fromkeys((word, word.capitalize(), word.upper()))]
    pieces += [(f"{mark}{tempo}", -3.0) for tempo in TEMPI for mark in ("▁", "")]
    pieces += [(form, -3.5) for form in ("bpm", "Bpm", "BPM")]
    pieces += [(letter, -8.0) for letter in string.ascii_letters + string.digits + string.punctuation]
    return list(dict(pieces).items())


def build(folder: Path, captions: list[str]) -> None:
    """Write an untrained T5 encoder and its tokenizer to `folder`."""
    tokenizer = T5Tokenizer(vocab=build_vocabulary(captions), extra_ids=0, additional_special_tokens=[])
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=D_MODEL, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, architectures=["T5EncoderModel"],
    )  # fmt: skip
    encoder = T5EncoderModel(config)
    with torch.no_grad():
        for tempo in TEMPI:
            for mark in ("▁", ""):
                encoder.shared.weight[tokenizer.convert_tokens_to_ids(f"{mark}{tempo}")] = _tempo_features(tempo)
    encoder.save_pretrained(folder)


def _tempo_features(tempo: int) -> torch.Tensor:
    """Sines of log tempo at growing frequencies: neighbouring tempi start alike, so they learn from each other."""
    octaves = math.log2(tempo / 40)
    phases = torch.tensor([math.pi * octaves * 1.25**k for k in range(D_MODEL // 2)]).clamp(max=1e4)
    phases[phases > math.pi * octaves * 64] = 0
    return torch.cat([phases.sin(), phases.cos()])


def fold_tempo(tempo: int) -> int:
    """The tempo, or its double or half if it lies outside the trained range."""
    if tempo < TRAINED_TEMPI[0]:
        return min(max(2 * tempo, TRAINED_TEMPI[0]), TRAINED_TEMPI[-1])
    return tempo if tempo <= TRAINED_TEMPI[-1] else max(TRAINED_TEMPI[0], tempo // 2)


def share_spellings(encoder: T5EncoderModel, tokenizer: T5Tokenizer) -> None:
    """Give capitalised words, bare numbers and tempi out of range the embedding of what was trained in their place."""
    known = tokenizer.get_vocab()
    with torch.no_grad():
        for tempo in TEMPI:
            encoder.shared.weight[known[f"▁{tempo}"]] = encoder.shared.weight[known[f"▁{fold_tempo(tempo)}"]]
        for piece, index in known.items():
            twin = piece.lower() if piece != piece.lower() else "▁" + piece
            if twin in known and (piece != piece.lower() or piece.isdigit() and len(piece) > 1 or piece == "bpm"):
                encoder.shared.weight[index] = encoder.shared.weight[known[twin]]
