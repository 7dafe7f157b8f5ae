"""Internal coordinates q(x), such as distances: their values, and from functions of them to forces.

With e = Σ φ(q) s(q), where s is a switch that depends on no parameter, forces and what is pulled
back through them need φ, φ′ and φ″ only, whatever φ is.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.arrays import Arrays
from mts_driver.potentials.classical.terms import kernels
from mts_driver.structures.neighbors import Floats


class Measured(Protocol):
    """Values of K coordinates of R replicas of N atoms, all numbered through."""

    @property
    def values(self) -> Tensor:
        """The coordinates q, (K,), Å or rad."""
        ...

    @property
    def kinds(self) -> Tensor:
        """Which parameters belong to each of them, (K,), int64."""
        ...

    def spread(self, value: Floats, slope: Floats) -> Arrays:
        """Energies (R,), forces (R N, 3) and virials (R, 3, 3) from φ and φ′, (K,)."""
        ...

    def pull_back(self, value: Floats, slope: Floats, curve: Floats, along: Floats) -> Arrays:
        """Pull ``along`` (R N, 3) back through the forces, from φ, φ′ and φ″, (K,).

        Returns (∂F/∂x)ᵀ along, (R N, 3), and the derivatives of Σ F·along with respect to φ and
        φ′, (K,).
        """
        ...


class Graphed(NamedTuple):
    """The same coordinates as functions of positions and cells, with a graph.

    Attributes
    ----------
    values, switch : Tensor, shape (K,)
        q and s(q).
    kinds, replica : int64 Tensor, shape (K,)
        Which parameters belong to each, and where it is.
    """

    values: Tensor
    switch: Tensor
    kinds: Tensor
    replica: Tensor


class Coordinates(Protocol):
    """What finds the coordinates of positions (R, N, 3) in cells (R, 3, 3), Å."""

    def measure(self, x: Floats, cells: Floats) -> Measured:
        """Measure them, for the compiled loops."""
        ...

    def graphed(self, x: Tensor, cells: Tensor) -> Graphed:
        """Measure them in torch, for automatic differentiation."""
        ...


class Distances(NamedTuple):
    """Distances of P pairs of atoms, `Measured`.

    Attributes
    ----------
    i, j : int64 array, shape (P,)
        The atoms.
    vectors, lengths : array, shapes (P, 3) and (P,)
        From i to j, Å.
    switch : array, shape (P, 3)
        s, s′ and s″.
    kinds : int64 Tensor, shape (P,)
        Which parameters belong to a pair.
    replicas, atoms : int
        R, and N in each.
    """

    i: np.ndarray
    j: np.ndarray
    vectors: Floats
    lengths: Floats
    switch: Floats
    kinds: Tensor
    replicas: int
    atoms: int

    @property
    def values(self) -> Tensor:
        """The distances, Å, (P,)."""
        return torch.from_numpy(self.lengths)

    def spread(self, value: Floats, slope: Floats) -> Arrays:
        """Spread φ and φ′ over the atoms."""
        return kernels.spread(*self[:5], value, slope, self.replicas, self.atoms)

    def pull_back(self, value: Floats, slope: Floats, curve: Floats, along: Floats) -> Arrays:
        """Pull a vector over the atoms back."""
        return kernels.pull_back(*self[:5], value, slope, curve, along)
