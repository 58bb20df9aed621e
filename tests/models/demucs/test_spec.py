"""What Demucs' weights files state: packages of demucs 4.0, quantised weights, and files that are malformed."""

from __future__ import annotations

import io
import json
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from errors import ErrorCode, ModelError
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import read_bag
from models.demucs.family import DemucsFamily
from models.demucs.load import load_network
from models.demucs.spec import NETWORKS, is_demucs_file, read_spec
from testing import tiny_demucs as tiny
from testing.models import list_as_json
from testing.tiny_rvc import restore_modules

NETWORK_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "htdemucs": tiny.htdemucs,
    "htdemucs_6s": tiny.htdemucs_6s,
    "hdemucs_mmi": tiny.hdemucs,
    "hybrid_old of mdx": lambda: tiny.hdemucs(hybrid_old=True),
    "demucs of mdx": tiny.demucs,
}


@pytest.mark.parametrize("numpy", [1, 2])
@pytest.mark.parametrize("name", NETWORK_MAKERS)
def test_a_package_with_numpy_metrics_is_read(tmp_path: Path, name: str, numpy: Any) -> None:
    network = NETWORK_MAKERS[name]()
    path = tiny.save_package(network, tmp_path, "955717e8", numpy=numpy)
    loaded = load_network(path)
    assert type(loaded) is type(network)
    for left, right in zip(loaded.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(left, right.half().float())
    spec = read_spec(path)
    assert list(spec.stems) == network.sources and spec.sample_rate == 44_100
    assert spec.max_segment == (pytest.approx(1.56) if name.startswith("ht") else None)


def test_a_package_names_what_a_published_one_names(tmp_path: Path) -> None:
    path = tiny.save_package(tiny.htdemucs(), tmp_path, "955717e8", numpy=1)
    with zipfile.ZipFile(path) as archive:
        index = next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    for name in (
        b"c_codecs\nencode\n",
        b"ccollections\nOrderedDict\n",
        b"cdemucs.htdemucs\nHTDemucs\n",
        b"cfractions\nFraction\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"cnumpy\ndtype\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
    ):
        assert name in index


def test_a_package_in_torchs_format_from_before_2020_is_read(tmp_path: Path) -> None:
    network = tiny.demucs()
    loaded = load_network(tiny.save_package(network, tmp_path, "old", old_format=True))
    for left, right in zip(loaded.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(left, right.half().float())


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.target),))

    def __init__(self, target: str) -> None:
        self.target = target


def test_a_package_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    package = {"klass": _Bomb(str(target)), "args": (), "kwargs": {}, "state": {}}
    torch.save(package, tmp_path / "bad.th")
    for read in (read_spec, load_network):
        with pytest.raises(ModelError, match=r"'bad\.th'.*may be code"):
            read(tmp_path / "bad.th")
    assert not target.exists()


@pytest.mark.parametrize(
    "package",
    [
        {"klass": "demucs.htdemucs.HTDemucs", "args": (), "kwargs": {}, "state": {}},
        {"args": (), "kwargs": {}, "state": {}},
        {"state": 3},
        [1, 2],
    ],
)
def test_a_th_file_that_is_no_package_is_refused(tmp_path: Path, package: Any) -> None:
    torch.save(package, tmp_path / "bad.th")
    for read in (read_spec, load_network):
        with pytest.raises(ModelError, match=r"'bad\.th'") as caught:
            read(tmp_path / "bad.th")
        assert caught.value.error_code == "broken_checkpoint"


def test_a_package_with_another_checksum_than_its_name_says_is_refused(tmp_path: Path) -> None:
    path = tiny.save_package(tiny.htdemucs(), tmp_path, "955717e8")
    renamed = path.with_name("955717e8-00000000.th")
    path.rename(renamed)
    with pytest.raises(ModelError, match="checksum"):
        load_network(renamed)


def test_arguments_that_repeat_or_contain_themselves_end_in_an_error(tmp_path: Path) -> None:
    """A pickle may refer to the same list often, so that a few bytes stand for any number of values."""
    doubled: list[Any] = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    from demucs.htdemucs import HTDemucs

    for number, value in enumerate((doubled, endless, deep)):
        path = tmp_path / f"{number}.th"
        torch.save({"klass": HTDemucs, "args": (["a"], value), "kwargs": {}, "state": {"x": torch.zeros(1)}}, path)
        with pytest.raises(ModelError) as caught:
            load_network(path)
        assert caught.value.error_code == "broken_checkpoint" and path.name in caught.value.message


def save_quantised(path: Path, *, with_class: bool) -> Path:
    """A package as demucs writes it with diffq, whose own class stands in it; older ones have only the flag."""
    from demucs.demucs import Demucs

    with restore_modules("diffq"):
        module = types.ModuleType("diffq.diffq")
        sys.modules |= {"diffq": types.ModuleType("diffq"), "diffq.diffq": module}
        quantizer = type("DiffQuantizer", (), {"__module__": "diffq.diffq"})
        module.DiffQuantizer = quantizer  # type: ignore[attr-defined]
        state: dict[str, Any] = {"quantized": [torch.zeros(4, dtype=torch.uint8)], "__quantized": True}
        if with_class:
            state["meta"] = {"klass": quantizer, "init_kwargs": {"group_size": 8}}
        torch.save({"klass": Demucs, "args": (tiny.FOUR,), "kwargs": {}, "state": state}, path)
    return path


