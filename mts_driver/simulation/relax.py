"""Take the worst overlaps out of a structure before dynamics start."""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.optimize import FIRE

from integrators.state import Potential
from mts_driver.interfaces.ase import PotentialCalculator


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
