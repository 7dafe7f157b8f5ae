"""Bonds to hydrogen that a check holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from integrators.constraints import Constraints, Distances
from integrators.state import MDState
from mts_driver.simulation.thermal_state import held_thermal_state
from mts_driver.structures.held_bonds import distances, held_pairs, on_manifold
from mts_driver.structures.tensors import inertial_masses


@dataclass(frozen=True, eq=False)
class Held:
    """Which bonds, and how long.

    Attributes
    ----------
    atoms : ase.Atoms
        The system as it was given; a trajectory from there is not wrapped.
    masses_Da : ndarray, shape (N,)
        Of the run.
    lengths_A : mapping of str to float
        By kind, Å.
    rigid_water : bool
        Whether the distance of both hydrogens of a water molecule is held, too.

    Raises
    ------
    UserError
        From all that follows, if the atoms are too far from the manifold.
    """

    atoms: Atoms
    masses_Da: np.ndarray
    lengths_A: Mapping[str, float]
    rigid_water: bool

    @cached_property
    def _distances(self) -> Distances:
        return distances(held_pairs(self.atoms, rigid_water=self.rigid_water), self.lengths_A)

    @cached_property
    def _on_manifold(self) -> tuple[np.ndarray, Constraints]:
        return on_manifold(self.atoms, self.masses_Da, self._distances)

    @property
    def constraints(self) -> Constraints:
        """What holds them."""
        return self._on_manifold[1]

    @cached_property
    def lost_degrees(self) -> Tensor:
        """Degrees of freedom that atoms have lost, shape (N,)."""
        positions, constraints = self._on_manifold
        masses = inertial_masses(self.atoms, self.masses_Da)
        return constraints.lost_degrees(torch.from_numpy(positions), masses)

    def start(self, atoms: Atoms, *, temperature_K: float, seed: int) -> MDState:
        """Return atoms of a trajectory, on the manifold, with thermal velocities tangent to it."""
        return held_thermal_state(
            *(atoms, self.masses_Da, self._distances), temperature_K=temperature_K, seed=seed
        )[0]