def list_quantised_files(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    tiny.save(tiny.htdemucs(), folder / "c.safetensors", metadata={"structure": json.dumps({"_class": "os.system"})})
    nested = {"_dict": [["quantized", {"_list": []}], ["meta", {"_class": "diffq.diffq.DiffQuantizer"}]]}
    tiny.save(tiny.htdemucs(), folder / "d.safetensors", metadata={"structure": json.dumps(nested)})
    return [
        save_quantised(folder / "a.th", with_class=True),
        save_quantised(folder / "b.th", with_class=False),
        folder / "c.safetensors",
        folder / "d.safetensors",
    ]


def test_quantised_weights_are_named_as_such_and_import_nothing(tmp_path: Path) -> None:
    for path in list_quantised_files(tmp_path):
        for read in (read_spec, load_network):
            with pytest.raises(ModelError, match="quantised") as caught:
                read(path)
            assert caught.value.error_code == "model_unsupported"
    assert "diffq" not in sys.modules


def test_quantised_models_are_named_as_such_by_every_question(tmp_path: Path) -> None:
    list_quantised_files(tmp_path / "files")
    (tmp_path / "mine").mkdir()
    (tmp_path / "files" / "a.th").rename(tmp_path / "mine" / "a.th")
    family = DemucsFamily(WeightLocations(tmp_path))
    rows = {row["name"]: row["available"] for row in list_as_json(family)}
    assert "quantised" in rows["mine"] and "quantised" in rows["mdx_q"] and "use 'mdx_extra'" in rows["mdx_extra_q"]
    for name in ("mdx_q", "mdx_extra_q"):
        with pytest.raises(ModelError, match="quantised") as caught:
            family.resolve(name)
        assert caught.value.error_code == "model_unsupported"
    for question in (family.describe, lambda name: family.load(name, device="cpu")):
        with pytest.raises(ModelError, match="quantised"):
            question("mine")


DESCRIBED = {"klass": NETWORKS[0], "args": '[["a", "b"]]', "kwargs": "{}"}

BROKEN_KWARGS = [
    '{"samplerate": "x"}',
    '{"samplerate": [1]}',
    '{"samplerate": 1e999}',
    '{"samplerate": null}',
    '{"samplerate": ' + "9" * 400 + "}",
    '{"segment": null}',
    '{"segment": "x"}',
    '{"segment": -1}',
    '{"segment": 1e999}',
    '{"segment": ' + "9" * 400 + "}",
    '{"segment": {"_type": "fraction", "numerator": ' + "9" * 400 + ', "denominator": 1}}',
    '{"segment": {"_type": "fraction", "numerator": [], "denominator": 1}}',
    '{"use_train_segment": "perhaps"}',
    '{"depth": ' + "[" * 300 + "]" * 300 + "}",
    '{"depth": ' + "[" * 100_000 + "]" * 100_000 + "}",
]


@pytest.mark.parametrize("kwargs", BROKEN_KWARGS, ids=lambda text: text[:40])
def test_an_argument_that_cannot_be_is_reported_and_other_models_go_on(tmp_path: Path, kwargs: str) -> None:
    tiny.save_bag(tmp_path / "good", {"a": tiny.htdemucs()})
    (tmp_path / "bad").mkdir()
    save_file({"x": torch.zeros(1)}, str(tmp_path / "bad" / "b.safetensors"), metadata=DESCRIBED | {"kwargs": kwargs})
    family = DemucsFamily(WeightLocations(tmp_path))
    rows = {row["name"]: row["available"] for row in list_as_json(family)}
    assert rows["good"] == "local"
    if "depth" not in kwargs or len(kwargs) > 100_000:  # whether a depth can be is known when the network is built
        assert "'b.safetensors' of the separation model cannot be used" in rows["bad"]
    with pytest.raises(ModelError, match=r"'b\.safetensors'") as caught:
        family.load("bad", device="cpu")
    assert caught.value.error_code == "broken_checkpoint"


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__": [1], "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"__metadata__": {"klass": 3}}',
        b"[" * 50_000,
        b"{}",
        b"\xff",
        b"3",
    ],
    ids=lambda header: repr(header[:20]),
)
def test_a_header_that_cannot_be_is_reported_with_the_files_name(tmp_path: Path, header: bytes) -> None:
    folder = tiny.save_bag(tmp_path / "bad", {"b": tiny.htdemucs()})
    (folder / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    tiny.save_bag(tmp_path / "good", {"a": tiny.htdemucs()})
    family = DemucsFamily(WeightLocations(tmp_path))
    rows = {row["name"]: row["available"] for row in list_as_json(family)}
    assert rows["good"] == "local" and "'b.safetensors'" in rows["bad"]
    with pytest.raises(ModelError, match=r"'b\.safetensors'"):
        family.load("bad", device="cpu")


@pytest.mark.parametrize(
    "text",
    [
        "models: [a]\nweights: [[" + "9" * 400 + ", 1, 1, 1]]",
        "models: [a]\nweights: [[0x" + "f" * 5000 + ", 1, 1, 1]]",
        "models: [a]\nsegment: " + "9" * 400,
        "models: [a]\nsegment: !!int ''",
        "models: [a]\nsegment: !!bool maybe",
        "models: [a]\nsegment: !!timestamp x",
        "models: [a]\nsegment: 2001-99-99",
        "models: [a]\n? [b]\n: c",
        "a: &a [x, x]\nb: &b [*a, *a]\nmodels: [*b, *b]",
        "models: [a]\n# " + "x" * 10_000,
        "[" * 4000,
        "models: [a]\x00",
    ],
    ids=lambda text: text[:40],
)
def test_a_bag_that_cannot_be_is_reported_with_the_files_name(tmp_path: Path, text: str) -> None:
    folder = tiny.save_bag(tmp_path / "bad", {"a": tiny.htdemucs()})
    tiny.save_bag(tmp_path / "good", {"a": tiny.htdemucs()})
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"'bad\.yaml'") as caught:
        read_bag(folder / "bad.yaml")
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT
    rows = {row["name"]: row["available"] for row in list_as_json(DemucsFamily(WeightLocations(tmp_path)))}
    assert rows["good"] == "local" and "'bad.yaml' of the separation model cannot be used" in rows["bad"]


