"""What the splitting asks of an i-PI input, checked when the simulation is set up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ipi.engine.barostats import BaroBZP, BaroMTK, BaroRGB, Barostat

from integrators.splitting import Splitting, baoab, respa_baoab

SPLITTING = "respa-baoab"
"""The value of ``splitting=`` in ``<dynamics>``."""

# only the sum of level weights over all forces can tell a missing force from a wrong weight, so
# every force has to be one of these two
_TEACHER, _STUDENT = (1.0, 0.0), (-1.0, 1.0)

WEIGHTS_REMEDY = (
    "the teacher's <force> needs <mts_weights> [1, 0] </mts_weights> and the student's "
    "<mts_weights> [-1, 1] </mts_weights>, so that level 0 is teacher - student, level 1 the "
    "student, and their sum the teacher"
)


def splitting_for(nmts: Sequence[int]) -> Splitting:
    """Return the splitting that ``<nmts>`` asks for.

    Raises
    ------
    ValueError
        If ``nmts`` is neither ``[1]`` nor ``[1, n]``.
    """
    counts = [int(n) for n in nmts]
    if len(counts) not in (1, 2) or counts[0] != 1 or min(counts) < 1:
        raise ValueError(
            f"<nmts> is {counts}; splitting='{SPLITTING}' takes [1, n], the slow level once and "
            "the fast level n times per outer step, or [1] for a single level"
        )
    return baoab() if len(counts) == 1 else respa_baoab(counts[1])


def check_levels(nmts: Sequence[int], n_levels: int) -> None:
    """Require as many levels in ``<nmts>`` as in the ``<mts_weights>`` of the forces.

    Raises
    ------
    ValueError
        If they do not agree.
    """
    counts = [int(n) for n in nmts]
    if len(counts) != n_levels:
        raise ValueError(
            f"<nmts> {counts} has {len(counts)} level(s), the <mts_weights> of the forces have "
            f"{n_levels}; for two levels write <nmts> [1, n] </nmts>, and {WEIGHTS_REMEDY}"
        )


def check_weights(forces: Sequence) -> None:
    """Require the two levels to be teacher - student and student.

    Parameters
    ----------
    forces : sequence of ipi.engine.forces.ForceComponent
        With attributes ``ffield``, ``weight`` and ``mts_weights``.

    Raises
    ------
    ValueError
        If a weight is another one, or if they do not add up to the teacher.
    """
    found = ", ".join(
        f"{ff.ffield}: {[float(w) for w in ff.mts_weights]} x {float(ff.weight):g}" for ff in forces
    )
    allowed = all(tuple(map(float, ff.mts_weights)) in (_TEACHER, _STUDENT) for ff in forces)
    total = sum(ff.weight * np.asarray(ff.mts_weights, dtype=float) for ff in forces)
    if not (allowed and np.allclose(total, (0.0, 1.0), rtol=0, atol=1e-12)):
        raise ValueError(
            f"the <mts_weights> (times the weight of the force) are {found}, which add up to "
            f"{np.asarray(total).tolist()}; {WEIGHTS_REMEDY}"
        )


def check_barostat(barostat: Barostat) -> None:
    """Require a barostat that works with the forces of one level at a time.

    Raises
    ------
    ValueError
        For i-PI's stochastic cell rescaling, which needs the total force, so the teacher, at every
        inner step, and for the Suzuki-Chin barostat.
    """
    if type(barostat) not in (Barostat, BaroBZP, BaroMTK, BaroRGB):
        raise ValueError(
            f"the barostat {type(barostat).__name__} would call the teacher at every inner step "
            f"of splitting='{SPLITTING}'; use <barostat mode='isotropic'>, 'anisotropic' or "
            "'flexible', or the splitting 'baoab'"
        )
