"""Take the worst overlaps out of a structure before dynamics start."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import FIRE

from integrators.state import Potential


class PotentialCalculator(Calculator):
    """A potential of this package as an ASE calculator (energy and forces).

    Parameters
    ----------
    potential : Potential
        Built for the atoms that the calculator is used with.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own type)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = ("energy",),
        system_changes: Any = all_changes,
    ) -> None:
        """Evaluate the potential; ASE calls this."""
        super().calculate(atoms, properties, system_changes)
        now = self.atoms  # the copy that the base class has just made
        assert isinstance(now, Atoms)
        cell = now.cell.array * now.pbc[:, None]
        found = self.potential(torch.from_numpy(now.positions), torch.from_numpy(cell))
        self.results = {"energy": float(found.energy), "forces": found.forces.numpy()}


def relax(
    atoms: Atoms,
    potential: Potential,
    *,
    fmax: float = 1.5,
    steps: int = 200,
    report: Callable[[int, float], None] = lambda *_: None,
) -> tuple[Atoms, float]:
    """Relax positions until no force exceeds ``fmax``.

    Parameters
    ----------
    fmax : float
        eV/Å.
    steps : int
        At most so many steps of FIRE, each at most 0.1 Å long.
    report : callable
        Takes the step and the largest force, eV/Å.

    Returns
    -------
    Atoms, float
        The relaxed copy and its largest force, eV/Å.
    """
    atoms = atoms.copy()
    atoms.calc = PotentialCalculator(potential)
    optimiser = FIRE(atoms, logfile=None, maxstep=0.1)
    optimiser.attach(lambda: report(optimiser.nsteps, _largest(atoms)))
    optimiser.run(fmax=fmax, steps=steps)
    return atoms.copy(), _largest(atoms)


def largest_force(atoms: Atoms, potential: Potential) -> float:
    """Return the largest norm of a force on an atom, eV/Å."""
    atoms = atoms.copy()
    atoms.calc = PotentialCalculator(potential)
    return _largest(atoms)


def _largest(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())
