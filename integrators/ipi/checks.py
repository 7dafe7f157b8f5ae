"""What the splitting asks of an i-PI input, checked when the simulation is set up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ipi.engine.barostats import BaroBZP, BaroMTK, BaroRGB, Barostat
from ipi.utils.depend import dstrip
from ipi.utils.messages import verbosity, warning

from integrators.splitting import Splitting, baoab, respa_baoab

SPLITTING = "respa-baoab"
"""The value of ``splitting=`` in ``<dynamics>``."""

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
        If ``nmts`` is neither ``[1]``, ``[k, n]`` nor ``[k, a, b]``.
    """
    counts = [int(n) for n in nmts]
    if len(counts) not in (1, 2, 3) or min(counts) < 1 or (len(counts) == 1 and counts[0] > 1):
        raise ValueError(
            f"<nmts> is {counts}; splitting='{SPLITTING}' takes [1, n], the slow level once and "
            "the fast level n times per outer step, [1] for a single level, or [1, a, b] for "
            "three; [k, n] makes k outer steps in one <timestep>"
        )
    return respa_baoab(*counts[1:]).repeated(counts[0]) if len(counts) > 1 else baoab()


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
    """Require level 0 to be teacher - student, and the last level the (cheapest) student.

    Model k of the forces, from the teacher (0) on, counts +1 on level k and -1 on level k - 1. The
    two may be in two <force> blocks of the same forcefield, as ring-polymer contraction needs it:
    the difference on few beads, the student on all.

    Parameters
    ----------
    forces : sequence of ipi.engine.forces.ForceComponent
        With attributes ``ffield``, ``weight`` and ``mts_weights``.

    Raises
    ------
    ValueError
        If a weight is another one, or if they do not add up to the teacher.
    """
    shown: list[str] = []
    totals: dict[str, np.ndarray] = {}
    for part in forces:
        weights = np.asarray(part.mts_weights, dtype=float)
        shown.append(f"{part.ffield}: {weights.tolist()} x {float(part.weight):g}")
        totals[part.ffield] = totals.get(part.ffield, np.zeros_like(weights)) + weights
    unit = np.eye(len(forces[0].mts_weights))
    allowed = [unit[0], *(unit[1:] - unit[:-1])]
    known = all(any(np.array_equal(found, one) for one in allowed) for found in totals.values())
    total = sum(part.weight * np.asarray(part.mts_weights, dtype=float) for part in forces)
    if not (known and np.allclose(total, unit[-1], rtol=0, atol=1e-12)):
        raise ValueError(
            f"the <mts_weights> (times the weight of the force) are {', '.join(shown)}, which add "
            f"up to {np.asarray(total).tolist()}; {WEIGHTS_REMEDY}"
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


def check_energies(forces: Sequence, ensemble: str) -> None:
    """Know models that give forces alone, once they have been evaluated.

    Raises
    ------
    ValueError
        At constant pressure. Without a virial of the teacher nothing would hold against the
        pressure; without one of the student, all of it would act in the slow kicks.
    """
    levels = {"teacher": 0} if len(forces[0].mts_weights) == 1 else {"teacher": 0, "student": -1}
    for name, level in levels.items():
        parts = [part for part in forces if part.mts_weights[level] == 1 and part.weight != 0]
        if not _without_virial(parts):
            continue
        if ensemble in ("npt", "nst"):
            raise ValueError(
                f"the {name} gives forces, but no virial: it is for <dynamics mode='nvt'>, not "
                f"{ensemble!r}; use a model with a virial (stress) at constant pressure"
            )
        if ensemble == "nve" and not any(dstrip(part.pots).any() for part in parts):
            warning(
                f" @RESPA: the {name} gives forces, but no energy and no virial: do not expect "
                "'nve' to keep the energy",
                verbosity.low,
            )


def _without_virial(parts: Sequence) -> bool:
    """Whether all virials are zero to the last bit, but not all forces."""
    quiet = not any(dstrip(part.virs).any() for part in parts)
    return quiet and any(dstrip(part.f).any() for part in parts)
