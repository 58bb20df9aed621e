"""RVC checkpoints as people have them: what they say, what they hold, and why one is refused."""

from __future__ import annotations

import types
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import ModelError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.tensor_loader import read_tensors
from models.rvc.checkpoint import check_checkpoint, read_checkpoint, read_header
from models.rvc.config import ConfigError, SynthesizerConfig, expected_shapes, parse_config
from testing import rvc_files
from testing.tiny_rvc import import_networks

# Published sizes: version, rate, spectrum, upsampling rates and kernels.
SIZES = {
    "v2 32k": ("v2", 32_000, 513, (10, 8, 2, 2), (20, 16, 4, 4)),
    "40k": ("v2", 40_000, 1025, (10, 10, 2, 2), (16, 16, 4, 4)),
    "v2 48k": ("v2", 48_000, 1025, (12, 10, 2, 2), (24, 20, 4, 4)),
    "v1 32k": ("v1", 32_000, 513, (10, 4, 2, 2, 2), (16, 16, 4, 4, 4)),
    "v1 48k": ("v1", 48_000, 1025, (10, 6, 2, 2, 2), (16, 16, 4, 4, 4)),
}


def make_published(size: str, **changes: Any) -> SynthesizerConfig:
    _, rate, spectrum, rates, kernels = SIZES[size]
    plain: dict[str, Any] = {
        "spec_channels": spectrum,
        "inter_channels": 192,
        "hidden_channels": 192,
        "filter_channels": 768,
        "n_layers": 1,
        "resblock_kernel_sizes": (3, 7, 11),
        "resblock_dilation_sizes": ((1, 3, 5),) * 3,
        "upsample_rates": rates,
        "upsample_initial_channel": 512,
        "upsample_kernel_sizes": kernels,
        "n_speakers": 109,
        "gin_channels": 256,
        "sample_rate": rate,
    }
    return rvc_files.make_config(**plain | changes)


@pytest.fixture(scope="module")
def networks() -> Iterator[types.ModuleType]:
    """rvc-python's networks, past its package's own import of fairseq."""
    with import_networks() as modules, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield modules


@pytest.mark.parametrize("f0", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_are_those_of_the_real_networks(networks: types.ModuleType, size: str, f0: bool) -> None:
    version, config = SIZES[size][0], make_published(size)
    width = {"v1": 256, "v2": 768}[version]
    network_class = getattr(networks, f"SynthesizerTrnMs{width}NSFsid{'' if f0 else '_nono'}")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = network_class(*rvc_files.list_config(config), is_half=False)
    real = {name: tuple(v.shape) for name, v in network.state_dict().items() if not name.startswith("enc_q.")}
    assert expected_shapes(config, version, f0) == real


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("f0", [True, False])
@pytest.mark.parametrize("dtype", [torch.half, torch.float, torch.bfloat16])
def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path, version: str, f0: bool, dtype: torch.dtype) -> None:
    config = rvc_files.make_config(n_speakers=3)
    weights = rvc_files.make_weights(config, version, f0, dtype=dtype)
    saved = rvc_files.make_content(version, f0, weight=OrderedDict(weights))
    path = rvc_files.save(tmp_path / "a.pth", saved)
    read = read_checkpoint(path)
    assert (read.version, read.f0, read.sample_rate) == (version, f0, 40_000)
    assert read.config == config and read.config.hop_length == 400
    assert read.weights.keys() == weights.keys()
    for name, value in weights.items():
        assert read.weights[name].dtype == dtype and torch.equal(read.weights[name], value)


def test_float64_weights_are_read_as_float32(tmp_path: Path) -> None:
    weights = rvc_files.make_weights(rvc_files.make_config(), dtype=torch.double)
    read = read_checkpoint(rvc_files.save(tmp_path / "a.pth", rvc_files.make_content(weight=weights)))
    assert {value.dtype for value in read.weights.values()} == {torch.float}


