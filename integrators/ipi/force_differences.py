"""What i-PI knows at the end of an outer step about student and teacher, without another call.

The last operation of a step is the kick with teacher - student, so the forces of both models at the
present positions are in i-PI's cache.
"""

from __future__ import annotations

import numpy as np
from ipi.utils.depend import dstrip


def force_differences(forces) -> np.ndarray:
    """Teacher - student on every atom of every bead, before clipping.

    Parameters
    ----------
    forces : ipi.engine.forces.Forces
        Of a system with two levels or more, evaluated at its present positions.

    Returns
    -------
    array, shape (B, N, 3)
        Hartree/Bohr.
    """
    slow = dstrip(forces.mts_forces[0].f)
    return slow.reshape(len(slow), -1, 3)


def teacher_label(forces, bead: int) -> tuple[float, np.ndarray] | None:
    """Energy and forces of the teacher for one bead, as they were computed for the slow kick.

    Parameters
    ----------
    forces : ipi.engine.forces.Forces
        As above.
    bead : int
        Which one.

    Returns
    -------
    float and array of shape (N, 3), or None
        Hartree and Hartree/Bohr; None where ring-polymer contraction evaluates the teacher on
        fewer beads than there are.
    """
    teacher = [part for part in forces.mforces if part.weight != 0 and part.mts_weights[0] == 1]
    if any(part.nbeads != forces.nbeads for part in teacher):
        return None
    energy = sum(float(part.weight * dstrip(part.pots)[bead]) for part in teacher)
    labels = sum(part.weight * dstrip(part.f)[bead] for part in teacher)
    return energy, np.asarray(labels).reshape(-1, 3)
