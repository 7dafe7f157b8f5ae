"""Structures as the tensors that potentials take."""

import numpy as np
import torch
from ase import Atoms


def cell_of(atoms: Atoms) -> torch.Tensor:
    """Return the cell, zeros for an isolated molecule, Å, shape (3, 3)."""
    return torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])