@pytest.mark.parametrize(
    "changes",
    [
        {"sr": 40_000},
        {"sr": "40000"},
        {"sr": None},
        {"sr": "48k"},  # wrong, as in merged voices; the config counts
        {"sr": "fast"},
        {"f0": True},
        {"f0": "1"},
        {"f0": None},
        {"version": None},
        {"info": None, "epoch": 200, "step": 4000, "creation_date": "2025-01-01T00:00:00", "model_hash": "ab" * 32},
        {"vocoder": "HiFi-GAN", "embedder_model": "contentvec", "speakers_id": 1, "model_name": "x", "author": "Ünal"},
        {"dataset_length": 3.5, "overtrain_info": None},
    ],
)
def test_what_other_programs_write_beside_it_does_no_harm(tmp_path: Path, changes: dict[str, Any]) -> None:
    header = read_header(rvc_files.save(tmp_path / "a.pth", rvc_files.make_content() | changes))
    assert (header.version, header.sample_rate, header.f0) == ("v2", 40_000, True) and header.warnings == ()


@pytest.mark.parametrize(
    ("version", "f0", "changes", "warning"),
    [
        ("v2", True, {"version": "v1"}, "gives its version as 'v1', but its weights are v2; it is run as v2."),
        ("v1", True, {"version": "v2"}, "gives its version as 'v2', but its weights are v1; it is run as v1."),
        ("v2", True, {"version": 2}, "gives its version as another, but its weights are v2"),
        ("v2", True, {"version": [[]]}, "gives its version as another, but its weights are v2"),
        ("v2", True, {"f0": 0}, "says that it takes no pitch, but its weights do; it is run with pitch."),
        ("v2", True, {"f0": {}}, "says that it takes no pitch, but its weights do; it is run with pitch."),
        ("v2", False, {"f0": 1}, "says that it takes a pitch, but its weights take none; it is run without pitch."),
    ],
)
def test_a_label_that_the_weights_contradict_is_a_warning(
    tmp_path: Path, version: str, f0: bool, changes: dict[str, Any], warning: str
) -> None:
    saved = rvc_files.make_content(version, f0) | changes
    header = read_header(rvc_files.save(tmp_path / "a.pth", saved))
    assert (header.version, header.f0) == (version, f0)
    assert len(header.warnings) == 1 and warning in header.warnings[0]
    assert read_checkpoint(tmp_path / "a.pth").weights.keys() == saved["weight"].keys()


def test_what_is_no_part_of_the_network_is_ignored(tmp_path: Path) -> None:
    saved = rvc_files.make_content()
    expected = set(saved["weight"])
    saved["weight"] |= {"ema.decay": torch.full((2,), torch.nan), "teacher.weight": torch.zeros(2, 2).T, "step": 3}
    path = rvc_files.save(tmp_path / "a.pth", saved)
    assert read_checkpoint(path).weights.keys() == check_checkpoint(path).tensors.keys() == expected


@pytest.mark.parametrize("missing", ["version", "f0", "sr", "info"])
def test_a_key_that_old_files_lack_may_be_missing(tmp_path: Path, missing: str) -> None:
    saved = rvc_files.make_content("v1")
    del saved[missing]
    assert read_header(rvc_files.save(tmp_path / "a.pth", saved)).version == "v1"


def test_the_training_encoder_is_left_out_and_never_checked(tmp_path: Path) -> None:
    saved = rvc_files.make_content()
    saved["weight"]["enc_q.pre.weight"] = torch.full((3, 3), torch.nan)
    assert not any(name.startswith("enc_q") for name in read_checkpoint(rvc_files.save(tmp_path / "a", saved)).weights)


def test_newer_weight_norm_is_read_under_the_older_names(tmp_path: Path) -> None:
    saved = rvc_files.make_content()
    plain = dict(saved["weight"])
    new = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    saved["weight"] = {
        next((name.removesuffix(old) + to for old, to in new.items() if name.endswith(old)), name): value
        for name, value in plain.items()
    }
    assert saved["weight"].keys() != plain.keys()
    read = read_checkpoint(rvc_files.save(tmp_path / "a.pth", saved)).weights
    assert read.keys() == plain.keys() and all(torch.equal(read[name], plain[name]) for name in plain)


