"""Distances and angles between given atoms, in their nearest images."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.arrays import Arrays
from mts_driver.potentials.classical.terms import angle_kernels, kernels
from mts_driver.potentials.classical.terms.coordinates import Distances, Graphed
from mts_driver.structures.neighbors import Floats, Ints


class Repeated:
    """Given groups of atoms, in every replica.

    Parameters
    ----------
    atoms : int
        N, in a replica.
    groups : int array, shape (K, n)
        The atoms of every group.
    kinds : int array, shape (K,)
        Which parameters belong to it.
    """

    def __init__(self, atoms: int, groups: Ints, kinds: Ints) -> None:
        self.atoms, self._groups, self._kinds = atoms, np.asarray(groups), np.asarray(kinds)
        self._replicas = 0
        self._cells: tuple[Floats, Floats] = np.zeros((0, 3, 3)), np.zeros((0, 3, 3))

    def repeat(self, replicas: int) -> None:
        """Set ``members`` (n, R K) and ``kinds`` (R K,), numbered through ``replicas``."""
        if replicas != self._replicas:
            start = self.atoms * np.arange(replicas)[:, None, None]
            self.members = (self._groups + start).reshape(-1, self._groups.shape[1]).T.copy()
            self.kinds = torch.from_numpy(np.tile(self._kinds, replicas))
            self._replicas = replicas

    def inverses(self, cells: Floats) -> Floats:
        """Inverses of cells (R, 3, 3), which seldom change; zeros for isolated systems."""
        if not np.array_equal(cells, self._cells[0]):
            self._cells = cells.copy(), inverted(cells)
        return self._cells[1]


class Bonds(Repeated):
    """Distances of given pairs of atoms, `Coordinates`; ``groups`` has shape (B, 2)."""

    def measure(self, x: Floats, cells: Floats) -> Distances:
        """Measure all bonds at positions (R, N, 3) in cells (R, 3, 3), Å."""
        self.repeat(len(x))
        i, j = self.members
        flat, inverses = x.reshape(-1, 3), self.inverses(cells)
        vectors, lengths = kernels.nearest_images(flat, i, j, cells, inverses, self.atoms)
        switch = np.zeros((len(i), 3))
        switch[:, 0] = 1.0
        return Distances(i, j, vectors, lengths, switch, self.kinds, len(x), self.atoms)

    def graphed(self, x: Tensor, cells: Tensor) -> Graphed:
        """Measure them with a graph."""
        self.repeat(len(x))
        i, j = torch.from_numpy(self.members)
        r = torch.linalg.vector_norm(_nearest_image(x, cells, i, j), dim=-1)
        return Graphed(r, torch.ones_like(r), self.kinds, i // self.atoms)


class MeasuredAngles(NamedTuple):
    """Angles of A triples of atoms, `Measured`.

    Attributes
    ----------
    i, b, k : int64 array, shape (A,)
        The atoms; b is between i and k.
    vectors, gradients : array, shape (2, A, 3)
        From b to i and to k, Å, and derivatives of the angle with respect to them.
    angles : array, shape (A,)
        rad.
    kinds : int64 Tensor, shape (A,)
        Which parameters belong to an angle.
    replicas, atoms : int
        R, and N in each.
    """

    i: np.ndarray
    b: np.ndarray
    k: np.ndarray
    vectors: Floats
    gradients: Floats
    angles: Floats
    kinds: Tensor
    replicas: int
    atoms: int

    @property
    def values(self) -> Tensor:
        """The angles, rad, (A,)."""
        return torch.from_numpy(self.angles)

    def spread(self, value: Floats, slope: Floats) -> Arrays:
        """Spread φ and φ′ over the atoms."""
        return angle_kernels.spread(*self[:5], value, slope, self.replicas, self.atoms)

    def pull_back(self, value: Floats, slope: Floats, curve: Floats, along: Floats) -> Arrays:
        """Pull a vector over the atoms back."""
        pulled, by_slope = angle_kernels.pull_back(*self[:6], slope, curve, along)
        return pulled, np.zeros_like(value), by_slope


class Angles(Repeated):
    """Angles of given triples of atoms, `Coordinates`; ``groups`` (A, 3), the middle one second."""

    def measure(self, x: Floats, cells: Floats) -> MeasuredAngles:
        """Measure all angles at positions (R, N, 3) in cells (R, 3, 3), Å."""
        self.repeat(len(x))
        i, b, k = self.members
        flat, inverses = x.reshape(-1, 3), self.inverses(cells)
        first, second = (
            kernels.nearest_images(flat, b, end, cells, inverses, self.atoms)[0] for end in (i, k)
        )
        angles, *gradients = angle_kernels.measure(first, second)
        vectors, slopes = np.stack((first, second)), np.stack(gradients)
        return MeasuredAngles(i, b, k, vectors, slopes, angles, self.kinds, len(x), self.atoms)

    def graphed(self, x: Tensor, cells: Tensor) -> Graphed:
        """Measure them with a graph."""
        self.repeat(len(x))
        i, b, k = torch.from_numpy(self.members)
        first, second = (_nearest_image(x, cells, b, end) for end in (i, k))
        across = torch.linalg.vector_norm(torch.linalg.cross(first, second), dim=-1)
        angles = torch.atan2(across, (first * second).sum(-1))
        return Graphed(angles, torch.ones_like(angles), self.kinds, b // self.atoms)


def inverted(cells: Floats) -> Floats:
    """Inverses of cells (R, 3, 3); zeros for isolated systems."""
    found = np.zeros_like(cells)
    periodic = cells.any((1, 2))
    found[periodic] = np.linalg.inv(cells[periodic])
    return found


def _nearest_image(x: Tensor, cells: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Vectors (P, 3) from atoms i to the nearest images of atoms j of (R, N, 3), with a graph."""
    flat, replica = x.reshape(-1, 3), i // x.shape[1]
    d = flat.index_select(0, j) - flat.index_select(0, i)
    inverses = torch.from_numpy(inverted(cells.detach().numpy()))[replica]
    turns = torch.einsum("pa,pab->pb", d.detach(), inverses).round()
    return d - torch.einsum("pa,pab->pb", turns, cells.index_select(0, replica))
