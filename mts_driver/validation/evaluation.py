"""Forces of teacher and student side by side, on frames that the student never saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.structures.solutes import force_groups
from mts_driver.structures.tensors import cell_of

STRONG_EV_A = (2.0, 20.0)
"""A force of a close contact that decides whether atoms part; beyond, digits don't matter."""


@dataclass(frozen=True)
class Evaluated:
    """Forces of teacher and student on the held-out frames of one or several systems.

    Attributes
    ----------
    symbols, systems : array of str, shape (M,)
        Element and system of every atom of every frame.
    solute : array of bool, shape (M,)
        Whether an atom is of a solute, see `force_groups`.
    teacher, student : array, shape (M, 3)
        Forces, eV/Å.
    """

    symbols: np.ndarray
    systems: np.ndarray
    solute: np.ndarray
    teacher: np.ndarray
    student: np.ndarray

    @classmethod
    def on_frames(
        cls, frames: Sequence[Atoms], student_for: Callable[[Atoms], Potential]
    ) -> "Evaluated":
        """Evaluate the student, as it will run, on labelled frames.

        Parameters
        ----------
        frames : sequence of ase.Atoms
            With the array ``teacher_forces`` (N, 3), eV/Å; the optional array ``force_weight``
            (N,) leaves out atoms where it is zero, such as those at the rim of a fragment;
            ``info["system"]`` names the system, the formula where it is missing.
        student_for : callable
            The student bound to the atoms of a frame; called once for each distinct set.
        """
        students: dict[bytes, Potential] = {}
        solutes: dict[bytes, np.ndarray] = {}
        symbols, systems = [np.zeros(0, str)], [np.zeros(0, str)]
        solute = [np.zeros(0, bool)]
        teacher, student = [np.zeros((0, 3))], [np.zeros((0, 3))]
        for atoms in frames:
            key = atoms.numbers.tobytes()
            if key not in students:
                students[key] = student_for(atoms)
                none = torch.zeros(len(atoms), dtype=torch.bool)
                solutes[key] = force_groups(atoms).get("solute", none).numpy()
            cell = cell_of(atoms)
            found = students[key](torch.tensor(atoms.positions), cell).forces.numpy()
            kept = np.ones(len(atoms), bool)
            if atoms.has("force_weight"):
                kept = atoms.get_array("force_weight") > 0
            name = str(atoms.info.get("system", atoms.get_chemical_formula()))
            symbols.append(np.array(atoms.get_chemical_symbols())[kept])
            systems.append(np.full(int(kept.sum()), name))
            solute.append(solutes[key][kept])
            teacher.append(atoms.get_array("teacher_forces")[kept])
            student.append(found[kept])
        return cls(
            np.concatenate(symbols),
            np.concatenate(systems),
            np.concatenate(solute),
            np.concatenate(teacher),
            np.concatenate(student),
        )

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def difference_eV_A(self) -> np.ndarray:
        """|F_teacher − F_student| of every atom, shape (M,)."""
        return np.linalg.norm(self.student - self.teacher, axis=1)

    def rmse(self, chosen: np.ndarray) -> float:
        """Root mean square error of the force components of the chosen atoms (M,), eV/Å."""
        return float(np.sqrt(((self.student - self.teacher)[chosen] ** 2).mean()))

    def summary(self) -> dict[str, Any]:
        """Errors by element, of solutes and by system, and the largest; null for no frames."""
        if not len(self):
            return {
                "force_rmse_eV_A": None,
                "force_rmse_by_system_eV_A": None,
                "teacher_force_rms_eV_A": None,
                "max_force_difference_eV_A": None,
                "test_atoms": 0,
            }
        everything = np.ones(len(self), bool)
        elements, systems = np.unique(self.symbols), np.unique(self.systems)
        groups = {"all": everything, **{str(s): self.symbols == s for s in elements}}
        if self.solute.any():
            groups["solute"] = self.solute
        return {
            "force_rmse_eV_A": {name: self.rmse(chosen) for name, chosen in groups.items()},
            "force_rmse_by_system_eV_A": {str(s): self.rmse(self.systems == s) for s in systems},
            "teacher_force_rms_eV_A": float(np.sqrt((self.teacher**2).mean())),
            "max_force_difference_eV_A": float(self.difference_eV_A.max()),
            "test_atoms": len(self),
        }

    def strong_forces(self) -> dict[str, Any] | None:
        """Errors where the teacher's force is strong, and how often the student's is opposite."""
        strength = np.linalg.norm(self.teacher, axis=1)
        strong = (strength > STRONG_EV_A[0]) & (strength < STRONG_EV_A[1])
        if not strong.any():
            return None
        along = (self.teacher * self.student)[strong].sum(axis=1)
        return {
            "force_rmse_eV_A": self.rmse(strong),
            "opposite": float((along < 0).mean()),
            "atoms": int(strong.sum()),
        }
