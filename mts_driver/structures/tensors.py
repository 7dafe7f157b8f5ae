"""Structures as the tensors that potentials take."""

import numpy as np
import torch
from ase import Atoms

from mts_driver.units import BOLTZMANN_EV_K


def cell_of(atoms: Atoms) -> torch.Tensor:
    """Return the cell, zeros for an isolated molecule, Å, shape (3, 3)."""
    return torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])


def thermal_velocities(masses: torch.Tensor, temperature_K: float, seed: int) -> torch.Tensor:
    """Maxwell-Boltzmann velocities (N, 3), Å/fs, for ``masses`` (N,) in eV fs²/Å²."""
    normal = np.random.default_rng(seed).normal(size=(len(masses), 3))
    return torch.tensor(normal) * (BOLTZMANN_EV_K * temperature_K / masses).sqrt()[:, None]