def test_parameters_shared_storages_and_state_dict_metadata_are_read(tmp_path: Path) -> None:
    saved = rvc_files.make_content()
    weight = saved["weight"]
    weight["emb_g.weight"] = torch.nn.Parameter(weight["emb_g.weight"])
    pair = torch.arange(32, dtype=torch.half)
    first, second = [name for name, value in weight.items() if value.shape == (16,)][:2]
    weight[first], weight[second] = pair[:16], pair[16:]
    weight._metadata = OrderedDict({"": {"version": 1}})
    read = read_checkpoint(rvc_files.save(tmp_path / "a.pth", saved)).weights
    assert torch.equal(read[first], pair[:16]) and torch.equal(read[second], pair[16:])


def refusal(path: Path) -> ModelError:
    """The one error of all three ways to read."""
    errors = []
    for read in (read_header, check_checkpoint, read_checkpoint):
        with pytest.raises(ModelError) as caught:
            read(path)
        errors.append(caught.value)
    assert len({error.message for error in errors}) == 1
    assert str(path.parent) not in errors[0].message
    return errors[0]


@pytest.mark.parametrize(
    ("stated", "embedder"),
    [(None, None), ("contentvec", "contentvec"), ("hubert_base", "contentvec"), ("Spin", "spin"),
     ("korean-hubert-base", "korean-hubert-base")],
)  # fmt: skip
def test_the_content_encoder_that_a_voice_states_is_read(
    tmp_path: Path, stated: str | None, embedder: str | None
) -> None:
    path = rvc_files.save(tmp_path / "a.pth", rvc_files.make_content() | {"embedder_model": stated})
    assert read_header(path).embedder == embedder


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"vocoder": "RefineGAN"}, "model_unsupported", "RefineGAN"),
        ({"vocoder": "MRF HiFi-GAN"}, "model_unsupported", "MRF"),
        ({"vocoder": 3}, "model_unsupported", "another"),
        ({"embedder_model": "wav2vec"}, "model_unsupported", "contentvec"),
        ({"config": None}, "broken_checkpoint", "18"),
        ({"weight": {}}, "broken_checkpoint", "content features"),
        ({"weight": 3}, "broken_checkpoint", "no 'weight'"),
        ({"weight": None, "model": {}, "optimizer": {}}, "broken_checkpoint", "training"),
    ],
)
def test_a_voice_that_we_cannot_run_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], code: str, reason: str
) -> None:
    error = refusal(rvc_files.save(tmp_path / "a.pth", rvc_files.make_content() | changes))
    assert error.error_code == code and reason in error.message


def test_missing_and_unexpected_tensors_are_listed_in_one_sentence(tmp_path: Path) -> None:
    saved = rvc_files.make_content()
    weight = saved["weight"]
    del weight["dec.conv_post.weight"]
    weight["enc_p.proj.bias"] = torch.zeros(7)
    weight["enc_p.extra"] = torch.zeros(1)
    weight["dec.cond.bias"] = weight["dec.cond.bias"].long()
    message = refusal(rvc_files.save(tmp_path / "a.pth", saved)).message
    for part in (
        "'dec.conv_post.weight' is missing",
        "'enc_p.proj.bias' is [7] and not [16]",
        "'enc_p.extra' is not of its network",
        "'dec.cond.bias' is of type int64",
    ):
        assert part in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.half, torch.float, torch.bfloat16, torch.double])
