"""Files of RoFormer models: every published layout is read, and what is broken or hostile is refused with its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from errors import ErrorCode, ModelError
from models.roformer.checkpoint import ModelFiles, RoformerCheckpoint, read_model_config
from models.roformer.config import RoformerConfig
from models.roformer.network import RoformerNetwork
from testing.tiny_roformer import Kind, Shape, State, make_state, write_roformer

SMALL: dict[str, Any] = {
    "stft_n_fft": 64,
    "stft_win_length": 64,
    "stft_hop_length": 16,
    "num_bands": 4,
    "freqs_per_bands": (8, 8, 17),
    "dim": 8,
}
"""A spectrum of 33 bins."""


@pytest.mark.parametrize("kind", ["mel", "bs"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_kinds_are_read_from_both_formats(
    tmp_path: Path, kind: Kind, suffix: Literal[".ckpt", ".safetensors"], prefix: str
) -> None:
    shape = Shape(kind=kind, num_stems=2, **SMALL)
    state = make_state(shape)
    checkpoint = RoformerCheckpoint(_write(tmp_path, kind, suffix=suffix, prefix=prefix, state=state))
    assert checkpoint.config.kind == kind
    assert checkpoint.config.stems == ("vocals", "other")
    _check_weights(checkpoint, state)


@pytest.mark.parametrize("wrapper", ["state", "state_dict", "model_state_dict", "model"])
def test_a_state_dict_below_a_key_is_found(tmp_path: Path, wrapper: str) -> None:
    state = make_state(Shape(num_stems=2, **SMALL))
    _check_weights(RoformerCheckpoint(_write(tmp_path, wrapper=wrapper, prefix="module.", state=state)), state)


def test_half_precision_is_read(tmp_path: Path) -> None:
    checkpoint = RoformerCheckpoint(_write(tmp_path, half=True))
    network = RoformerNetwork(checkpoint.config, checkpoint.read, "cpu", "float32")
    assert network(torch.randn(1, 2, 400)).isfinite().all()


@pytest.mark.parametrize(("kind", "linears"), [("mel", 3), ("bs", 2)])
def test_the_layers_of_the_mask_estimators_are_counted_and_not_taken_from_the_yaml(
    tmp_path: Path, kind: Kind, linears: int
) -> None:
    assert _read(_write(tmp_path / "a", kind)).mask_linears == linears
    assert _read(_write(tmp_path / "b", kind, mask_linears=4)).mask_linears == 4


def test_sizes_come_from_the_tensors_whatever_the_yaml_states(tmp_path: Path) -> None:
    wrong = {"dim": 999, "depth": 9, "heads": 7, "dim_head": 3, "num_stems": 5, "num_bands": 17, "kind": "bs"}
    shape = Shape(**SMALL)
    files = _write(tmp_path, settings={"model": shape.describe() | wrong})
    config = _read(files)
    assert (config.kind, config.dim, config.depth) == ("mel", 8, 1)
    assert (config.num_attention_heads, config.head_dim, len(config.bands)) == (2, 8, 4)


def test_the_yaml_gives_what_tensors_do_not_show(tmp_path: Path) -> None:
    settings = {
        "inference": {"chunk_size": 6000, "num_overlap": 4, "normalize": True},
        "audio": {"chunk_size": 5000, "sample_rate": 48_000},
        "model": Shape(**SMALL, skip_connection=True, zero_dc=False).describe() | {"sample_rate": 32_000},
    }
    config = _read(_write(tmp_path / "a", settings=settings, sample_rate=32_000))
    assert (config.chunk_length, config.num_overlap, config.normalize) == (6000, 4, True)
    assert (config.sample_rate, config.hop_length, config.n_fft) == (32_000, 16, 64)
    assert config.skip_connection
    assert not config.zero_dc
    del settings["inference"]["chunk_size"]
    assert _read(_write(tmp_path / "b", settings=settings, sample_rate=32_000)).chunk_length == 5000
    assert _read(_write(tmp_path / "c", "bs")).zero_dc is False
    assert _read(_write(tmp_path / "d", "mel")).zero_dc is True


def test_a_target_names_the_stem_and_the_other_instrument_what_remains(tmp_path: Path) -> None:
    config = _read(_write(tmp_path / "a", stems=("Vocals", "Instrumental"), target="Vocals"))
    assert (config.stems, config.complement) == (("vocals",), "instrumental")
    assert config.outputs == ("vocals", "instrumental")
    config = _read(_write(tmp_path / "b", stems=("bass", "drums", "other"), target="drums"))
    assert (config.stems, config.complement) == (("drums",), "other")
    config = _read(_write(tmp_path / "c", stems=("Vocals", "Instrumental")))
    assert (config.outputs, config.complement) == (("vocals", "instrumental"), None)


def test_a_part_of_a_file_with_many_stems_gives_what_the_whole_gives(tmp_path: Path) -> None:
    names = [f"instrument {index}" for index in range(7)]
    state = make_state(Shape(kind="bs", num_stems=7, **SMALL))
    whole = RoformerCheckpoint(_write(tmp_path / "whole", "bs", stems=names, state=state))
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("mask_estimators.")}
    heads = {
        name: tensor for name, tensor in state.items() if name.startswith(("mask_estimators.5.", "mask_estimators.2."))
    }
    part = RoformerCheckpoint(_write(tmp_path / "part", "bs", stems=names, state=trunk | heads))
    assert part.config.stems == ("instrument 2", "instrument 5")
    renumbered = {
        name.replace("mask_estimators.5.", "mask_estimators.0."): tensor
        for name, tensor in heads.items()
        if ".5." in name[:18]
    }
    single = RoformerCheckpoint(
        _write(tmp_path / "single", "bs", stems=names, target="instrument 5", state=trunk | renumbered)
    )
    mix = torch.randn(1, 2, 400, generator=torch.Generator().manual_seed(1))
    expected = _separate(whole, mix, [2, 5])
    torch.testing.assert_close(_separate(part, mix), expected, rtol=0, atol=0)
    torch.testing.assert_close(_separate(single, mix), expected[:, 1:], rtol=0, atol=0)


def test_a_renumbered_part_without_a_target_does_not_say_which_stem_it_is(tmp_path: Path) -> None:
    state = make_state(Shape(kind="bs", **SMALL))
    files = _write(tmp_path, "bs", stems=("a", "b", "c"), state=state)
    _check_refused(files, "1 mask estimators, and its training.instruments name 3 (a, b, c)")


@pytest.mark.parametrize(
    ("extra", "variant"),
    [
        ("mask_estimators.0.segm.conv.weight", "HyperACE"),
        ("layers.0.0.layers.0.0.pope_embed.bias", "PoPE"),
        ("layers.0.0.layers.0.conv.net.1.weight", "Conformer"),
        ("layers.0.2.layers.0.0.norm.gamma", "linear transformer"),
    ],
)
def test_derived_networks_are_refused_by_name(tmp_path: Path, extra: str, variant: str) -> None:
    state = make_state(Shape(num_stems=2, **SMALL)) | {extra: torch.zeros(3)}
    with pytest.raises(ModelError, match=f"'tiny.ckpt' cannot be run: it is the variant '{variant}") as caught:
        _read(_write(tmp_path, state=state))
    assert caught.value.error_code == ErrorCode.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    ("setting", "variant"), [("use_pope", "PoPE"), ("linear_transformer_depth", "linear transformer")]
)
def test_settings_name_derived_networks_too(tmp_path: Path, setting: str, variant: str) -> None:
    with pytest.raises(ModelError, match=variant):
        _read(_write(tmp_path / "a", settings={"model": Shape(**SMALL).describe() | {setting: 1}}))
    _read(_write(tmp_path / "b", settings={"model": Shape(**SMALL).describe() | {setting: 0}}))


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_weights_that_are_no_numbers_are_refused_when_they_are_read(
    tmp_path: Path, suffix: Literal[".ckpt", ".safetensors"]
) -> None:
    state = make_state(Shape(num_stems=2, **SMALL))
    state["mask_estimators.1.to_freqs.2.0.2.weight"][3, 2] = float("nan")
    checkpoint = RoformerCheckpoint(_write(tmp_path, suffix=suffix, state=state))
    network = RoformerNetwork(checkpoint.config, checkpoint.read, "cpu", "float32")
    network.prepare([0])
    with pytest.raises(ModelError, match=rf"'tiny{suffix}' .* not finite") as caught:
        network.prepare([1])
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.4, 0.99])
def test_truncated_weights_are_refused(tmp_path: Path, suffix: Literal[".ckpt", ".safetensors"], part: float) -> None:
    files = _write(tmp_path, suffix=suffix)
    data = files.weights.read_bytes()
    files.weights.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelError, match=f"'tiny{suffix}'") as caught:
        checkpoint = RoformerCheckpoint(files)
        RoformerNetwork(checkpoint.config, checkpoint.read, "cpu", "float32").prepare([0, 1])
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT


def test_mislabelled_weights_are_refused(tmp_path: Path) -> None:
    files = _write(tmp_path, suffix=".safetensors")
    mislabelled = files.weights.with_suffix(".ckpt")
    files.weights.rename(mislabelled)
    _check_refused(ModelFiles(mislabelled, files.settings), "'tiny.ckpt'")
    files = _write(tmp_path / "b")
    mislabelled = files.weights.with_suffix(".safetensors")
    files.weights.rename(mislabelled)
    _check_refused(ModelFiles(mislabelled, files.settings), "'tiny.safetensors'")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    files = _write(tmp_path, state={"encoder.weight": torch.zeros(3)})
    _check_refused(files, "'tiny.ckpt' of the separation model cannot be used: it holds the weights of another network")


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile",)


def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = _write(tmp_path)
    torch.save({"state_dict": make_state(Shape(**SMALL)), "extra": _Hostile()}, files.weights)
    _check_refused(files, "mkdir")
    assert not Path("hostile").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no section 'model'"),
        ("- a\n- b", "no section 'model'"),
        ("model: 3", "no section 'model'"),
        ("model: {dim: 3", "plain data"),
        ("model: {dim: !!python/object/apply:os.getcwd []}", "more than plain data"),
        ("model: !!python/object/new:dict {}", "more than plain data"),
        ("model: {a: !!python/tuple [1, x]}", "tuple of something else"),
        ("model: {a: &x [1], b: *x}", "more than plain data"),
        ("model: {a: !custom 3}", "more than plain data"),
        ("model: \x00", "plain data"),
        ("model:\n" + "".join(" " * (i + 1) + "a:\n" for i in range(200)), "nested too deeply"),
        ("- " * 20_000, "nested too deeply"),
        ("[" * 20_000, "larger"),
        ("#" * (1 << 17), "larger"),
    ],
    ids=range(14),
)
def test_a_broken_or_hostile_yaml_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    files = _write(tmp_path)
    files.weights.with_suffix(".yaml").write_text(content)
    _check_refused(files, "'tiny.yaml'", reason)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.6])
def test_a_truncated_yaml_is_refused(tmp_path: Path, part: float) -> None:
    files = _write(tmp_path)
    yaml = files.weights.with_suffix(".yaml")
    yaml.write_bytes(yaml.read_bytes()[: int(part * yaml.stat().st_size)])
    with pytest.raises(ModelError) as caught:
        read_model_config(files)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT and "'tiny." in caught.value.message


def test_the_yaml_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    files = _write(tmp_path)
    files.weights.with_suffix(".yaml").write_text("models: ['aaaa1111', 'bbbb2222']\nweights: [[1, 0], [0, 1]]\n")
    _check_refused(files, "'tiny.yaml'", "no section 'model'")


def test_a_yaml_in_another_encoding_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    files = _write(tmp_path)
    files.weights.with_suffix(".yaml").write_bytes(b"model: \xff\xfe")
    _check_refused(files, "'tiny.yaml'", "plain data")
    files.weights.with_suffix(".yaml").unlink()
    _check_refused(files, "'tiny.yaml'")
    files = _write(tmp_path / "b")
    files.weights.unlink()
    _check_refused(files, "'tiny.ckpt'")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"stft_n_fft": 128}, "do not cover the 65 bins of the spectrum"),
        ({"stft_n_fft": "x"}, "stft_n_fft"),
        ({"stft_hop_length": 0}, "stft_hop_length"),
        ({"stft_hop_length": 65}, "stft_hop_length"),
        ({"stft_win_length": 65}, "stft_win_length"),
        ({"zero_dc": "maybe"}, "zero_dc"),
        ({"sample_rate": 9_999_999}, "sample_rate"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, model: Mapping[str, Any], reason: str) -> None:
    files = _write(tmp_path, settings={"model": Shape(**SMALL).describe() | dict(model)})
    _check_refused(files, reason)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"training": {"instruments": ["a", "A"]}}, "different names"),
        ({"training": {"instruments": []}}, "name 0 (none)"),
        ({"training": {"instruments": "vocals"}}, "training.instruments"),
        ({"audio": {"chunk_size": 1 << 30}}, "chunk_size"),
        ({"audio": {"chunk_size": 8}}, "chunk_size"),
        ({"inference": {"num_overlap": 0}}, "num_overlap"),
    ],
    ids=str,
)
def test_sections_that_cannot_be_are_refused(tmp_path: Path, settings: Mapping[str, Any], reason: str) -> None:
    _check_refused(_write(tmp_path, settings=settings), reason)


@pytest.mark.parametrize("kind", ["mel", "bs"])
def test_bands_that_do_not_cover_the_spectrum_are_refused(tmp_path: Path, kind: Kind) -> None:
    state = make_state(Shape(kind=kind, num_stems=2, **SMALL))
    last = max(int(name.split(".")[2]) for name in state if name.startswith("band_split."))
    less = {name: tensor for name, tensor in state.items() if not name.startswith(f"band_split.to_features.{last}.")}
    _check_refused(_write(tmp_path, kind, state=less), f"its {last} bands do not cover the 33 bins")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("layers.0.0.layers.0.0.to_gates.weight", "to_gates.weight' is missing"),
        ("layers.0.1.layers.0.0.norm.gamma", "is missing"),
        ("layers.0.0.norm.gamma", "norms are neither"),
        ("mask_estimators.0.to_freqs.0.0.0.weight", "mask estimators"),
    ],
)
def test_missing_tensors_are_refused_before_any_weight_is_read(tmp_path: Path, name: str, reason: str) -> None:
    state = make_state(Shape(**SMALL))
    del state[name]
    _check_refused(_write(tmp_path, target="vocals", state=state), reason)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    files = _write(tmp_path)
    assert _read(files).depth == 1
    _write(tmp_path, depth=2)
    assert _read(files).depth == 2


def _write(folder: Path, kind: Kind = "mel", **more: Any) -> ModelFiles:
    weights = write_roformer(folder, kind, name="tiny", chunk_size=1000, **SMALL | more)
    return ModelFiles(weights, weights.with_suffix(".yaml"))


def _read(files: ModelFiles) -> RoformerConfig:
    return read_model_config(files)


def _separate(checkpoint: RoformerCheckpoint, mix: torch.Tensor, columns: list[int] | None = None) -> torch.Tensor:
    stems: torch.Tensor = RoformerNetwork(checkpoint.config, checkpoint.read, "cpu", "float32")(mix, columns)
    return stems


def _check_weights(checkpoint: RoformerCheckpoint, state: State) -> None:
    read = checkpoint.read(["mask_estimators.1.", "band_split."])
    expected = {
        name: tensor for name, tensor in state.items() if name.startswith(("mask_estimators.1.", "band_split."))
    }
    assert read.keys() == expected.keys()
    for name, tensor in read.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def _check_refused(files: ModelFiles, *reasons: str) -> None:
    with pytest.raises(ModelError) as caught:
        _read(files)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT
    for reason in reasons:
        assert reason in caught.value.message
