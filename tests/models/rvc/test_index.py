"""The index of a voice is read and searched as faiss does it, but without faiss; damaged ones are refused."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from errors import ModelError
from models.rvc.index import Index, check_index, read_index
from models.rvc.retrieval import NEIGHBOURS, Retrieval
from testing import rvc_files
from testing.tensors import count_tensor_bytes

Vectors = NDArray[np.float32]


def reference_blend(index: Any, vectors: Vectors, frames: Vectors) -> Vectors:
    """RVC's own arithmetic, on faiss's own search."""
    distances, found = index.search(frames, k=NEIGHBOURS)
    weights = np.square(1 / distances)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.sum(vectors[found] * weights[..., None], axis=1))


def queries(vectors: Vectors, count: int, seed: int = 1) -> Vectors:
    """Near what is stored, as content features are."""
    generator = np.random.default_rng(seed)
    noise = 0.5 * generator.standard_normal((count, vectors.shape[1]))
    return np.asarray(vectors[generator.integers(len(vectors), size=count)] + noise, np.float32)


@pytest.mark.parametrize("width", [256, 768])
@pytest.mark.parametrize(
    ("count", "clusters"), [(200, 4), (1, 1), (50, 1), (300, 150), (2000, 50), (200, None), (10_000, None)]
)
def test_vectors_are_those_that_faiss_reconstructs(
    tmp_path: Path, width: int, count: int, clusters: int | None
) -> None:
    path = tmp_path / "a.index"
    theirs = rvc_files.save_index(path, width=width, count=count, clusters=clusters)
    ours = read_index(path, width=width)
    check_index(path, width=width)
    assert ours.vectors.dtype == np.float32
    np.testing.assert_array_equal(ours.vectors, theirs.reconstruct_n(0, theirs.ntotal))
    if clusters is not None:
        np.testing.assert_array_equal(ours.centroids, theirs.quantizer.reconstruct_n(0, clusters))
        for cluster in range(clusters):
            ids = faiss.rev_swig_ptr(theirs.invlists.get_ids(cluster), theirs.invlists.list_size(cluster))
            np.testing.assert_array_equal(np.flatnonzero(ours.clusters == cluster), np.sort(ids))


def test_few_filled_clusters_are_read_as_the_sparse_table_that_faiss_writes(tmp_path: Path) -> None:
    path, data = tmp_path / "a.index", rvc_files.make_vectors(500, 256)
    index: Any = faiss.index_factory(256, "IVF100,Flat")
    index.cp.min_points_per_centroid = 1
    index.train(data)
    index.add(data[:20])
    faiss.write_index(index, str(path))
    assert b"sprs" in path.read_bytes()
    np.testing.assert_array_equal(read_index(path, width=256).vectors, data[:20])


@pytest.mark.parametrize("kind", [1, 2], ids=["array", "hash"])
def test_a_map_of_ids_is_passed_over(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "a.index"
    index = rvc_files.save_index(path, width=256)
    index.set_direct_map_type(kind)
    faiss.write_index(index, str(path))
    np.testing.assert_array_equal(read_index(path, width=256).vectors, rvc_files.make_vectors(200, 256))


@pytest.mark.parametrize("nprobe", [1, 2, 7, 20])
def test_ivf_blends_as_rvc_does_with_faiss(tmp_path: Path, nprobe: int) -> None:
    path = tmp_path / "a.index"
    theirs = rvc_files.save_index(path, count=1000, clusters=20, nprobe=nprobe)
    index = read_index(path, width=768)
    assert index.nprobe == nprobe
    frames = queries(index.vectors, 200)
    ours = Retrieval(index, "cpu").blend_nearest(torch.from_numpy(frames), mode="ivf")
    np.testing.assert_allclose(ours.numpy(), reference_blend(theirs, index.vectors, frames), atol=1e-5)


@pytest.mark.parametrize("count", [8, 100, 511, 512, 513, 3001])
def test_exact_blends_as_a_flat_index_would(count: int) -> None:
    vectors = rvc_files.make_vectors(count, 768)
    flat = faiss.IndexFlatL2(768)
    flat.add(vectors)
    index = Index(vectors, vectors[:3], np.arange(count) % 3, 1)
    frames = queries(vectors, 300)
    ours = Retrieval(index, "cpu").blend_nearest(torch.from_numpy(frames), mode="exact")
    np.testing.assert_allclose(ours.numpy(), reference_blend(flat, vectors, frames), atol=1e-5)


@pytest.mark.parametrize("block_items", [1, 5000, 1 << 30])
def test_exact_gives_the_same_however_many_distances_are_computed_at_once(block_items: int) -> None:
    vectors = rvc_files.make_vectors(1000, 64)
    index, frames = Index(vectors, vectors[:3], np.arange(1000) % 3, 1), torch.from_numpy(queries(vectors, 70))
    expected = Retrieval(index, "cpu").blend_nearest(frames, mode="exact")
    found = Retrieval(index, "cpu", block_items=block_items).blend_nearest(frames, mode="exact")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["exact", "ivf"])
def test_a_gpu_blends_as_the_cpu(mode: Any) -> None:
    vectors = rvc_files.make_vectors(5000, 768)
    index = Index(vectors, rvc_files.make_vectors(30, 768, seed=5), np.arange(5000) % 30, 2)
    frames = torch.from_numpy(queries(vectors, 400))
    on_gpu = Retrieval(index, "cuda").blend_nearest(frames.cuda(), mode=mode).cpu()
    torch.testing.assert_close(on_gpu, Retrieval(index, "cpu").blend_nearest(frames, mode=mode), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["exact", "ivf"])
def test_a_frame_that_is_stored_itself_comes_back_as_it_is(mode: Any) -> None:
    vectors = rvc_files.make_vectors(700, 256)
    index = Index(vectors, vectors[:10], np.arange(700) % 10, 10)
    blend = Retrieval(index, "cpu").blend_nearest(torch.from_numpy(vectors), mode=mode)
    torch.testing.assert_close(blend, torch.from_numpy(vectors), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["exact", "ivf"])
def test_vectors_that_are_all_the_same_give_that_one(mode: Any) -> None:
    index = Index(np.ones((20, 256), np.float32), np.ones((2, 256), np.float32), np.arange(20) % 2, 1)
    blend = Retrieval(index, "cpu").blend_nearest(torch.ones(3, 256), mode=mode)
    torch.testing.assert_close(blend, torch.ones(3, 256))


@pytest.mark.parametrize("mode", ["exact", "ivf"])
@pytest.mark.parametrize("count", [1, 3])
def test_fewer_vectors_than_neighbours_are_all_that_count(mode: Any, count: int) -> None:
    vectors = rvc_files.make_vectors(count, 256)
    index = Index(vectors, rvc_files.make_vectors(5, 256, seed=2), np.zeros(count, np.int64), 1)
    frames = torch.from_numpy(rvc_files.make_vectors(9, 256, seed=3))
    squared = (frames[:, None] - torch.from_numpy(vectors)).square().sum(-1).double()
    weights = squared**-2 / (squared**-2).sum(1, keepdim=True)
    blend = Retrieval(index, "cpu").blend_nearest(frames, mode=mode)
    torch.testing.assert_close(blend, (weights @ torch.from_numpy(vectors).double()).float(), atol=1e-5, rtol=0)


def test_the_blend_of_a_long_recording_is_that_of_its_parts_and_keeps_the_dtype() -> None:
    vectors = rvc_files.make_vectors(24_000, 32)
    retrieval = Retrieval(Index(vectors, vectors[:50], np.arange(24_000) % 50, 1), "cpu")
    frames = torch.from_numpy(queries(vectors, 1700))
    for mode in ("exact", "ivf"):
        whole = retrieval.blend_nearest(frames.half(), mode=mode)
        assert whole.dtype == torch.half and whole.shape == frames.shape
        part = retrieval.blend_nearest(frames.half()[800:900], mode=mode)
        torch.testing.assert_close(whole[800:900], part, atol=2e-3, rtol=0)
    assert retrieval.blend_nearest(frames[:0], mode="exact").shape == (0, 32)


def test_memory_is_told(tmp_path: Path) -> None:
    rvc_files.save_index(tmp_path / "a.index", width=256, count=1000)
    retrieval = Retrieval(read_index(tmp_path / "a.index", width=256), "cpu")
    assert 1000 * 256 * 4 <= retrieval.memory_bytes < 1.2 * 1000 * 256 * 4
    assert retrieval.memory_bytes == count_tensor_bytes(retrieval)


def refusal(path: Path, width: int = 256) -> ModelError:
    errors = []
    for read in (check_index, read_index):
        with pytest.raises(ModelError) as caught:
            read(path, width=width)
        errors.append(caught.value)
    assert len({error.message for error in errors}) == 1 and str(path.parent) not in errors[0].message
    return errors[0]


@pytest.mark.parametrize(("made", "voice", "version"), [(256, 768, "v1"), (768, 256, "v2"), (128, 256, "")])
@pytest.mark.parametrize("clusters", [4, None])
def test_an_index_for_the_other_version_is_told_as_that(
    tmp_path: Path, made: int, voice: int, version: str, clusters: int | None
) -> None:
    rvc_files.save_index(tmp_path / "a.index", width=made, clusters=clusters)
    error = refusal(tmp_path / "a.index", voice)
    assert error.error_code == "broken_checkpoint" and str(made) in error.message and version in error.message


@pytest.mark.parametrize("factory", ["PQ4x4", "IVF4,PQ4x4", "HNSW8", "SQ8", "IVF4,SQ8", "IDMap,Flat"])
def test_another_kind_of_index_is_refused_by_its_name(tmp_path: Path, factory: str) -> None:
    index, data = faiss.index_factory(256, factory), rvc_files.make_vectors(300, 256)
    index.train(data)
    if factory.startswith("IDMap"):
        index.add_with_ids(data, np.arange(300))
    else:
        index.add(data)
    faiss.write_index(index, str(tmp_path / "a.index"))
    fourcc = (tmp_path / "a.index").read_bytes()[:4].decode()
    error = refusal(tmp_path / "a.index")
    assert f"'{fourcc}'" in error.message and error.error_code == "broken_checkpoint"


def test_another_metric_is_refused(tmp_path: Path) -> None:
    index = faiss.index_factory(256, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rvc_files.make_vectors(300, 256))
    index.add(rvc_files.make_vectors(300, 256))
    faiss.write_index(index, str(tmp_path / "a.index"))
    assert "L2" in refusal(tmp_path / "a.index").message


def places() -> dict[str, int]:
    """Where each number of a small IVF file stands."""
    centroids = 4 + 33 + 16 + 4 + 33 + 8
    after = centroids + 4 * 256 * 4
    return {
        "width": 4,
        "count": 8,
        "trained": 32,
        "metric": 33,
        "lists": 37,
        "nprobe": 45,
        "quantizer": 53,
        "its width": 57,
        "its count": 61,
        "its floats": 90,
        "a centroid": centroids,
        "map kind": after,
        "map size": after + 1,
        "ilar": after + 9,
        "lists again": after + 13,
        "code size": after + 21,
        "full": after + 29,
        "sizes": after + 33,
        "a size": after + 41,
        "a vector": after + 41 + 32,
    }


@pytest.mark.parametrize("place", places())
@pytest.mark.parametrize("value", [0xFF, 0x7F])
def test_every_number_in_it_is_checked(tmp_path: Path, place: str, value: int) -> None:
    path = tmp_path / "a.index"
    rvc_files.save_index(path, width=256)
    data = bytearray(path.read_bytes())
    at = places()[place]
    wide = 1 if place in ("trained", "map kind") else 4
    data[at : at + wide] = bytes([value] * wide) if place != "trained" else b"\0"
    path.write_bytes(bytes(data))
    assert refusal(path).error_code in ("broken_checkpoint", "broken_checkpoint")


def last_ids(data: bytes) -> int:
    """Where the ids of the last list begin."""
    sizes = struct.unpack_from("<4Q", data, places()["a size"])
    return len(data) - 8 * int(sizes[-1])


@pytest.mark.parametrize("id_", [-1, 200, 2**62, 0])
def test_ids_are_those_of_its_vectors_each_once(tmp_path: Path, id_: int) -> None:
    path = tmp_path / "a.index"
    rvc_files.save_index(path, width=256)
    data = bytearray(path.read_bytes())
    at = last_ids(bytes(data))
    other = next(x for x in (id_, 1, 2) if x != struct.unpack_from("<q", data, at)[0])
    struct.pack_into("<q", data, at, other)
    path.write_bytes(bytes(data))
    assert re.search(r"\bid\b", refusal(path).message)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["a centroid", "a vector"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, place: str, value: float) -> None:
    path = tmp_path / "a.index"
    rvc_files.save_index(path, width=256)
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, places()[place], value)
    path.write_bytes(bytes(data))
    assert "not finite" in refusal(path).message


@pytest.mark.parametrize("clusters", [4, None])
def test_a_file_cut_anywhere_or_continued_is_refused(tmp_path: Path, clusters: int | None) -> None:
    path = tmp_path / "a.index"
    rvc_files.save_index(path, width=256, count=20, clusters=clusters)
    data = path.read_bytes()
    for end in [*range(0, 120, 7), *range(120, len(data), 977), len(data) - 1]:
        path.write_bytes(data[:end])
        assert refusal(path).error_code == "broken_checkpoint"
    path.write_bytes(data + b"\0")
    assert refusal(path).error_code == "broken_checkpoint"


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("mutants") / "a.index"
    rvc_files.save_index(path, width=256, count=30)
    return path, path.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_with_bytes_changed_is_read_or_refused(valid: tuple[Path, bytes], data: st.DataObject) -> None:
    path, plain = valid
    head = places()["a centroid"]
    tables = places()["map kind"]
    at = st.integers(0, head) | st.integers(tables, places()["a vector"]) | st.integers(0, len(plain) - 1)
    changed = bytearray(plain)
    for place, value in data.draw(st.lists(st.tuples(at, st.integers(0, 255)), min_size=1, max_size=4)):
        changed[place] = value
    path.write_bytes(bytes(changed))
    try:
        index = read_index(path, width=256)
    except ModelError as error:
        assert error.message
    else:
        assert index.vectors.shape == (30, 256) and np.isfinite(index.vectors).all()