def test_a_weight_that_is_not_finite_is_named(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    weights = rvc_files.make_weights(rvc_files.make_config(), dtype=dtype)
    weights["dec.conv_pre.weight"][3, 2, 1] = value
    path = rvc_files.save(tmp_path / "a.pth", rvc_files.make_content(weight=weights))
    for read in (check_checkpoint, read_checkpoint):
        with pytest.raises(ModelError, match="'dec.conv_pre.weight' holds values that are not finite"):
            read(path)


def test_torchs_format_from_before_2020_is_read(tmp_path: Path) -> None:
    saved = rvc_files.make_content()
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    read = read_checkpoint(tmp_path / "a.pth")
    assert check_checkpoint(tmp_path / "a.pth").config == read.config == rvc_files.make_config()
    assert read.weights.keys() == saved["weight"].keys()
    assert all(torch.equal(read.weights[name], value) for name, value in saved["weight"].items())


def test_a_file_from_before_2020_that_is_cut_short_or_changed_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(rvc_files.make_content(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    index = data.find(b"\x80\x02}")
    for at in (*range(index, index + 4000, 97), *range(len(data) - 200, len(data), 13)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        for read in (check_checkpoint, read_checkpoint):
            try:
                read(path)
            except ModelError as error:
                assert error.message and str(tmp_path) not in error.message
    path.write_bytes(data[:-300])
    assert "cut short" in refusal(path).message


@pytest.mark.parametrize("data", [b"", b"PK", b"not a model", b"PK\x05\x06" + bytes(18), b"\x1f\x8b" * 40, b"RIFF" * 9])
def test_what_is_no_checkpoint_at_all_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    assert refusal(tmp_path / "a.pth").error_code == "broken_checkpoint"


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = rvc_files.save(tmp_path / "a.pth", rvc_files.make_content())
    path.write_bytes(path.read_bytes()[:-300])
    assert "cut short" in refusal(path).message


ODD_CONFIGS: list[tuple[int, Any]] = [
    (0, 0),
    (0, True),
    (0, 10**12),
    (1, -1),
    (2, 7),
    (2, "192"),
    (3, 2.0),
    (5, 3),
    (6, 33),
    (8, float("nan")),
    (8, 1),
    (9, "2"),
    (9, ["1"]),
    (10, [2]),
    (10, []),
    (10, [3] * 7),
    (11, [[1, 3]]),
    (11, [[1, 3, 10**9]]),
    (11, [1, 3, 5]),
    (12, [10, 10, 2]),
    (12, [10, 10, 2, 0]),
    (12, [10, 10, 2, 4]),
    (13, 24),
    (14, [16, 16, 4, 1]),
    (14, [16, 16, 4, 5]),
    (14, [16, 16, 4]),
    (15, 0),
    (16, None),
    (17, 44_100),
    (17, "x" * 1000),
]


@pytest.mark.parametrize(("place", "value"), ODD_CONFIGS)
def test_every_number_of_the_config_is_bounded(place: int, value: Any) -> None:
    config = rvc_files.list_config(rvc_files.make_config())
    assert parse_config(config) == rvc_files.make_config()
    config[place] = value
    with pytest.raises(ConfigError):
        parse_config(config)


@pytest.mark.parametrize("config", [None, 3, "x" * 18, [], [1] * 17, [1] * 19, {}])
def test_a_config_that_is_no_list_of_18_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError):
        parse_config(config)


class Dictionary:
    """Stands for fairseq's own class, which is not there when the file is read."""

    def __init__(self) -> None:
        self.symbols = ["a", "b"]
        self.indices = {"a": 0, ("b", "c"): 1}


def test_fairseqs_file_is_read_without_constructing_its_objects(tmp_path: Path) -> None:
    import argparse

    state = {"encoder.layer_norm.weight": torch.randn(8), "mask_emb": torch.randn(8).half(), "steps": torch.tensor(3)}
    saved = {
        "args": argparse.Namespace(arch="hubert", labels=["km"]),
        "cfg": {"task": {"_name": "hubert_pretraining", "path": tmp_path}},
        "model": OrderedDict(state),
        "task_state": {"dictionaries": [Dictionary(), Dictionary()]},
        "seen": {1, 2},
        ("odd", "key"): b"bytes",
    }
    path = rvc_files.save(tmp_path / "hubert_base.pt", saved)
    path.write_bytes(path.read_bytes().replace(__name__.encode(), b"x" * len(__name__)))  # no module has the class now
    read = read_tensors(path)
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)


def test_a_bare_state_dict_with_buffers_is_read(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 5), torch.nn.BatchNorm1d(3))
    read = read_tensors(rvc_files.save(tmp_path / "rmvpe.pt", network.state_dict()))
    assert read["1.num_batches_tracked"].shape == () and read["1.num_batches_tracked"].dtype == torch.long
    network.load_state_dict(read)


@pytest.mark.parametrize("saved", [{}, [1, 2], torch.zeros(3), {"model": 3}])
def test_a_file_without_named_weights_is_refused(tmp_path: Path, saved: Any) -> None:
    with pytest.raises(CheckpointError, match="it holds no weights by name"):
        read_tensors(rvc_files.save(tmp_path / "x.pt", saved))


def test_a_tensor_that_is_not_contiguous_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\.contiguous\(\)"):
        read_tensors(rvc_files.save(tmp_path / "x.pt", {"a": torch.zeros(4, 5).T}))
