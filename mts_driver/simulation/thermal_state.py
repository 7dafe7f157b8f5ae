"""Where dynamics in this process starts from."""

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from integrators.constraints import Constraints, Distances
from integrators.state import MDState, initial_state
from mts_driver.structures.held_bonds import on_manifold
from mts_driver.structures.tensors import cell_of, inertial_masses, thermal_velocities


def thermal_state(
    atoms: Atoms, masses_Da: np.ndarray, *, temperature_K: float, seed: int, replicas: int = 1
) -> MDState:
    """Return the atoms where they are, with Maxwell-Boltzmann velocities.

    Parameters
    ----------
    masses_Da : ndarray, shape (N,)
        Those of the run, for example with heavy hydrogens; held atoms get infinite ones.
    seed : int
        Of the velocities; that of replica k is ``seed + k``.
    replicas : int
        More than one have an axis in front, with velocities of their own.
    """
    masses, positions = inertial_masses(atoms, masses_Da), torch.tensor(atoms.positions)
    velocities = [thermal_velocities(masses, temperature_K, seed + k) for k in range(replicas)]
    if replicas == 1:  # without the batch axis, where potentials are fastest
        return initial_state(positions, velocities[0], masses, cell_of(atoms))
    many = positions.expand(replicas, -1, -1).contiguous()
    return initial_state(many, torch.stack(velocities), masses, cell_of(atoms))


def held_thermal_state(
    atoms: Atoms,
    masses_Da: np.ndarray,
    held: Distances | None,
    *,
    temperature_K: float,
    seed: int,
    replicas: int = 1,
) -> tuple[MDState, Constraints | None]:
    """Return the same with distances that are held, if there are any, and their constraints.

    Atoms are on their manifold then, and velocities tangent to it.

    Raises
    ------
    UserError
        If the atoms are too far from it.
    """
    there: Atoms = atoms.copy()
    constraints = None
    if held is not None:
        positions, constraints = on_manifold(atoms, masses_Da, held)
        there.set_positions(positions, apply_constraint=False)
    state = thermal_state(
        there, masses_Da, temperature_K=temperature_K, seed=seed, replicas=replicas
    )
    if constraints is None:
        return state, None
    tangent = constraints.tangent(state.positions, state.velocities, state.masses)
    return replace(state, velocities=tangent), constraints
