"""T5 from transformers' folders, compared with transformers' own network on the same random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from errors import ModelError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import SAFETENSORS_FILE, TORCH_FILE, find_weights
from models.checkpoints.locations import WeightLocations
from models.checkpoints.tensor_loader import read_tensors
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.musicgen.t5 import T5, read_tokenizer
from testing.repository import ROOT
from testing.tiny_musicgen import write_checkpoint, write_hub_codec, write_t5

DEMO_T5 = ROOT / "demo/weights/musicgen/t5"


def write_encoder(folder: Path, **changes: Any) -> Any:
    """transformers' T5 encoder, its weights as large as in a trained one, saved to `folder`."""
    from transformers import T5Config, T5EncoderModel

    sizes = {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 2}
    torch.manual_seed(0)
    model: Any = T5EncoderModel(T5Config(**{**sizes, **changes}))
    model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("count", [1, 2, 20, 400])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feed_forward_proj": "gated-gelu"},
        {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 40, "layer_norm_epsilon": 1e-3},
    ],
)
def test_the_text_encoder_equals_transformers_t5(tmp_path: Path, changes: dict[str, Any], count: int) -> None:
    theirs = write_encoder(tmp_path, **changes)
    tokens = torch.randint(50, (count,), generator=torch.Generator().manual_seed(count)).tolist()
    with torch.inference_mode():
        expected = theirs(torch.tensor([tokens])).last_hidden_state[0]
        torch.testing.assert_close(T5.read(tmp_path, "cpu")(tokens), expected, atol=1e-5, rtol=1e-4)


def test_missing_settings_have_the_defaults_of_transformers_t5(tmp_path: Path) -> None:
    theirs = write_encoder(tmp_path, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8)
    (tmp_path / "config.json").write_text("{}")
    tokens = [3, 1, 4, 1, 5]
    with torch.inference_mode():
        expected = theirs(torch.tensor([tokens])).last_hidden_state[0]
        torch.testing.assert_close(T5.read(tmp_path, "cpu")(tokens), expected, atol=1e-4, rtol=1e-4)


def test_tuned_weights_replace_those_of_the_folder(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    tuned = {name: tensor + 0.1 for name, tensor in load_file(tmp_path / SAFETENSORS_FILE).items()}
    own, other = T5.read(tmp_path, "cpu")([5, 6]), T5.read(tmp_path, "cpu", tuned)([5, 6])
    assert not torch.allclose(own, other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("encoder.final_layer_norm.weight"), "final_layer_norm"),
        (lambda state: state.update({"encoder.block.9.x": torch.ones(1)}), "left over"),
        (lambda state: state.update({"encoder.final_layer_norm.weight": torch.ones(7)}), r"\[7\] and not \[24\]"),
    ],
)
def test_a_text_encoder_that_does_not_fit_its_settings_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    write_encoder(tmp_path)
    state = load_file(tmp_path / SAFETENSORS_FILE)
    change(state)
    save_file(state, tmp_path / SAFETENSORS_FILE)
    with pytest.raises(CheckpointError, match=says):
        T5.read(tmp_path, "cpu")


def test_an_unsupported_feed_forward_layer_is_refused(tmp_path: Path) -> None:
    write_encoder(tmp_path, feed_forward_proj="gated-silu")
    with pytest.raises(CheckpointError, match="gated-silu"):
        T5.read(tmp_path, "cpu")


@pytest.fixture(scope="module")
def tokenizers_of_the_demo() -> tuple[Any, Any]:
    """Ours, and transformers'."""
    from transformers import T5Tokenizer

    return read_tokenizer(DEMO_T5), T5Tokenizer.from_pretrained(DEMO_T5)


TEXTS = st.sampled_from(["  two  blanks ", "UPPER lower", "tabs\tand\nlines", "é ü 😀", "</s> <pad> <extra_id_0>"])


