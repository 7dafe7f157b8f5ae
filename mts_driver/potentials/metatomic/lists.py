"""Pairs for a model of metatomic, each once: from lists on the host, or on the model's device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.metatomic.model import ExportedModel
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pieces import Piece, Pieces
from mts_driver.structures.neighbor_matrix import NeighborMatrix
from mts_driver.structures.neighbors import VerletList

SKIN_A = 1.0

Pairs = tuple[Tensor, Tensor, Tensor]
"""Atoms i and j (P,), and the cells (P, 3) from one to the other, int64."""


class Seen(NamedTuple):
    """What a replica is.

    Attributes
    ----------
    piece : Piece, optional
        What of it is evaluated here; by default all.
    pairs : list of Pairs
        For every list that the model wants, of the atoms of the piece.
    """

    piece: Piece | None
    pairs: list[Pairs]


class HostLists:
    """Lists that are searched on the host, of all atoms or of this rank's pieces.

    Parameters
    ----------
    model : ExportedModel
        Says which it wants.
    ranks : Ranks, optional
        Who shares.
    """

    def __init__(self, model: ExportedModel, ranks: Ranks | None) -> None:
        self._model, self._ranks = model, ranks
        self._replicas: list[_OfReplica] = []

    def look(self, x: Tensor, cells: Tensor) -> list[Seen]:
        """Return the pairs of replicas (R, N, 3) in cells (R, 3, 3), Å, on the model's device."""
        while len(self._replicas) < len(x):
            self._replicas.append(_OfReplica(self._model, self._ranks))
        arrays = zip(*(t.detach().cpu().numpy() for t in (x, cells)), strict=True)
        return [
            one.look(*given, device=x.device)
            for one, given in zip(self._replicas, arrays, strict=False)
        ]


class _OfReplica:
    def __init__(self, model: ExportedModel, ranks: Ranks | None) -> None:
        self._wanted = [one.cutoff_A for one in model.lists]
        self._pieces = Pieces(ranks, reach_A=model.reach_A) if ranks is not None else None
        self._piece: Piece | None = None
        self._begin()

    def _begin(self) -> None:
        self._verlet = {c: VerletList(cutoff_A=c, skin_A=SKIN_A) for c in set(self._wanted)}

    def look(self, x: np.ndarray, cell_A: np.ndarray, *, device: torch.device) -> Seen:
        if self._pieces is not None:
            piece = self._pieces.of(x, cell_A)
            if piece is not self._piece:
                self._piece = piece
                self._begin()
            x = x[piece.atoms]
        found = {}
        for cutoff_A, verlet in self._verlet.items():
            i, j, image, _ = verlet.stored(x, cell_A)
            apart = x[j] + verlet.shifts(cell_A)[image] - x[i]
            near = np.einsum("pa,pa->p", apart, apart) < cutoff_A**2
            cells = verlet.cells()[image[near]]
            arrays = (torch.from_numpy(a.astype(np.int64)) for a in (i[near], j[near], cells))
            first, second, images = (t.to(device) for t in arrays)
            found[cutoff_A] = first, second, images
        return Seen(self._piece, [found[cutoff_A] for cutoff_A in self._wanted])


class DeviceLists:
    """Lists that are searched where the model is, of all replicas at once.

    Parameters
    ----------
    model : ExportedModel
        Says which it wants.
    """

    def __init__(self, model: ExportedModel) -> None:
        self._wanted = [one.cutoff_A for one in model.lists]
        self._lists = {
            c: NeighborMatrix(cutoff_A=c, skin_A=SKIN_A, ordered=False) for c in set(self._wanted)
        }

    def look(self, x: Tensor, cells: Tensor) -> list[Seen]:
        """Return the pairs of replicas (R, N, 3) in cells (R, 3, 3), Å."""
        found = {c: _each_once(near, x, cells) for c, near in self._lists.items()}
        return [Seen(None, [found[c][r] for c in self._wanted]) for r in range(len(x))]


def _each_once(near: NeighborMatrix, x: Tensor, cells: Tensor) -> list[Pairs]:
    """Return the pairs of every replica that are within the cutoff now."""
    near.update(x, cells)
    there, j, vectors = near.vectors(x, cells)
    i = torch.arange(len(j), device=x.device)[:, None].expand_as(j)
    # of an atom and an image of itself, the image in the upper half
    a, b, c = near.images.unbind(-1)
    upper = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
    kept = there & ((j > i) | ((j == i) & upper)) & (vectors.square().sum(-1) < near.cutoff_A**2)
    first, second, images = i[kept], j[kept], near.images[kept].long()
    atoms = x.shape[1]
    sizes = kept.view(len(x), -1).sum(1).tolist()
    parts = zip(first.split(sizes), second.split(sizes), images.split(sizes), strict=True)
    return [(i - r * atoms, j - r * atoms, s) for r, (i, j, s) in enumerate(parts)]
