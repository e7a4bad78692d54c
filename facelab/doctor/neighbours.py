"""The nearest neighbours of every vector, exactly, a tile of scores at a time."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.progress import OnProgress

BLOCK = 4096


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of each vector, nearest first.

    Attributes:
        rows: Their rows, int64, (N, k).
        cosine: float32, (N, k).
    """

    rows: NDArray[np.int64]
    cosine: NDArray[np.float32]


def nearest(
    vectors: NDArray[np.float32],
    gallery: NDArray[np.float32] | None = None,
    count: int = 10,
    device: torch.device | str = "cpu",
    progress: OnProgress | None = None,
) -> Neighbours:
    """The ``count`` nearest of each vector: N x G products, of which memory holds 4096 x 4096.

    The tiles of `facelab.test_protocol.metrics.score_tiles` stay on the CPU; these are made and sorted out on a GPU,
    too, where a million faces take minutes.

    Args:
        vectors: Of unit length, (N, D).
        gallery: Among which to look, (G, D); the vectors themselves, each without itself, by default.
        count: k, at most; fewer where there are fewer.
        device: Where the products are made.
        progress: Called with the number of vectors done, and of all.
    """
    among = vectors if gallery is None else gallery
    kept = min(count, len(among) - (gallery is None))
    rows = np.empty((len(vectors), kept), np.int64)
    cosine = np.empty((len(vectors), kept), np.float32)
    for start in range(0, len(vectors) if kept else 0, BLOCK):
        part = slice(start, min(start + BLOCK, len(vectors)))
        best = _nearest_of(torch.from_numpy(vectors[part]).to(device), among, kept, start if gallery is None else None)
        cosine[part], rows[part] = (found.cpu().numpy() for found in best)
        if progress is not None:
            progress(part.stop, len(vectors))
    return Neighbours(rows, cosine)


def _nearest_of(
    block: torch.Tensor, among: NDArray[np.float32], kept: int, own_start: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and rows of the nearest of some vectors, which are themselves among them from ``own_start`` on."""
    cosine = torch.full((len(block), kept), -torch.inf, device=block.device)
    rows = torch.zeros((len(block), kept), dtype=torch.int64, device=block.device)
    for start in range(0, len(among), BLOCK):
        tile = block @ torch.from_numpy(among[start : start + BLOCK]).to(block.device).T
        if start == own_start:
            tile.fill_diagonal_(-torch.inf)
        found, places = tile.topk(min(kept, tile.shape[1]), dim=1)
        # The best so far and the best of this tile: of at most 2 k, again the k best.
        cosine, chosen = torch.cat([cosine, found], dim=1).topk(kept, dim=1)
        rows = torch.cat([rows, places + start], dim=1).gather(1, chosen)
    return cosine, rows
