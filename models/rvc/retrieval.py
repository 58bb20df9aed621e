"""Replaces content features by a blend of the nearest vectors in the voice's index.

RVC blends the 8 nearest vectors by the inverse square of their squared distances, 1/d^4 (infer/vc/pipeline.py of RVC).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from models.rvc.index import Index

NEIGHBOURS = 8
_GROUP = 64
_BLOCK_ITEMS = {"cuda": 1 << 28}  # distances computed at once: 1 GiB on a GPU, which needs large products
_DEFAULT_BLOCK_ITEMS = 1 << 25  # 128 MiB
_BLOCK_FRAMES = 8192
_BLEND_FRAMES = 512
_PAIRS = 128
_TINY = 1e-30

RetrievalMode = Literal["exact", "ivf"]


class Retrieval:
    """An index on a device.

    Args:
        index: of the voice; its vectors are copied.
        device: torch device name.
        block_items: distances that `exact` computes at once; None chooses by device.
    """

    def __init__(self, index: Index, device: str, *, block_items: int | None = None) -> None:
        self._block_items = block_items or _BLOCK_ITEMS.get(torch.device(device).type, _DEFAULT_BLOCK_ITEMS)
        clusters = torch.from_numpy(index.clusters)
        order = torch.argsort(clusters, stable=True)
        # `_find_smallest` takes whole groups: the vectors that fill the last one are infinitely far from everything.
        count, fill = len(order), -len(order) % _GROUP
        vectors = torch.zeros(count + fill, index.vectors.shape[1])
        torch.index_select(torch.from_numpy(index.vectors), 0, order, out=vectors[:count])
        self._vectors = vectors.to(device)
        self._clusters = F.pad(clusters[order], (0, fill)).to(device)
        self._centroids = torch.from_numpy(index.centroids).to(device)
        sizes = torch.bincount(clusters, minlength=len(index.centroids))
        self._ends = torch.cumsum(sizes, 0).tolist()
        self._filled = (sizes > 0).to(device)
        self._norms = _square_lengths(self._vectors)
        self._norms[count:] = torch.inf
        self._centroid_norms = _square_lengths(self._centroids)
        self._nprobe = min(index.nprobe, int(self._filled.sum()))

    @property
    def memory_bytes(self) -> int:
        """Bytes of the index on the device."""
        tensors = (self._vectors, self._clusters, self._centroids, self._filled, self._norms, self._centroid_norms)
        return sum(tensor.nbytes for tensor in tensors)

    @torch.inference_mode()
    def blend_nearest(self, features: torch.Tensor, *, mode: RetrievalMode) -> torch.Tensor:
        """The blend of the 8 nearest vectors of each frame, or of all vectors if the index holds fewer.

        Args:
            features: `[T, D]` float, on the index's device.
            mode: `exact` searches all vectors; `ivf`, as faiss, the nearest clusters, as many as the file says.

        Returns:
            `[T, D]` in the features' dtype.
        """
        width = self._vectors.shape[1]
        assert features.shape[1:] == (width,), f"features are [T, {width}], not {list(features.shape)}"
        if not len(features):
            return features
        frames = features.float()
        by_cluster = mode == "ivf" and self._nprobe < len(self._centroids)
        search = self._search_clusters if by_cluster else self._search_all
        step = _BLOCK_FRAMES if by_cluster else max(1, min(_BLOCK_FRAMES, self._block_items // len(self._vectors)))
        rows = torch.cat([search(block) for block in torch.split(frames, step)])
        blends = map(self._blend, torch.split(frames, _BLEND_FRAMES), torch.split(rows, _BLEND_FRAMES))
        return torch.cat(list(blends)).to(features.dtype)

    def _blend(self, frames: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The weighted mean of the vectors in `rows` `[B, 8]` (-1: none) for each frame.

        Distances are recomputed by subtraction: those of the search are differences of large numbers.
        """
        vectors = self._vectors[rows.clamp(min=0)]
        distances = (vectors - frames[:, None]).square().sum(-1).clamp(min=_TINY).masked_fill(rows < 0, torch.inf)
        # Relative to the nearest one, so that no square overflows; a distance of zero then takes all the weight.
        weights = (distances.amin(1, keepdim=True) / distances).square()
        weights = weights / weights.sum(1, keepdim=True)
        return torch.bmm(weights[:, None], vectors)[:, 0]

    def _search_all(self, frames: torch.Tensor) -> torch.Tensor:
        """Rows of the nearest vectors, `[B, 8]`."""
        return _find_smallest(_compute_distances(frames, self._vectors, self._norms))

    def _search_clusters(self, frames: torch.Tensor) -> torch.Tensor:
        """Rows of the nearest vectors in the nearest clusters, `[B, 8]`; -1 if those clusters hold fewer.

        Vectors are sorted by cluster, so sorted pairs of frame and cluster read consecutive ranges of vectors. A few
        matrix products that compute more than is needed are faster than thousands of exact ones.
        """
        probes = self._find_clusters(frames)
        sorted_probes, order = probes.flatten().sort()
        nearest = torch.full((len(sorted_probes), NEIGHBOURS), torch.inf, device=frames.device)
        rows = torch.full_like(nearest, -1, dtype=torch.int64)
        # The first and the last cluster of each part, read from the device in one go.
        heads, tails = sorted_probes[::_PAIRS], sorted_probes[_PAIRS - 1 :: _PAIRS]
        edges = torch.cat([heads, tails, sorted_probes[-1:]]).tolist()
        firsts, lasts = edges[: len(heads)], edges[len(heads) :]
        for part, clusters, first, last in zip(
            torch.split(order, _PAIRS), torch.split(sorted_probes, _PAIRS), firsts, lasts, strict=False
        ):
            start, end = self._ends[first - 1] if first else 0, self._ends[last]
            distances = _compute_distances(
                frames[part // self._nprobe], self._vectors[start:end], self._norms[start:end]
            )
            distances.masked_fill_(self._clusters[start:end] != clusters[:, None], torch.inf)
            values, columns = distances.topk(min(NEIGHBOURS, end - start), largest=False)
            nearest[part, : values.shape[1]] = values
            rows[part, : values.shape[1]] = (columns + start).masked_fill_(values == torch.inf, -1)
        best = nearest.view(len(frames), -1).topk(NEIGHBOURS, largest=False).indices
        return rows.view(len(frames), -1).gather(1, best)

    def _find_clusters(self, frames: torch.Tensor) -> torch.Tensor:
        """The nearest clusters that are not empty, `[B, nprobe]`."""
        distances = _compute_distances(frames, self._centroids, self._centroid_norms)
        distances.masked_fill_(~self._filled, torch.inf)
        return distances.topk(self._nprobe, largest=False).indices


def _square_lengths(vectors: torch.Tensor) -> torch.Tensor:
    """`[n]` squared lengths, without a second copy of the vectors."""
    lengths: torch.Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths.square()


def _compute_distances(frames: torch.Tensor, vectors: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Squared distances `[B, n]` without each frame's own square, which does not change their order."""
    return torch.addmm(norms, frames, vectors.T, alpha=-2)


def _find_smallest(distances: torch.Tensor) -> torch.Tensor:
    """Columns of the 8 smallest distances of each row, -1 for infinite or missing ones: `[B, n]` -> `[B, 8]`.

    `topk` over a long row is slow. The 8 smallest are in the 8 groups with the smallest minima.
    """
    width = distances.shape[1]
    if width <= NEIGHBOURS * _GROUP:
        values, columns = distances.topk(min(NEIGHBOURS, width), largest=False)
    else:
        groups = distances.view(-1, width // _GROUP, _GROUP)
        chosen = groups.amin(2).topk(NEIGHBOURS, largest=False).indices
        candidates = groups.gather(1, chosen[..., None].expand(-1, -1, _GROUP)).flatten(1)
        values, best = candidates.topk(NEIGHBOURS, largest=False)
        columns = chosen.gather(1, best // _GROUP) * _GROUP + best % _GROUP
    columns = columns.masked_fill(values == torch.inf, -1)
    return F.pad(columns, (0, NEIGHBOURS - columns.shape[1]), value=-1)
