"""Whether a potential gives a virial, so that a barostat has something to hold against."""

from typing import Any

import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.structures.tensors import cell_of


def gives_virial(potential: Potential, atoms: Atoms) -> bool:
    """Ask a potential, and let it evaluate the atoms where only its answer can tell.

    Parameters
    ----------
    potential : Potential
        With ``has_virial`` (True, False, or None before its first answer) if it is not a matter of
        course.
    atoms : ase.Atoms
        Periodic.
    """
    found: Any = getattr(potential, "has_virial", True)
    if found is None:
        potential(torch.tensor(atoms.positions), cell_of(atoms))
        found = getattr(potential, "has_virial", None)
    return bool(found)
