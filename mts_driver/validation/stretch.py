"""Bond-stretch curves, teacher against student: holes are found here before a run falls into one.

A student that pushes a long bond further apart, where the teacher pulls it back, ends a run with a
broken bond, while |F_teacher - F_student| stays below every clip on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.structures.bonds import Bond, Molecules, by_kind, find_bonds
from mts_driver.structures.tensors import cell_of

POINTS = 27
XH_RANGE_A = (0.7, 2.0)
HEAVY_RANGE = (0.75, 1.6)
"""Shares of the length in the frame."""
TOLERANCE_EV_A = 0.25
"""Force below which a sign means nothing: what 0.005 Å at the minimum of an O-H bond make."""
TORN = 1.15
"""Beyond this many times its length at rest a bond counts as torn: 1.1 Å for O-H."""
CANDIDATES = 40
"""Bonds of a kind among which the one with most room is taken."""


@dataclass(frozen=True, kw_only=True)
class StretchCurve:
    """Force and energy along one bond; a positive force pushes its two ends apart.

    Attributes
    ----------
    bond : str
        Elements, such as ``O–H``.
    atoms : tuple of int
        The two atoms in the frame; the smaller side of the molecule moves with the second.
    lengths_A : array, shape (P,)
        Bond lengths.
    teacher_eV_A, student_eV_A : array, shape (P,)
        Forces on the moving side along the bond, minus the slope of the energies.
    teacher_eV, student_eV : array, shape (P,)
        Energies above the lowest of the curve.
    """

    bond: str
    atoms: tuple[int, int]
    lengths_A: np.ndarray
    teacher_eV_A: np.ndarray
    student_eV_A: np.ndarray
    teacher_eV: np.ndarray
    student_eV: np.ndarray

    @property
    def torn_force_rmse_eV_A(self) -> float:
        """Root mean square of student − teacher beyond 1.15 of the length at rest, eV/Å."""
        torn = self.lengths_A > TORN * self.lengths_A[np.argmin(self.teacher_eV)]
        return float(np.sqrt(((self.student_eV_A - self.teacher_eV_A)[torn] ** 2).mean()))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; null stands for a number that is not finite."""
        names = ("lengths_A", "teacher_eV_A", "student_eV_A", "teacher_eV", "student_eV")
        arrays = {name: getattr(self, name) for name in names}
        arrays["unsafe_lengths_A"] = unsafe_lengths(self)
        error = self.torn_force_rmse_eV_A
        return {
            "atoms": list(self.atoms),
            "torn_force_rmse_eV_A": round(error, 4) if np.isfinite(error) else None,
            **{
                name: [round(x, 4) if np.isfinite(x) else None for x in values.tolist()]
                for name, values in arrays.items()
            },
        }


def unsafe_lengths(curve: StretchCurve, *, tolerance_eV_A: float = TOLERANCE_EV_A) -> np.ndarray:
    """Return the lengths at which the student has a hole, Å.

    There it pushes the bond apart where the teacher pulls it back, or, shorter than the teacher's
    equilibrium, pulls it together where the teacher pushes; or its force is not finite.

    Parameters
    ----------
    curve : StretchCurve
        Of one bond.
    tolerance_eV_A : float
        Both forces have to be larger than this.
    """
    teacher, student = curve.teacher_eV_A, curve.student_eV_A
    outward = (student > tolerance_eV_A) & (teacher < -tolerance_eV_A)
    short = curve.lengths_A < curve.lengths_A[np.argmin(curve.teacher_eV)]
    inward = short & (student < -tolerance_eV_A) & (teacher > tolerance_eV_A)
    return curve.lengths_A[outward | inward | ~np.isfinite(student)]


def stretch_curves(
    frame: Atoms,
    teacher: Potential,
    student: Potential,
    *,
    points: int = POINTS,
    report: Callable[[str, int, int], None] | None = None,
) -> list[StretchCurve]:
    """Stretch one bond for each pair of bonded elements, the rest of the frame held.

    Parameters
    ----------
    frame : ase.Atoms
        A configuration with whole molecules (across periodic boundaries is fine).
    teacher, student : Potential
        Bound to its atoms.
    points : int
        Lengths a curve: X-H bonds from 0.7 to 2 Å, others from 0.75 to 1.6 times theirs.
    report : callable, optional
        ``report(what, done, total)`` after each curve.

    Returns
    -------
    list of StretchCurve
        Bonds to hydrogen first; kinds that occur in rings only are left out.
    """
    bonds = find_bonds(frame)
    molecules = Molecules(bonds, len(frame))
    kinds = by_kind(bonds)
    curves = []
    for k, candidates in enumerate(kinds.values()):
        movable = [m for b in candidates[:CANDIDATES] if (m := molecules.smaller_side(b))]
        if movable:
            bond, side = max(movable, key=lambda m: _room_A(frame, *m))
            curves.append(_curve(frame, bond, side, teacher, student, points))
        if report is not None:
            report("bond-stretch curves", k + 1, len(kinds))
    return curves


def _lengths_A(frame: Atoms, bond: Bond, points: int) -> np.ndarray:
    if bond.to_hydrogen:
        return np.linspace(*XH_RANGE_A, points)
    return float(np.linalg.norm(bond.vector(frame))) * np.linspace(*HEAVY_RANGE, points)


def _stretched(frame: Atoms, bond: Bond, side: np.ndarray, length_A: float) -> np.ndarray:
    """Positions with the bond at this length, shape (N, 3)."""
    vector = bond.vector(frame)
    positions = frame.positions.copy()
    positions[side] += vector * (length_A / np.linalg.norm(vector) - 1.0)
    return positions


def _room_A(frame: Atoms, bond: Bond, side: np.ndarray) -> float:
    """Closest approach of the moving side to other atoms at full stretch, Å."""
    long = frame.copy()
    long.positions = _stretched(frame, bond, side, _lengths_A(frame, bond, 2)[-1])
    others = np.setdiff1d(np.arange(len(frame)), [*side, bond.fixed])
    if not len(others):
        return np.inf
    periodic = bool(frame.pbc.any())
    return min(float(long.get_distances(a, others, mic=periodic).min()) for a in side)


def _curve(
    frame: Atoms, bond: Bond, side: np.ndarray, teacher: Potential, student: Potential, points: int
) -> StretchCurve:
    lengths = _lengths_A(frame, bond, points)
    unit = torch.tensor(bond.vector(frame) / np.linalg.norm(bond.vector(frame)))
    cell = cell_of(frame)
    forces: dict[str, list[float]] = {"teacher": [], "student": []}
    energies: dict[str, list[float]] = {"teacher": [], "student": []}
    for length in lengths:
        positions = torch.tensor(_stretched(frame, bond, side, length))
        for name, potential in (("teacher", teacher), ("student", student)):
            found = potential(positions, cell)
            forces[name].append(float(found.forces[side].sum(0) @ unit))
            energies[name].append(float(found.energy))
    lowest = {name: np.array(e) - np.nanmin(e) for name, e in energies.items()}
    return StretchCurve(
        bond=bond.kind,
        atoms=(bond.fixed, bond.moving),
        lengths_A=lengths,
        teacher_eV_A=np.array(forces["teacher"]),
        student_eV_A=np.array(forces["student"]),
        teacher_eV=lowest["teacher"],
        student_eV=lowest["student"],
    )