@given(text=st.text(max_size=60) | TEXTS)
@effort(deadline=None)
def test_texts_are_tokenized_as_by_transformers(tokenizers_of_the_demo: tuple[Any, Any], text: str) -> None:
    ours, theirs = tokenizers_of_the_demo
    assert ours(text) == theirs(text)["input_ids"]


def test_limits_that_were_saved_with_a_tokenizer_are_ignored(tmp_path: Path) -> None:
    import tokenizers

    write_t5(tmp_path)
    limited = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = limited.encode("slow piano with drums").ids
    limited.enable_truncation(2)
    limited.enable_padding(length=40)
    limited.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path)("slow piano with drums") == expected


def test_a_tokenizer_that_cannot_be_read_makes_the_checkpoint_broken(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    (folder / "t5" / "tokenizer.json").write_text('{"version": "9"}')
    with pytest.raises(ModelError, match="tokenizer.json cannot be read") as refused:
        load_engine(inspect_checkpoint(folder, WeightLocations()), device="cpu")
    assert refused.value.error_code == "broken_checkpoint"


@pytest.mark.parametrize("content", [b"", b"no model", bytes(range(256)) * 40])
def test_a_sentencepiece_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"spiece\.model"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_weights_is_refused(tmp_path: Path) -> None:
    """Its ids would reach beyond the embedding, which on a GPU ends the process."""
    folder = write_checkpoint(tmp_path / "model")
    path = folder / "t5" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] += [[f"▁more{index}", -9.0] for index in range(50)]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="tokenizer has .* tokens, and its weights have"):
        load_engine(inspect_checkpoint(folder, WeightLocations()), device="cpu")


def test_a_tokenizer_in_sentencepieces_format_is_read(tmp_path: Path) -> None:
    import sentencepiece

    texts = ["slow piano with drums", "fast techno, 128 bpm", "ambient in c major", "bass and synth"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    ours = read_tokenizer(tmp_path)
    for text in [*texts, "piano  drums", "xylophone"]:
        assert ours(text) == [*theirs.encode(text), theirs.eos_id()]


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_in_torchs_formats_equal_those_in_safetensors(tmp_path: Path, zipped: bool) -> None:
    """In the format of before 2020 too, in which the oldest of the hub's files are."""
    write_encoder(tmp_path)
    safe = T5.read(tmp_path, "cpu")([5, 6])
    state = load_file(tmp_path / SAFETENSORS_FILE)
    torch.save(state, tmp_path / TORCH_FILE, _use_new_zipfile_serialization=zipped)
    (tmp_path / SAFETENSORS_FILE).unlink()
    assert torch.equal(T5.read(tmp_path, "cpu")([5, 6]), safe)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (SAFETENSORS_FILE, b"no tensors", "its file model.safetensors is broken: it is not a safetensors file"),
        (TORCH_FILE, None, "pytorch_model.bin is broken: it holds no weights by name"),
    ],
)
def test_files_without_tensors_are_refused(tmp_path: Path, file: str, content: bytes | None, reason: str) -> None:
    if content is None:
        torch.save([torch.ones(1)], tmp_path / file)
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        read_tensors(find_weights(tmp_path))


def test_loading_imports_no_modelling_code_of_transformers(tmp_path: Path) -> None:
    """It alone would double a cold start."""
    write_t5(tmp_path / "t5")
    write_hub_codec(tmp_path / "codec")
    program = (
        "import sys, models.musicgen.load as load\n"
        "from pathlib import Path\n"
        "from models.musicgen.t5 import T5, read_tokenizer\n"
        "from models.encodec.load import from_folder\n"
        "folder = Path(sys.argv[1])\n"
        "T5.read(folder / 't5', 'cpu')(read_tokenizer(folder / 't5')('slow piano'))\n"
        "from_folder(folder / 'codec', 'cpu')\n"
        "print(*[name for name in ('transformers', 'torch._dynamo', 'audiocraft', 'sympy') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
