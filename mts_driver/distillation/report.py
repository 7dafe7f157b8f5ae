"""What a distillation achieved: errors on frames the student never saw, as JSON and a picture."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.distillation.dataset import stiff_pairs
from mts_driver.distillation.labels import LabelFile
from mts_driver.distillation.loss import force_constants
from mts_driver.inputs import CLIP_EV_A
from mts_driver.potentials.student import StudentConfig


@dataclass(frozen=True)
class Evaluated:
    """Teacher and student on the held-out frames.

    Attributes
    ----------
    symbols : array of str, shape (M,)
        Element of every atom of every frame.
    teacher, student : array, shape (M, 3)
        Forces, eV/Å.
    constants_teacher, constants_student : array, shape (B,)
        X-H force constants, eV/Å².
    """

    symbols: np.ndarray
    teacher: np.ndarray
    student: np.ndarray
    constants_teacher: np.ndarray
    constants_student: np.ndarray

    @classmethod
    def on_test_set(
        cls, student: Potential, labels: LabelFile, config: StudentConfig
    ) -> "Evaluated":
        """Evaluate the student, as it will run, on the test frames and test pairs."""
        frames = [a for a in labels.of("md") if a.info["split"] == "test"]
        pairs = stiff_pairs(labels, "stiff-test", config)
        signs = {1.0: [], -1.0: []}  # type: dict[float, list[torch.Tensor]]
        for atoms in labels.of("stiff-test")[: 2 * len(pairs)]:
            signs[float(atoms.info["sign"])].append(_forces(student, atoms))
        constants = [
            force_constants(pair, plus, minus)
            for pair, plus, minus in zip(pairs, signs[1.0], signs[-1.0], strict=True)
        ]
        return cls(
            symbols=np.concatenate([a.get_chemical_symbols() for a in frames]),
            teacher=np.concatenate([a.get_array("teacher_forces") for a in frames]),
            student=np.concatenate([_forces(student, a).numpy() for a in frames]),
            constants_teacher=np.concatenate([p.constants.numpy() for p in pairs] or [np.zeros(0)]),
            constants_student=np.concatenate([c.numpy() for c in constants] or [np.zeros(0)]),
        )

    def summary(self) -> dict[str, Any]:
        """Errors by element, force-constant errors and the tail of the force difference."""
        squared = ((self.student - self.teacher) ** 2).mean(1)
        by_element = {
            str(s): float(np.sqrt(squared[self.symbols == s].mean()))
            for s in np.unique(self.symbols)
        }
        off = self.constants_student / self.constants_teacher - 1.0
        difference = np.linalg.norm(self.student - self.teacher, axis=1)
        return {
            "force_rmse_eV_A": {"all": float(np.sqrt(squared.mean())), **by_element},
            "teacher_force_rms_eV_A": float(np.sqrt((self.teacher**2).mean())),
            "xh_force_constant_error": (
                {"mean": float(off.mean()), "rms": float(np.sqrt((off**2).mean()))}
                if len(off)
                else None
            ),
            "xh_force_constant_mean_eV_A2": (
                float(self.constants_teacher.mean()) if len(off) else None
            ),
            "max_force_difference_eV_A": float(difference.max()),
            "test_atoms": len(self.symbols),
        }


def _forces(potential: Potential, atoms: Atoms) -> torch.Tensor:
    cell = torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])
    return potential(torch.tensor(atoms.positions), cell).forces


def milliseconds_per_call(potential: Potential, atoms: Atoms, *, calls: int = 12) -> float:
    """Median time of a call on slightly moving atoms, ms; the first two calls don't count."""
    rng = np.random.default_rng(0)
    cell = torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])
    times = []
    for _ in range(calls + 2):
        positions = torch.tensor(atoms.positions + 0.005 * rng.normal(size=(len(atoms), 3)))
        started = time.perf_counter()
        potential(positions, cell)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[2:])


def draw(evaluated: Evaluated, summary: dict[str, Any], path: Path, *, title: str) -> None:
    """Write the picture: parity, error by element, force-difference tail, force constants."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    figure.suptitle(title)
    parity, bars, tail, constants = figure.subplots(2, 2).ravel()

    for s in np.unique(evaluated.symbols):
        mine = evaluated.symbols == s
        parity.plot(
            evaluated.teacher[mine].ravel(), evaluated.student[mine].ravel(), ".", ms=1.5, label=s
        )
    ends = np.array([evaluated.teacher.min(), evaluated.teacher.max()])
    parity.plot(ends, ends, "k-", lw=0.8)
    parity.set(xlabel="teacher force (eV/Å)", ylabel="student force (eV/Å)")
    parity.legend(markerscale=6)

    errors = summary["force_rmse_eV_A"]
    drawn = bars.bar(list(errors), list(errors.values()), color="0.6")
    bars.bar_label(drawn, fmt="%.3f")
    bars.margins(y=0.1)
    bars.set(ylabel="force RMSE (eV/Å)", title="held-out frames")

    difference = np.sort(np.linalg.norm(evaluated.student - evaluated.teacher, axis=1))[::-1]
    tail.loglog(difference, np.arange(1, len(difference) + 1) / len(difference))
    tail.axvline(CLIP_EV_A, color="C3", ls="--", label="clip, 150 kcal/mol/Å")
    tail.set(xlabel="|F_teacher − F_student| on an atom (eV/Å)", ylabel="share of atoms above")
    tail.legend()

    if len(evaluated.constants_teacher):
        constants.plot(evaluated.constants_teacher, evaluated.constants_student, ".", ms=3)
        ends = np.array([evaluated.constants_teacher.min(), evaluated.constants_teacher.max()])
        constants.plot(ends, ends, "k-", lw=0.8)
        error = summary["xh_force_constant_error"]
        constants.set_title(f"mean error {error['mean']:+.2%}, rms {error['rms']:.2%}")
    constants.set(
        xlabel="X–H force constant, teacher (eV/Å²)", ylabel="X–H force constant, student (eV/Å²)"
    )
    figure.savefig(path, dpi=120)
