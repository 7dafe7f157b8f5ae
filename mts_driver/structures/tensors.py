"""Structures as the tensors that potentials take."""

import numpy as np
import torch
from ase import Atoms

from mts_driver.structures.fixed import held_atoms
from mts_driver.units import BOLTZMANN_EV_K, EV_FS2_A2_PER_AMU


def cell_of(atoms: Atoms) -> torch.Tensor:
    """Return the cell, zeros for an isolated molecule, Å, shape (3, 3)."""
    return torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])


def inertial_masses(atoms: Atoms, masses_Da: np.ndarray) -> torch.Tensor:
    """Return what forces work against, eV fs²/Å², shape (N,): infinite for atoms that are held.

    Parameters
    ----------
    masses_Da : ndarray, shape (N,)
        Those of the run, for example with heavy hydrogens.
    """
    masses = torch.tensor(masses_Da * EV_FS2_A2_PER_AMU)
    masses[held_atoms(atoms)] = torch.inf
    return masses


def thermal_velocities(masses: torch.Tensor, temperature_K: float, seed: int) -> torch.Tensor:
    """Maxwell-Boltzmann velocities (N, 3), Å/fs, for ``masses`` (N,) in eV fs²/Å².

    Atoms of infinite mass are at rest.
    """
    normal = np.random.default_rng(seed).normal(size=(len(masses), 3))
    return torch.tensor(normal) * (BOLTZMANN_EV_K * temperature_K / masses).sqrt()[:, None]
