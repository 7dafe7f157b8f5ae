"""Force constants along bonds, teacher against student: they decide how long an outer step may be.

A student whose O-H bonds are 5 % too soft halves the usable outer step, whatever its force error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.geometry import get_distances

from integrators.state import Potential
from mts_driver.structures.bonds import Bond, by_kind, find_bonds
from mts_driver.structures.tensors import cell_of

DISPLACEMENT_A = 0.015
"""Of the bond length, either way; the cubic term of the energy cancels."""
APART_A = 8.0
"""Bonds are displaced together if their atoms are at least this far from one another."""


@dataclass(frozen=True)
class ForceConstants:
    """Second derivatives of the energies along bonds.

    Attributes
    ----------
    kinds : array of str, shape (B,)
        Such as ``O–H``.
    teacher_eV_A2, student_eV_A2 : array, shape (B,)
        Force constants.
    """

    kinds: np.ndarray
    teacher_eV_A2: np.ndarray
    student_eV_A2: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["ForceConstants"]) -> "ForceConstants":
        """Return those of several frames as one."""
        return cls(
            np.concatenate([p.kinds for p in parts] or [np.zeros(0, str)]),
            np.concatenate([p.teacher_eV_A2 for p in parts] or [np.zeros(0)]),
            np.concatenate([p.student_eV_A2 for p in parts] or [np.zeros(0)]),
        )

    @property
    def to_hydrogen(self) -> np.ndarray:
        """Which bonds are X-H bonds, shape (B,)."""
        return np.char.endswith(self.kinds.astype(str), "–H")

    @property
    def relative_error(self) -> np.ndarray:
        """Student − teacher over the teacher's mean for bonds of the same kind, shape (B,)."""
        means = {k: self.teacher_eV_A2[self.kinds == k].mean() for k in np.unique(self.kinds)}
        scale = np.array([means[k] for k in self.kinds])
        return (self.student_eV_A2 - self.teacher_eV_A2) / scale

    def error(self, chosen: np.ndarray) -> dict[str, float] | None:
        """Mean and rms of `relative_error` over the chosen bonds (B,); None if there are none."""
        off = self.relative_error[chosen]
        if not len(off):
            return None
        return {
            "mean": float(off.mean()),
            "rms": float(np.sqrt((off**2).mean())),
            "bonds": len(off),
            "teacher_mean_eV_A2": float(self.teacher_eV_A2[chosen].mean()),
        }

    def errors_by_kind(self) -> dict[str, dict[str, float] | None]:
        """`error` of every kind of bond."""
        return {str(k): self.error(self.kinds == k) for k in np.unique(self.kinds)}


def bond_force_constants(
    frame: Atoms,
    teacher: Potential,
    student: Potential,
    *,
    max_bonds: int = 60,
    rng: np.random.Generator,
    report: Callable[[str, int, int], None] | None = None,
) -> ForceConstants:
    """Measure force constants along the bonds of a frame by finite differences of forces.

    k = −(F₊ − F₋)·d / 2δ, where d moves the hydrogen of an X-H bond, or both atoms of any other
    bond by half each; rings are no exception.

    Parameters
    ----------
    frame : ase.Atoms
        A configuration.
    teacher, student : Potential
        Bound to its atoms.
    max_bonds : int
        Bonds to take, evenly from all kinds, so that a solute does not drown in its solvent.
    rng : numpy.random.Generator
        Chooses among the bonds of a kind.
    report : callable, optional
        ``report(what, done, total)`` after each pair of displacements.

    Returns
    -------
    ForceConstants
        Empty if nothing is bonded.
    """
    bonds = _chosen(find_bonds(frame), max_bonds, rng)
    cell = cell_of(frame)
    constants = np.zeros((len(bonds), 2))
    groups = _far_apart(frame, bonds)
    for done, group in enumerate(groups):
        directions = [_direction(frame, bonds[k]) for k in group]
        step = DISPLACEMENT_A * sum(directions, np.zeros((len(frame), 3)))
        for column, potential in enumerate((teacher, student)):
            plus, minus = (
                potential(torch.tensor(frame.positions + sign * step), cell).forces.numpy()
                for sign in (1.0, -1.0)
            )
            for k, direction in zip(group, directions, strict=True):
                constants[k, column] = -np.vdot(plus - minus, direction) / (2 * DISPLACEMENT_A)
        if report is not None:
            report("force constants", done + 1, len(groups))
    return ForceConstants(np.array([b.kind for b in bonds], str), *constants.T)


def _chosen(bonds: list[Bond], most: int, rng: np.random.Generator) -> list[Bond]:
    """Up to ``most`` bonds, one of each kind in turn."""
    piles = [[kind[k] for k in rng.permutation(len(kind))] for kind in by_kind(bonds).values()]
    turns = range(max(map(len, piles), default=0))
    return [pile[turn] for turn in turns for pile in piles if turn < len(pile)][:most]


def _direction(frame: Atoms, bond: Bond) -> np.ndarray:
    """Displacement of all atoms per change of the bond length, shape (N, 3)."""
    unit = bond.vector(frame) / np.linalg.norm(bond.vector(frame))
    direction = np.zeros((len(frame), 3))
    direction[bond.moving] = unit if bond.to_hydrogen else 0.5 * unit
    if not bond.to_hydrogen:
        direction[bond.fixed] = -0.5 * unit
    return direction


def _far_apart(frame: Atoms, bonds: list[Bond]) -> list[list[int]]:
    """Group bonds that don't feel each other's displacement; as indices."""
    if not bonds:
        return []
    centres = [frame.positions[b.fixed] + b.vector(frame) for b in bonds]
    # the moving atoms stand for their bonds: those of heavy ones are closer by a bond length
    reach = np.array([0.0 if b.to_hydrogen else np.linalg.norm(b.vector(frame)) for b in bonds])
    _, distances = get_distances(np.array(centres), cell=frame.cell, pbc=frame.pbc)
    free = distances - reach[:, None] - reach[None, :] >= APART_A
    groups: list[list[int]] = []
    for k in range(len(bonds)):
        home = next((g for g in groups if free[k, g].all()), None)
        if home is None:
            groups.append([k])
        else:
            home.append(k)
    return groups
