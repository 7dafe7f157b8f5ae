"""Labelled frames as graphs, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch.nn.functional import pad

from mts_driver.distillation.labels import LabelFile
from mts_driver.potentials.fast_student import compress, pad_neighbors
from mts_driver.potentials.neighbors import VerletList
from mts_driver.potentials.student import StudentConfig

FAR_A = 100.0
"""Component of a padding vector, beyond any cutoff."""


@dataclass(frozen=True)
class Graph:
    """One or several frames as one graph.

    Attributes
    ----------
    kind : Tensor, shape (M,)
        Index of every atom's element in the student's list.
    neighbors : Tensor, shape (M, K)
        Atoms within the cutoff; rows are padded.
    vectors : Tensor, shape (M, K, 3)
        From the atom to its neighbour, Å.
    forces : Tensor, shape (M, 3)
        The teacher's, eV/Å.
    """

    kind: Tensor
    neighbors: Tensor
    vectors: Tensor
    forces: Tensor

    def to(self, device: torch.device) -> "Graph":
        """Move to another device."""
        return Graph(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class StiffPair:
    """Two frames that differ by ±δ along X-H bonds.

    Attributes
    ----------
    plus, minus : Graph
        The two frames.
    hydrogens : Tensor, shape (B,)
        The displaced atoms.
    units : Tensor, shape (B, 3)
        Directions of their bonds.
    constants : Tensor, shape (B,)
        The teacher's force constants along them, eV/Å².
    delta_A : float
        Half of the distance between the two frames along each bond, Å.
    """

    plus: Graph
    minus: Graph
    hydrogens: Tensor
    units: Tensor
    constants: Tensor
    delta_A: float


def graph_of(atoms: Atoms, config: StudentConfig) -> Graph:
    """Turn a labelled frame into a graph with the student's cutoff."""
    found = VerletList(cutoff_A=config.cutoff_A, skin_A=0.0).pairs(
        atoms.positions, np.array(atoms.cell) * atoms.pbc[:, None]
    )
    kind = np.array([config.elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    first, j, vectors = compress(found.i, found.j, found.vectors, len(kind))
    neighbors, vectors = pad_neighbors(first, j, vectors, config.cutoff_A)
    return Graph(
        kind=torch.from_numpy(kind),
        neighbors=torch.from_numpy(neighbors),
        vectors=torch.from_numpy(vectors).float(),
        forces=torch.from_numpy(atoms.get_array("teacher_forces")).float(),
    )


def stiff_pairs(labels: LabelFile, kind: str, config: StudentConfig) -> list[StiffPair]:
    """Return the pairs of frames of one kind whose two halves are both labelled."""
    halves: dict[int, dict[float, Atoms]] = {}
    for atoms in labels.of(kind):
        halves.setdefault(int(atoms.info["pair"]), {})[float(atoms.info["sign"])] = atoms
    pairs = []
    for both in halves.values():
        if len(both) < 2:
            continue
        plus, minus = graph_of(both[1.0], config), graph_of(both[-1.0], config)
        step = torch.from_numpy(both[1.0].positions - both[-1.0].positions).float()
        hydrogens = (step.norm(dim=-1) > 1e-6).nonzero()[:, 0]
        delta = float(step[hydrogens].norm(dim=-1).mean()) / 2
        units = torch.nn.functional.normalize(step[hydrogens], dim=-1)
        constants = -((plus.forces - minus.forces)[hydrogens] * units).sum(-1) / (2 * delta)
        pairs.append(StiffPair(plus, minus, hydrogens, units, constants, delta))
    return pairs


def collate(graphs: Sequence[Graph]) -> Graph:
    """Several graphs as one, atoms numbered through."""
    starts = np.cumsum([0] + [len(g.kind) for g in graphs[:-1]]).tolist()
    width = max(g.neighbors.shape[1] for g in graphs)
    neighbors, vectors = [], []
    for graph, start in zip(graphs, starts, strict=True):
        missing = width - graph.neighbors.shape[1]
        neighbors.append(pad(graph.neighbors + start, (0, missing)))
        vectors.append(pad(graph.vectors, (0, 0, 0, missing), value=FAR_A))
    return Graph(
        kind=torch.cat([g.kind for g in graphs]),
        neighbors=torch.cat(neighbors),
        vectors=torch.cat(vectors),
        forces=torch.cat([g.forces for g in graphs]),
    )
