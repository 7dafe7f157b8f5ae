"""What a distillation achieved, measured on frames that the student never saw."""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.files import replacing, write_json
from mts_driver.structures.solutes import force_groups
from mts_driver.structures.tensors import cell_of
from mts_driver.validation.drift import Drift
from mts_driver.validation.force_constants import ForceConstants
from mts_driver.validation.stretch import StretchCurve

STRONG_EV_A = (2.0, 20.0)
"""A force of a close contact that decides whether atoms part; beyond, digits don't matter."""
FRICTION_PER_PS = 1.0
"""At which the heating is predicted."""


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


@dataclass(frozen=True, kw_only=True)
class DistillationReport:
    """Everything that was measured, and the files that show it.

    Attributes
    ----------
    title : str
        Of the picture and the page.
    forces : Evaluated
        On held-out frames.
    constants : ForceConstants
        Along bonds of held-out frames; may be empty.
    contacts : Evaluated, optional
        On held-out frames with close contacts.
    curves : sequence of StretchCurve
        One for each kind of bond.
    drifts : mapping of float to Drift
        By outer step, fs.
    student_ms, teacher_ms : float
        Cost of a call.
    facts : mapping
        What else belongs in the summary: ``command``, ``settings`` (a mapping), ``labels`` (counts
        by kind), ``wall_s``, ...
    """

    title: str
    forces: Evaluated
    constants: ForceConstants = field(default_factory=lambda: ForceConstants.joined([]))
    contacts: Evaluated | None = None
    curves: Sequence[StretchCurve] = ()
    drifts: Mapping[float, Drift] = field(default_factory=dict)
    student_ms: float
    teacher_ms: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return all numbers as JSON holds them; null stands for what could not be measured."""
        drifts = {str(float(outer)): d.as_dict() for outer, d in sorted(self.drifts.items())}
        heating = {
            str(float(k)): d.heating_K(FRICTION_PER_PS) for k, d in sorted(self.drifts.items())
        }
        hydrogen = self.constants.to_hydrogen
        return {
            **self.forces.summary(),
            "xh_force_constant_error": self.constants.error(hydrogen),
            "heavy_force_constant_error": self.constants.error(~hydrogen),
            "force_constant_error_by_bond": self.constants.errors_by_kind() or None,
            "nve_respa_drift_meV_atom_ps": drifts or None,
            "predicted_heating_K": heating or None,
            "close_contacts": self.contacts and self.contacts.strong_forces(),
            "stretch": {curve.bond: curve.as_dict() for curve in self.curves} or None,
            "student_ms": self.student_ms,
            "teacher_ms": self.teacher_ms,
            **self.facts,
        }

    def write(self, student: Path, *, json_file: Path | None = None) -> dict[str, Any]:
        """Write NAME.json, NAME.png and NAME.html beside the student file NAME.safetensors.

        The numbers come first; where the picture cannot be drawn or written, a line says so and
        none of an earlier student is left beside them.

        Parameters
        ----------
        student : Path
            Its suffix is replaced.
        json_file : Path, optional
            Another place for the numbers.

        Returns
        -------
        dict
            `summary`.
        """
        from mts_driver.distillation.report.figure import draw
        from mts_driver.distillation.report.page import page

        summary = self.summary()
        write_json(json_file or student.with_suffix(".json"), summary)
        picture, html = student.with_suffix(".png"), student.with_suffix(".html")
        try:
            draw(self, summary, picture)
            with replacing(html) as part:
                part.write_text(page(self.title, summary, picture.read_bytes()), encoding="utf-8")
        except Exception as error:  # hours of work do not end in a traceback of a figure
            print(f"no picture: {type(error).__name__}: {error}", file=sys.stderr)
            for path in (picture, html):
                with contextlib.suppress(OSError):
                    path.unlink()
        return summary


def milliseconds_per_call(potential: Potential, atoms: Atoms, *, calls: int = 12) -> float:
    """Median time of a call on slightly moving atoms, ms; the first two calls don't count."""
    rng = np.random.default_rng(0)
    cell = cell_of(atoms)
    times = []
    for _ in range(calls + 2):
        positions = torch.tensor(atoms.positions + 0.005 * rng.normal(size=(len(atoms), 3)))
        started = time.perf_counter()
        potential(positions, cell)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[2:])
