"""Labelled frames as graphs, and batches of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.student.cpu.evaluator import ByElement, Near
from mts_driver.potentials.student.cpu.rows import compress
from mts_driver.potentials.student.model import StudentConfig, StudentModel, invariants
from mts_driver.potentials.student.potential import pad_neighbors
from mts_driver.structures.neighbors import VerletList


@dataclass(frozen=True)
class Graph:
    """One or several frames as one graph.

    Attributes
    ----------
    near : Near
        The neighbours of all M atoms.
    forces : Tensor, shape (M, 3)
        The teacher's, eV/Å.
    weight : Tensor, shape (M,)
        How much the force on every atom counts; 0 where its surroundings are not those of the
        system, at the border of a fragment.
    sizes : tuple of int
        Atoms of every frame.
    kinds : int
        Elements that the student knows.
    """

    near: Near
    forces: Tensor
    weight: Tensor
    sizes: tuple[int, ...]
    kinds: int

    @classmethod
    def of(cls, atoms: Atoms, config: StudentConfig) -> "Graph":
        """Turn a labelled frame into a graph with the student's cutoff."""
        found = VerletList(cutoff_A=config.cutoff_A, skin_A=0.0).pairs(
            atoms.positions, np.array(atoms.cell) * atoms.pbc[:, None]
        )
        symbols = atoms.get_chemical_symbols()
        kind = np.array([config.elements.index(symbol) for symbol in symbols])
        first, j, vectors = compress(found.i, found.j, found.vectors, -found.vectors, len(kind))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        weight = atoms.arrays.get("force_weight", np.ones(len(kind)))
        return cls(
            near=Near(first, first[1:], j, np.concatenate((vectors, lengths), 1), kind),
            forces=torch.from_numpy(atoms.get_array("teacher_forces")).float(),
            weight=torch.from_numpy(weight).float(),
            sizes=(len(kind),),
            kinds=len(config.elements),
        )

    @cached_property
    def by_element(self) -> ByElement:
        """The atoms sorted by element."""
        return ByElement.of(self.near.kind, self.kinds)

    def padded(self, cutoff_A: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Kinds (M,), neighbours (M, K) and vectors (M, K, 3) for the model in plain torch."""
        neighbors, vectors = pad_neighbors(
            self.near.first, self.near.neighbors, self.near.vectors[:, :3], cutoff_A
        )
        kind = torch.from_numpy(self.near.kind).to(like.device)
        return kind, torch.from_numpy(neighbors).to(like.device), torch.from_numpy(vectors).to(like)


@dataclass(frozen=True)
class StiffPair:
    """Two frames that differ by short displacements along bonds.

    Attributes
    ----------
    plus, minus : Graph
        The two frames.
    bond : Tensor, shape (A,)
        Which of the B bonds every displaced atom belongs to.
    atoms : Tensor, shape (A,)
        The displaced atoms: the hydrogen of an X-H bond, both atoms of another.
    steps : Tensor, shape (A, 3)
        Their displacements from the minus to the plus frame, Å.
    constants : Tensor, shape (B,)
        The teacher's force constants along the bonds, eV/Å².
    to_hydrogen : Tensor of bool, shape (B,)
        Which bonds are X-H.
    weight : Tensor, shape (B,)
        How much every bond counts: as much as the one of its atoms that counts more.
    """

    plus: Graph
    minus: Graph
    bond: Tensor
    atoms: Tensor
    steps: Tensor
    constants: Tensor
    to_hydrogen: Tensor
    weight: Tensor

    @classmethod
    def of(cls, plus: Atoms, minus: Atoms, config: StudentConfig) -> "StiffPair | None":
        """Make a pair of two labelled frames; None if no displaced bond counts."""
        graphs = Graph.of(plus, config), Graph.of(minus, config)
        bond = plus.get_array("stiff_bond")
        # a bond at the border of a fragment does not count
        outside = np.unique(bond[(bond >= 0) & (graphs[0].weight.numpy() == 0)])
        atoms = np.flatnonzero((bond >= 0) & ~np.isin(bond, outside))
        if not len(atoms):
            return None
        number = torch.from_numpy(np.unique(bond[atoms], return_inverse=True)[1])
        steps = torch.from_numpy((plus.positions - minus.positions)[atoms]).float()
        bonds = int(number.max()) + 1
        pair = cls(
            *graphs,
            bond=number,
            atoms=torch.from_numpy(atoms),
            steps=steps,
            constants=steps.new_zeros(bonds),
            to_hydrogen=torch.bincount(number) == 1,
            weight=steps.new_zeros(bonds).scatter_reduce(
                0, number, graphs[0].weight[torch.from_numpy(atoms)], "amax"
            ),
        )
        pair.constants.copy_(pair.force_constants(graphs[0].forces, graphs[1].forces))
        return pair

    def force_constants(self, plus: Tensor, minus: Tensor) -> Tensor:
        """−(F₊ − F₋)·d/|d|² along every bond's displacement d, from the forces on the two frames.

        eV/Å², shape (B,).
        """
        work = ((plus - minus)[self.atoms].to(self.steps) * self.steps).sum(-1)
        square = self.steps.square().sum(-1)
        zeros = torch.zeros_like(self.constants)
        return -zeros.index_add(0, self.bond, work) / zeros.index_add(0, self.bond, square)


def stiff_pairs(frames: Iterable[Atoms], config: StudentConfig) -> list[StiffPair]:
    """Return the pairs of frames of which both halves are labelled."""
    halves: dict[tuple[str, int], dict[float, Atoms]] = {}
    for atoms in frames:
        key = (str(atoms.info["system"]), int(atoms.info["pair"]))
        halves.setdefault(key, {})[float(atoms.info["sign"])] = atoms
    whole = [both for both in halves.values() if len(both) == 2]
    pairs = [StiffPair.of(both[1.0], both[-1.0], config) for both in whole]
    return [pair for pair in pairs if pair is not None]


def collate(graphs: Sequence[Graph]) -> Graph:
    """Several graphs as one, atoms numbered through."""
    atoms = np.cumsum([0] + [len(g.near.kind) for g in graphs])
    pairs = np.cumsum([0] + [len(g.near.neighbors) for g in graphs])
    first = [g.near.first[:-1] + p for g, p in zip(graphs, pairs[:-1], strict=True)]
    whole = np.concatenate([*first, pairs[-1:]])
    near = Near(
        first=whole,
        last=whole[1:],
        neighbors=np.concatenate(
            [g.near.neighbors + n for g, n in zip(graphs, atoms[:-1], strict=True)]
        ),
        vectors=np.concatenate([g.near.vectors for g in graphs]),
        kind=np.concatenate([g.near.kind for g in graphs]),
    )
    return Graph(
        near=near,
        forces=torch.cat([g.forces for g in graphs]),
        weight=torch.cat([g.weight for g in graphs]),
        sizes=tuple(size for g in graphs for size in g.sizes),
        kinds=graphs[0].kinds,
    )


def normalise(model: StudentModel, graphs: Sequence[Graph]) -> None:
    """Set the input shift and scale of every element from some frames of every system.

    A rare element may have seen too little for its own spread: no input is scaled by more than
    three times what its spread over all elements would ask for.
    """
    batch = collate(_some_of_each(graphs))
    kind, neighbors, vectors = batch.padded(model.config.cutoff_A, model.w1)
    order = torch.from_numpy(batch.by_element.order).to(kind.device)
    counts = batch.by_element.counts

    def measure(x: Tensor, shift: Tensor, scale: Tensor) -> None:
        present = [e for e, count in enumerate(counts) if count > 1]
        spread = torch.stack([x[kind == e].std(0) for e in present])
        least = (spread.square().mean(0).sqrt() / 3).clamp_min(1e-6)
        for e, own in zip(present, spread, strict=True):
            shift[e] = x[kind == e].mean(0)
            scale[e] = 1.0 / torch.maximum(own, least)

    with torch.no_grad():
        x = invariants(model.moments(model.radial, kind, neighbors, vectors)).flatten(1)
        measure(x, model.shift, model.scale)
        if model.config.messages:
            sent = model.read(x[order], counts)[1][order.argsort()]
            y = invariants(model.moments(model.radial2, kind, neighbors, vectors, sent)).flatten(1)
            measure(y, model.shift2, model.scale2)


def _some_of_each(graphs: Sequence[Graph], most: int = 64) -> list[Graph]:
    """Return about ``most`` graphs, spread over all systems and at least two of each."""
    systems: dict[bytes, list[Graph]] = {}
    for graph in graphs:
        systems.setdefault(graph.near.kind.tobytes(), []).append(graph)
    each = max(2, most // len(systems))
    return [g for found in systems.values() for g in found[:: max(1, len(found) // each)][:each]]


def check_frames(frames: Sequence[Atoms], config: StudentConfig) -> None:
    """Raise a `UserError` if there is nothing to learn from, or an element that is not known."""
    if not frames:
        raise UserError(
            "there is no labelled frame to train on: give a structure to sample, or a --work "
            "folder with labels."
        )
    for numbers in {tuple(np.unique(atoms.numbers)) for atoms in frames}:
        check_elements(numbers, config.elements, model="this student")
