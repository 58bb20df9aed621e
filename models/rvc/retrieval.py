"""Replaces content features by what is near them in the voice's training set. Knows no network and no file.

RVC blends the 8 nearest vectors by the inverse square of their squared distances, 1/d^4 (infer/vc/pipeline.py of RVC).
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch.nn import functional

from models.rvc.index import Index

NEIGHBOURS: Final = 8
_GROUP: Final = 64
_BLOCK_ITEMS: Final = 1 << 25  # of a block of distances; 128 MiB
_BLOCK_FRAMES: Final = 8192
_BLEND_FRAMES: Final = 512
_PAIRS: Final = 128
_TINY: Final = 1e-30

Mode = Literal["exact", "ivf"]


class Retrieval:
    """An index on a device.

    Args:
        index: the vectors; a copy of them is kept.
        device: a torch device.
    """

    def __init__(self, index: Index, device: str) -> None:
        clusters = torch.from_numpy(index.clusters)
        order = torch.argsort(clusters, stable=True)
        # Whole groups for `_smallest`: what fills the last one is infinitely far from everything.
        count, fill = len(order), -len(order) % _GROUP
        vectors = torch.zeros(count + fill, index.vectors.shape[1])
        torch.index_select(torch.from_numpy(index.vectors), 0, order, out=vectors[:count])
        self._vectors = vectors.to(device)
        self._clusters = functional.pad(clusters[order], (0, fill)).to(device)
        self._centroids = torch.from_numpy(index.centroids).to(device)
        sizes = torch.bincount(clusters, minlength=len(index.centroids))
        self._ends = torch.cumsum(sizes, 0).tolist()
        self._filled = (sizes > 0).to(device)
        self._norms = _squares(self._vectors)
        self._norms[count:] = torch.inf
        self._centroid_norms = _squares(self._centroids)
        self._nprobe = min(index.nprobe, int(self._filled.sum()))

    @property
    def memory_bytes(self) -> int:
        """What it holds on the device."""
        tensors = (self._vectors, self._clusters, self._centroids, self._filled, self._norms, self._centroid_norms)
        return sum(tensor.nbytes for tensor in tensors)

    @torch.inference_mode()
    def nearest_blend(self, features: torch.Tensor, *, mode: Mode) -> torch.Tensor:
        """The blend of the 8 nearest vectors of each frame; of fewer where there are no more.

        Args:
            features: `[T, D]` float, on the index's device.
            mode: `exact` looks everywhere; `ivf` in the nearest clusters only, as faiss does, as many as the file says.

        Returns:
            `[T, D]` in the features' dtype.
        """
        if not len(features):
            return features
        frames = features.float()
        lists = mode == "ivf" and self._nprobe < len(self._centroids)
        search = self._search_lists if lists else self._search_everywhere
        step = _BLOCK_FRAMES if lists else max(1, min(_BLOCK_FRAMES, _BLOCK_ITEMS // len(self._vectors)))
        found = [search(block) for block in torch.split(frames, step)]
        blends = map(self._blend, torch.split(frames, _BLEND_FRAMES), torch.split(torch.cat(found), _BLEND_FRAMES))
        return torch.cat(list(blends)).to(features.dtype)

    def _blend(self, frames: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """The weighted mean of the vectors `found` `[B, 8]` (-1: none) for each frame.

        Distances are taken anew by subtraction: the search's own come from a difference of large numbers.
        """
        vectors = self._vectors[found.clamp(min=0)]
        distances = (vectors - frames[:, None]).square().sum(-1).clamp(min=_TINY).masked_fill(found < 0, torch.inf)
        # Relative to the nearest, so that no square overflows; a distance of zero then simply wins.
        weights = (distances.amin(1, keepdim=True) / distances).square()
        weights = weights / weights.sum(1, keepdim=True)
        return torch.bmm(weights[:, None], vectors)[:, 0]

    def _search_everywhere(self, frames: torch.Tensor) -> torch.Tensor:
        """Rows of the nearest vectors, `[B, 8]`."""
        return _smallest(_distances(frames, self._vectors, self._norms))

    def _search_lists(self, frames: torch.Tensor) -> torch.Tensor:
        """Rows of the nearest vectors in the nearest clusters, `[B, 8]`, -1 where those hold fewer.

        Vectors lie by cluster, so pairs of a frame and a cluster, sorted, need one stretch of them after the other. A
        few products with more than is needed are faster than thousands of exact ones.
        """
        probes = self._probes(frames)
        wanted, order = probes.flatten().sort()
        nearest = torch.full((len(wanted), NEIGHBOURS), torch.inf, device=frames.device)
        rows = torch.full_like(nearest, -1, dtype=torch.int64)
        firsts, lasts = wanted[::_PAIRS].tolist(), [*wanted[_PAIRS - 1 :: _PAIRS].tolist(), int(wanted[-1])]
        for part, clusters, first, last in zip(
            torch.split(order, _PAIRS), torch.split(wanted, _PAIRS), firsts, lasts, strict=False
        ):
            start, end = self._ends[first - 1] if first else 0, self._ends[last]
            distances = _distances(frames[part // self._nprobe], self._vectors[start:end], self._norms[start:end])
            distances.masked_fill_(self._clusters[start:end] != clusters[:, None], torch.inf)
            values, places = distances.topk(min(NEIGHBOURS, end - start), largest=False)
            nearest[part, : values.shape[1]] = values
            rows[part, : values.shape[1]] = (places + start).masked_fill_(values == torch.inf, -1)
        best = nearest.view(len(frames), -1).topk(NEIGHBOURS, largest=False).indices
        return rows.view(len(frames), -1).gather(1, best)

    def _probes(self, frames: torch.Tensor) -> torch.Tensor:
        """The nearest clusters that hold anything, `[B, nprobe]`."""
        distances = _distances(frames, self._centroids, self._centroid_norms)
        distances.masked_fill_(~self._filled, torch.inf)
        return distances.topk(self._nprobe, largest=False).indices


def _squares(vectors: torch.Tensor) -> torch.Tensor:
    """`[n]` squared lengths, without a second copy of the vectors."""
    lengths: torch.Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths.square()


def _distances(frames: torch.Tensor, vectors: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Squared distances `[B, n]`, short of each frame's own square, which does not change their order."""
    return torch.addmm(norms, frames, vectors.T, alpha=-2)


def _smallest(distances: torch.Tensor) -> torch.Tensor:
    """Places of the 8 smallest of each row (of whole groups), -1 for those that are infinite or not there.

    `topk` over a long row is slow. The 8 smallest lie in the 8 groups with the smallest minima.
    """
    width = distances.shape[1]
    if width <= NEIGHBOURS * _GROUP:
        values, places = distances.topk(min(NEIGHBOURS, width), largest=False)
    else:
        groups = distances.view(-1, width // _GROUP, _GROUP)
        chosen = groups.amin(2).topk(NEIGHBOURS, largest=False).indices
        candidates = groups.gather(1, chosen[..., None].expand(-1, -1, _GROUP)).flatten(1)
        values, best = candidates.topk(NEIGHBOURS, largest=False)
        places = chosen.gather(1, best // _GROUP) * _GROUP + best % _GROUP
    places = places.masked_fill(values == torch.inf, -1)
    return functional.pad(places, (0, NEIGHBOURS - places.shape[1]), value=-1)
