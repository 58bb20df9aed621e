"""`xp.cfg` as plain values: what OmegaConf reads from it, without the environment, imports or unbounded expansion."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf, SCMode

from models.checkpoints.errors import CheckpointError
from models.checkpoints.safe_pickle import PickledObject
from models.musicgen.inspect import AUDIOCRAFT_LIMITS, read_package
from models.musicgen.xp_config import CONFIG_CLASSES, read_xp_config
from testing.tiny_musicgen import training_settings

SECRET = "sk-SECRET-123"

YAML = """
rate: 1e-3
fine: 1.5e-07
whole: 3
negative: -2.5
octal: 010
flag: yes
text: "1e-3"
when: 2020-01-01
version: 1.3.0
nothing: null
limits: [.inf, -.inf]
items: [1, 2.5, "${whole}"]
nested:
  size: ${whole}
  sibling: ${.size}
  above: ${..rate}
  first: ${items.0}
  deeper: {"0": a, again: "${nested.above}"}
"""


def test_settings_are_what_omegaconf_reads() -> None:
    """PyYAML would take `1e-3` for text and `2020-01-01` for a date."""
    expected: Any = OmegaConf.to_container(OmegaConf.create(YAML), resolve=True)
    assert read_xp_config(YAML) == expected
    assert expected["rate"] == 0.001 and expected["nested"]["sibling"] == 3 and expected["nested"]["above"] == 0.001


@given(number=st.floats(allow_nan=False) | st.integers(), style=st.sampled_from(["{}", "{:e}", "{:.3g}", "+{}"]))
def test_numbers_are_read_as_by_omegaconf(number: float, style: str) -> None:
    text = f"a: {style.format(number)}"
    assert read_xp_config(text) == OmegaConf.to_container(OmegaConf.create(text))


@dataclass
class Typed:
    """A structured configuration: its nodes are typed, and have more kinds than those made from YAML."""

    path: Path = Path("/data/music")
    mode: SCMode = SCMode.DICT
    either: int | str = 3
    data: bytes = b"\x00\xff"
    size: int = 4
    rate: float = 0.5
    flag: bool = True
    name: str | None = None


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_settings_are_read_without_omegaconfs_classes(tmp_path: Path, new_format: bool) -> None:
    tree = OmegaConf.create(YAML)
    OmegaConf.update(tree, "typed", OmegaConf.create(vars(Typed())))
    # hydra's `${now:%Y-%m-%d}` leaves its value here, and the arguments are the key.
    tree._metadata.resolver_cache["now"][("%Y-%m-%d",)] = "2023-06-08"
    torch.save({"best_state": {}, "xp.cfg": tree}, tmp_path / "x.bin", _use_new_zipfile_serialization=new_format)
    package = read_package(tmp_path / "x.bin")
    assert isinstance(package.content["xp.cfg"], PickledObject)
    expected: Any = OmegaConf.to_container(tree, resolve=True)
    # Bytes and enumerations are no settings of a network.
    expected["typed"] |= {"path": "/data/music", "mode": None, "data": None}
    assert package.settings.values == expected


def test_structured_settings_are_read_as_plain_values(tmp_path: Path) -> None:
    """Their pickle names types: of the nodes, of each union, and of the configuration itself, which is not allowed."""
    tree = OmegaConf.structured(Typed)
    tree._metadata.object_type = dict
    torch.save({"best_state": {}, "xp.cfg": tree}, tmp_path / "x.bin")
    values = read_package(tmp_path / "x.bin").settings.values
    assert values == vars(Typed()) | {"path": "/data/music", "mode": None, "data": None}


@pytest.mark.parametrize("settings", [None, 3, "3", "a: [", "[]", "", "a: !!binary [", "\0"])
def test_settings_that_are_none_are_refused(settings: Any) -> None:
    with pytest.raises(CheckpointError, match=r"xp\.cfg"):
        read_xp_config(settings)


def test_only_settings_are_allowed_in_a_music_checkpoint() -> None:
    assert AUDIOCRAFT_LIMITS.classes == CONFIG_CLASSES
    assert not any(name.endswith(("getattr", "eval", "exec", "import_module")) for name in CONFIG_CLASSES)
    assert not {name.partition(".")[0] for name in CONFIG_CLASSES} & {"os", "posix", "nt", "subprocess", "sys", "runpy"}


@pytest.mark.parametrize("pickled", [False, True])
def test_the_environment_is_never_read(pickled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setenv("SUNO_API_TOKEN", SECRET)
    settings = training_settings() | {
        "sample_rate": 32_000,
        "direct": "${oc.env:SUNO_API_TOKEN}",
        "inside": "x${oc.env:SUNO_API_TOKEN}y",
        "default": "${oc.env:NO_SUCH_NAME,${oc.env:SUNO_API_TOKEN}}",
        "decoded": "${oc.decode:${oc.env:SUNO_API_TOKEN}}",
        "indirect": "${direct}",
        "key": "${dora.${oc.env:SUNO_API_TOKEN}}",
        "select": "${oc.select:direct}",
    }
    torch.save({"best_state": {}, "xp.cfg": OmegaConf.create(settings)}, tmp_path / "x.bin")
    read = read_package(tmp_path / "x.bin").settings.values if pickled else read_xp_config(yaml.safe_dump(settings))
    assert SECRET not in repr(read)
    assert read["dora"]["dir"] == "/checkpoint/${oc.env:USER}/outputs"
    assert read["direct"] == read["indirect"] == "${oc.env:SUNO_API_TOKEN}"
    assert read["generate"]["audio"]["sample_rate"] == 32_000 and read["optim"]["ema"]["updates"] == 2000


@pytest.mark.parametrize(
    "text",
    [
        "a: ${b}",
        "a: ${a}",
        "a: ${b}\nb: ${a}",
        "a: ${b}\nb: [1]",
        "a: ${b}\nb: {c: 1}",
        "a: ${b.c.d}\nb: {c: 1}",
        "a: ${..b}\nb: 1" + "0" * 400,
        "a: ${b.7}\nb: [1]",
        "a: ${b.99999999999999999999}\nb: [1]",
        "a: '${'",
        "a: '${b:'",
        "\n".join(["a: ${a0}", *(f"a{index}: ${{a{index + 1}}}" for index in range(40)), "a40: 1"]),
    ],
)
def test_a_reference_without_a_plain_value_stays_text(text: str) -> None:
    assert isinstance(read_xp_config(text)["a"], str | int)
    assert text.startswith("a: ${..b}") or str(read_xp_config(text)["a"]).startswith("${")


def nest(levels: int, width: int) -> list[Any]:
    """Lists of the same list: `width` to the power of `levels` items in a few bytes."""
    items: list[Any] = [1]
    for _ in range(levels):
        items = [items] * width
    return items


ALIASES = "a0: &a0 [1]\n" + "\n".join(
    f"a{index + 1}: &a{index + 1} [{', '.join([f'*a{index}'] * 10)}]" for index in range(5)
)
MERGES = "a0: &a0 {x: 1}\n" + "\n".join(
    f"a{index + 1}: &a{index + 1} {{<<: [{', '.join([f'*a{index}'] * 10)}]}}" for index in range(5)
)


@pytest.mark.parametrize(
    "config",
    [
        "a: " + "[" * 5000,
        "a: " + "[" * 100 + "]" * 100,
        "a: " + "{a: " * 100 + "1" + "}" * 100,
        "a: " + "9" * 5000,
        "a: " + "1:" * 100 + "1",
        "a: &a [*a]",
        ALIASES,
        "a: " + "x" * (1 << 18),
        "a: [" + "1," * 30_000 + "1]",
        PickledObject("omegaconf.dictconfig.DictConfig", (), {"_content": {"a": nest(5, 10)}}),
        PickledObject("omegaconf.dictconfig.DictConfig", (), {"_content": {"a": nest(100, 1)}}),
    ],
    ids=range(11),
)
def test_settings_that_expand_without_bound_are_refused(config: Any) -> None:
    try:
        read = read_xp_config(config)
    except CheckpointError as error:
        assert "xp.cfg" in str(error)
    else:
        assert read == {"a": pytest.approx(sum(60**power for power in range(101)))}, "a number in base 60"


def test_settings_that_hold_themselves_are_refused() -> None:
    tree = PickledObject("omegaconf.dictconfig.DictConfig", ())
    tree.state = {"_content": {"a": tree}}
    with pytest.raises(CheckpointError):
        read_xp_config(tree)


def test_merge_keys_are_not_expanded() -> None:
    assert read_xp_config(MERGES) == {"a0": {"x": 1}, **{f"a{index + 1}": {} for index in range(5)}}


def test_paths_and_unknown_tags_in_yaml_do_not_make_it_unreadable() -> None:
    tree = OmegaConf.create({"path": Path("/data"), "size": 3})
    read = read_xp_config(OmegaConf.to_yaml(tree) + "other: !!python/object/apply:os.system [touch pwned]\n")
    assert read == {"path": None, "size": 3, "other": None}


def test_a_path_of_any_python_version_is_read() -> None:
    for module in ("pathlib", "pathlib._local"):
        path = PickledObject(f"{module}.PosixPath", ("/", "data", "music"))
        assert read_xp_config({"a": path, "b": PickledObject(f"{module}.PosixPath", (3,))}) == {
            "a": "/data/music",
            "b": None,
        }


def test_a_pickle_is_read_alike_with_every_version_of_omegaconf() -> None:
    """2.1 has no `_flags_cache` among the state, and protocol 2 names builtins by their module of Python 2."""
    data = pickle.dumps(OmegaConf.create(YAML), 2)
    assert b"_flags_cache" not in data and b"__builtin__" in data