def test_a_th_file_of_another_program_is_no_separation_model(tmp_path: Path) -> None:
    torch.save({"sample_rate": 32_000, "bands": {"weight": torch.zeros(1)}}, tmp_path / "other.th")
    (tmp_path / "cut.th").write_bytes((tmp_path / "other.th").read_bytes()[:100])
    assert not is_demucs_file(tmp_path / "other.th") and is_demucs_file(tmp_path / "cut.th")


# Each value has an effect on what is described: changed names, values of every kind, or none at all.
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=2))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.save_bag(folder / "bag", {"a": tiny.htdemucs()})
    tiny.save_package(tiny.htdemucs(), folder / "old", "sig")
    tiny.save_bag(folder / "good", {"a": tiny.hdemucs()})
    return folder


def list_local(folder: Path) -> dict[str, str]:
    rows = list_as_json(DemucsFamily(WeightLocations(folder)))
    json.dumps(rows, allow_nan=False)
    return {row["name"]: row["available"] for row in rows}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kwargs=st.dictionaries(st.sampled_from(["samplerate", "segment", "sources", "use_train_segment"]), VALUES))
def test_any_arguments_are_listed_or_refused(model_folder: Path, kwargs: dict[str, Any]) -> None:
    described = DESCRIBED | {"kwargs": json.dumps(kwargs)}
    save_file({"x": torch.zeros(1)}, str(model_folder / "bag" / "a.safetensors"), metadata=described)
    rows = list_local(model_folder)
    assert rows["good"] == "local" and rows["bag"]


@pytest.mark.parametrize("key", [b"klass", b"kwargs"])
def test_a_package_whose_key_is_damaged_is_listed_as_broken(model_folder: Path, key: bytes) -> None:
    (path,) = (model_folder / "old").glob("*.th")
    original = path.read_bytes()
    path.write_bytes(original.replace(key, b"x" * len(key), 1))
    try:
        assert "cannot be used" in list_local(model_folder)["old"]
    finally:
        path.write_bytes(original)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_package_with_bytes_changed_is_listed_or_refused(model_folder: Path, data: st.DataObject) -> None:
    (path,) = (model_folder / "old").glob("*.th")
    original = path.read_bytes()
    index = original.find(b"\x80\x02}")
    places = st.integers(index, index + 20_000) | st.integers(len(original) - 3000, len(original) - 1)
    changed = bytearray(original)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        changed[min(at, len(original) - 1)] = value
    path.write_bytes(changed)
    try:
        rows = list_local(model_folder)
        assert rows["good"] == "local" and rows["old"]
    finally:
        path.write_bytes(original)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30) | st.text("models:[]{}&*!-? a1\n", max_size=40))
def test_any_yaml_is_listed_or_refused(model_folder: Path, text: str) -> None:
    (model_folder / "bag" / "bag.yaml").write_text(text)
    assert list_local(model_folder)["good"] == "local"


def test_the_writer_of_packages_writes_what_torch_reads(tmp_path: Path) -> None:
    path = tiny.save_package(tiny.demucs(), tmp_path, "sig", numpy=2)
    import numpy as np
    from demucs.demucs import Demucs

    scalar = np.float64(0).__reduce__()[0]
    allowed = [Demucs, (scalar, "numpy._core.multiarray.scalar"), np.dtype, np.dtypes.Float64DType]
    with torch.serialization.safe_globals([*allowed, np.dtypes.Int64DType]):
        package = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    assert package["metrics"][1]["sdr"] == 7.5 and package["training_args"]["lr"] == 3e-4
