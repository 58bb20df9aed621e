"""Planners are found, described, downloaded and loaded; what is broken is refused by name before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from errors import ErrorCode, ModelError, UnknownNameError
from models.acestep.catalog import MAIN_HUB_ID
from models.acestep.planner.catalog import BY_NAME, CATALOG, find_catalog_name
from models.acestep.planner.family import PlannerFamily, estimate_memory
from models.acestep.planner.lm import choose_weight_dtype
from models.acestep.planner.request import PlanRequest
from models.checkpoints.hub import HuggingFaceHub
from models.checkpoints.locations import WeightLocations
from models.device import Gpu
from testing.fake_hub import start_fake_hub
from testing.models import list_as_json
from testing.repository import ROOT
from testing.tiny_planner import write_tiny_planner

SMALL, MIDDLE, LARGE = "acestep-5Hz-lm-0.6B", "acestep-5Hz-lm-1.7B", "acestep-5Hz-lm-4B"
GIGABYTE = 1_000_000_000


def make_family(root: Path, *, gpu_bytes: int = 0) -> PlannerFamily:
    return PlannerFamily(
        WeightLocations(explicit=root), gpu_finder=lambda: Gpu("a card", gpu_bytes, gpu_bytes) if gpu_bytes else None
    )


def test_the_sizes_of_the_catalogue_are_those_of_the_published_models() -> None:
    assert [round(card.config.parameters / 1e6) for card in CATALOG] == [4190, 1854, 663]
    assert [card.config.cache_numbers * 2 for card in CATALOG] == [147_456, 114_688, 114_688]  # bytes a token
    assert {card.name: card.hub_id for card in CATALOG} == {
        LARGE: "ACE-Step/acestep-5Hz-lm-4B",
        MIDDLE: MAIN_HUB_ID,
        SMALL: "ACE-Step/acestep-5Hz-lm-0.6B",
    }


@pytest.mark.parametrize("name", ["acestep-5Hz-lm-4B", "ACE-Step/acestep-5Hz-lm-4B", "5Hz-lm-4B", "4B"])
def test_a_published_planner_has_several_spellings(name: str) -> None:
    assert find_catalog_name(name) == LARGE


def test_every_planner_is_listed_with_its_licence(tmp_path: Path) -> None:
    write_tiny_planner(tmp_path, SMALL)
    write_tiny_planner(tmp_path, "my-planner")
    rows = {row["name"]: row for row in list_as_json(make_family(tmp_path))}
    assert list(rows) == [LARGE, MIDDLE, SMALL, "my-planner"]
    assert rows[SMALL]["available"] == rows["my-planner"]["available"] == "local"
    assert rows[SMALL]["licence"] == "MIT (card)" and rows["my-planner"]["licence"].startswith("unknown")
    assert "not here" in rows[LARGE]["available"]


@pytest.mark.parametrize("below", ["", "checkpoints", "ACE-Step/Ace-Step1.5", "Ace-Step1.5", "ACE-Step"])
def test_a_planner_is_found_in_every_collection(tmp_path: Path, below: str) -> None:
    write_tiny_planner(tmp_path / below, MIDDLE)
    family = make_family(tmp_path)
    assert family.resolve(MIDDLE).name == MIDDLE
    assert [row["name"] for row in list_as_json(family)] == [LARGE, MIDDLE, SMALL]


def test_the_main_repositorys_snapshot_holds_a_planner_in_a_folder(tmp_path: Path) -> None:
    write_tiny_planner(tmp_path / "models--ACE-Step--Ace-Step1.5" / "snapshots" / ("a" * 40), MIDDLE)
    assert make_family(tmp_path).resolve(None).name == MIDDLE


@pytest.mark.parametrize(
    ("gpu_gb", "present", "expected"),
    [
        (80, (SMALL, MIDDLE, LARGE), LARGE),
        (16, (SMALL, MIDDLE, LARGE), MIDDLE),
        (8, (SMALL, MIDDLE, LARGE), SMALL),
        (0, (SMALL, MIDDLE, LARGE), SMALL),
        (0, (MIDDLE, LARGE), MIDDLE),
        (80, (SMALL,), SMALL),
    ],
)
def test_the_default_is_the_best_planner_that_leaves_room(
    tmp_path: Path, gpu_gb: int, present: tuple[str, ...], expected: str
) -> None:
    for name in present:
        write_tiny_planner(tmp_path, name)
    assert make_family(tmp_path, gpu_bytes=gpu_gb * GIGABYTE).resolve(None).name == expected


def test_a_broken_planner_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    write_tiny_planner(tmp_path, MIDDLE)
    (write_tiny_planner(tmp_path, SMALL) / "model.safetensors").write_bytes(b"cut")
    handle = make_family(tmp_path).resolve(None)
    assert handle.name == MIDDLE and SMALL in handle.warnings[0] and "broken" in handle.warnings[0]


def test_without_any_planner_the_error_says_what_to_do(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    with pytest.raises(ModelError, match="No planner is here. Name one to download"):
        family.resolve(None)
    with pytest.raises(ModelError, match="is not here and cannot be downloaded"):
        family.resolve(SMALL)
    with pytest.raises(UnknownNameError, match="Unknown planner 'acestep-5hz-lm-0.7B'"):
        family.resolve("acestep-5hz-lm-0.7B")
    assert "no planner is here" in family.readiness().reason


def edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_config(num_hidden_layers=3), "'model.layers.2.self_attn.q_proj.weight' of its network is missing"),
        (edit_config(num_hidden_layers=1), "more layers than the 1"),
        (edit_config(vocab_size=1000), r"'model.embed_tokens.weight' of its network is \[624, 32\]"),
        (edit_config(num_key_value_heads=3), "do not fit together"),
        (edit_config(hidden_act="gelu"), "'hidden_act' in config.json is gelu, which is not supported"),
        (edit_config(rope_scaling={"type": "yarn"}), "'rope_scaling' in config.json is a section"),
        (edit_config(hidden_size=10**9), "'hidden_size'"),
        (edit_config(hidden_size="wide"), "'hidden_size'"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100), "model.safetensors is broken"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds no settings"),
    ],
)
def test_a_broken_planner_is_refused_before_it_is_loaded(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_tiny_planner(tmp_path, SMALL))
    with pytest.raises(ModelError, match=message) as caught:
        make_family(tmp_path).resolve(SMALL)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT and SMALL in caught.value.message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text('{"<|audio_code_0|>": 1}'), "tokenizer.json"),
        (edit_weights(lambda t: t["model.norm.weight"].fill_(float("nan"))), "'model.norm.weight' holds values that"),
        (edit_weights(lambda t: t.pop("model.layers.0.mlp.up_proj.weight")), "layers.0.mlp.up_proj.weight' is missing"),
        (
            edit_weights(lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(9)})),
            "q_norm.weight' is",
        ),
    ],
)
def test_what_is_broken_inside_is_refused_when_it_is_loaded(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_tiny_planner(tmp_path, SMALL))
    with pytest.raises(ModelError, match=message):
        make_family(tmp_path).load(SMALL, device="cpu")


@pytest.mark.parametrize("file", ["tokenizer.json", "model-00002-of-00002.safetensors"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, file: str) -> None:
    (write_tiny_planner(tmp_path, SMALL, num_shards=2) / file).unlink()
    with pytest.raises(ModelError, match=file) as caught:
        make_family(tmp_path).resolve(SMALL)
    assert caught.value.error_code == ErrorCode.MODEL_INCOMPLETE


@pytest.mark.parametrize(("name", "num_shards"), [(SMALL, 1), (MIDDLE, 1), (LARGE, 2)])
def test_a_planner_is_downloaded_and_loaded(tmp_path: Path, name: str, num_shards: int) -> None:
    folder = write_tiny_planner(tmp_path / "published", name, num_shards=num_shards)
    below = BY_NAME[name].files_below
    files = {below + path.name: path.read_bytes() for path in folder.iterdir()}
    with start_fake_hub(files | {"README.md": b"card", "modeling.py": b"raise SystemExit"}) as server:
        hub = HuggingFaceHub(cache=tmp_path / "cache", endpoint=server.endpoint)
        family = PlannerFamily(WeightLocations(explicit=tmp_path / "cache", hub=hub))
        assert family.describe(name).to_json()["available"] == "download"
        assert family.resolve(name).name == name
        family.download(name)
        assert sorted(server.sent) == sorted(files)
        engine = family.load(name, device="cpu")
        assert sorted(server.sent) == sorted(files)
    assert family.describe(name).to_json()["available"] == "local"
    assert engine.plan(PlanRequest(mode="metas", seed=0, caption="x", write_caption=False)).metas.bpm


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    folder = write_tiny_planner(tmp_path, SMALL)
    family = make_family(tmp_path)
    keys = {family.version_key(SMALL)}
    for file in ("tokenizer.json", "model.safetensors"):
        content = (folder / file).read_bytes()
        (folder / file).unlink()
        (folder / file).write_bytes(content + b" ")
        keys.add(family.version_key(SMALL))
    assert len(keys) == 3


def test_the_memory_estimate_covers_weights_keys_and_values(tmp_path: Path) -> None:
    """On a GPU: the weights, then keys and values of a four-minute song for five clips, and of a long plan."""
    write_tiny_planner(tmp_path, SMALL)
    engine = make_family(tmp_path).load(SMALL, device="cpu")
    config, itemsize = engine.lm.config, choose_weight_dtype("cpu").itemsize
    heads = (engine.lm.num_text + engine.lm.num_codes) * config.hidden_size
    assert engine.memory_bytes == pytest.approx((config.parameters + heads) * itemsize, rel=0.05)
    for card in CATALOG:
        weights, token = 2 * card.config.parameters, 2 * card.config.cache_numbers
        estimate = estimate_memory(card.config, weight_bytes=2, on_gpu=True)
        assert weights + (5 * 2 * 1400 + 6000) * token <= estimate <= weights + 4 * GIGABYTE


def test_planners_are_listed_without_torch(tmp_path: Path) -> None:
    write_tiny_planner(tmp_path, SMALL)
    code = (
        "import sys; from pathlib import Path\n"
        "from models.acestep.planner.family import PlannerFamily\n"
        "from models.checkpoints.locations import WeightLocations\n"
        f"family = PlannerFamily(WeightLocations(explicit=Path({str(tmp_path)!r})))\n"
        "family.list_models(); family.resolve(None); family.memory_bytes('acestep-5Hz-lm-0.6B')\n"
        "family.version_key('acestep-5Hz-lm-0.6B'); family.readiness()\n"
        "assert not {'torch', 'transformers', 'diffusers', 'tokenizers'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
