"""What a call costs inside multiple time steps, beside the same call alone, and what that leaves.

A machine that other work shares is faster and slower from minute to minute, by more than what
caches or threads could do to a call. So single steps, multiple time steps and the models alone, at
the very positions that these have visited, take turns within seconds, and only ratios within a turn
are averaged: their standard errors are those of the turns.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from integrators.levels import DEFAULT_CLIP
from integrators.noise import CounterNoise
from integrators.outer_steps import OuterSteps
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.potentials import load_potential
from mts_driver.processes import keep_memory
from mts_driver.simulation.simulate.timed_model import TimedModel
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.files import read_structure
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of
from mts_driver.thermostats import chosen, high_pass_noise
from mts_driver.time_steps import TimeSteps
from mts_driver.units import BOLTZMANN_EV_K, EV_FS2_A2_PER_AMU

DEFAULTS: dict[str, Any] = {"outer_fs": (6.0,), "inner_fs": 1.0}
COLUMNS: Columns = {
    "": ("label", ""),
    "ms": ("ms", ".2f"),
    "a quarter below": ("ms_quarter", ".2f"),
    "a quarter above": ("ms_three_quarters", ".2f"),
    "to the call alone": ("ratio", ".3f"),
    "±": ("ratio_error", ".3f"),
    "× 1 fs": ("speedup", ".2f"),
    "± ": ("speedup_error", ".2f"),
}
HYDROGEN_MASS_DA = 4.0
STEPS = 3
"""Of either kind a turn."""
FEWEST_TURNS = 5


def measure(settings: BenchSettings) -> Result:
    """Take turns for as long as all rounds last, and average what is relative."""
    outer_fs = settings.the_outer_fs()
    n = TimeSteps(outer_fs, settings.inner_fs).n_inner
    settings.report("single steps, multiple time steps and both models, in turn")
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        structure = Path(folder) / "start.extxyz"
        settings.structure.write(structure)
        turns = call_fresh(
            take_turns,
            threads=settings.threads,
            structure=str(structure),
            models=[settings.teacher, settings.student],
            steps=[outer_fs, settings.inner_fs],
            device=settings.device,
            seconds=settings.rounds * settings.seconds,
        )
    t = {name: np.array(values) for name, values in turns.items()}
    rows = [
        _row("teacher alone", t["teacher_alone"], None),
        _row("teacher in single steps", t["teacher_single"], t["teacher_alone"]),
        _row("teacher in multiple time steps", t["teacher_mts"], t["teacher_alone"]),
        _row("student alone", t["student_alone"], None),
        _row("student, the first behind the teacher", t["student_first"], t["student_alone"]),
        _row("student, the others", t["student_others"], t["student_alone"]),
        _row("single step of 1 fs", t["single"], t["teacher_alone"]),
        _row(f"outer step of {outer_fs:g}/{settings.inner_fs:g} fs", t["mts"], None),
    ]
    speedups = {
        "speed-up as measured": outer_fs * t["single"] / t["mts"],
        "speed-up if models cost what they do alone, and nothing else does": outer_fs
        / (1.0 + n * t["student_alone"] / t["teacher_alone"]),
    }
    for label, values in speedups.items():
        mean, error = _mean(values)
        rows.append({"label": label, "speedup": mean, "speedup_error": error})
    notes = [f"{len(t['single'])} turns; ratios are means over them, with standard errors"]
    return Result("inside", environment(settings), rows, notes)


def take_turns(
    *, structure: str, models: list[str], steps: list[float], device: str, seconds: float
) -> dict[str, list[float]]:
    """Return milliseconds of every turn, by what was timed; medians of the calls of a turn."""
    keep_memory()
    atoms, (outer_fs, inner_fs) = read_structure(structure), steps
    n = TimeSteps(outer_fs, inner_fs).n_inner
    teacher, student = (
        _Logged(load_potential(spec, atoms.numbers.tolist(), device=device), spec)
        for spec in models
    )
    single = _Trajectory(atoms, teacher, None, outer_fs=1.0, n=1, hydrogen_mass_Da=0.0)
    mts = _Trajectory(
        atoms, teacher, student, outer_fs=outer_fs, n=n, hydrogen_mass_Da=HYDROGEN_MASS_DA
    )
    turns: dict[str, list[float]] = {}

    def keep(**values: Any) -> None:
        for name, found in values.items():
            turns.setdefault(name, []).append(float(np.median(found)))

    for trajectory in (single, mts):
        trajectory.advance(2)  # what is compiled or allocated once
    end = time.perf_counter() + seconds
    while len(turns.get("mts", ())) < FEWEST_TURNS or time.perf_counter() < end:
        taken_ms = single.advance(STEPS)
        keep(single=taken_ms, teacher_single=teacher.times_ms)
        taken_ms = mts.advance(STEPS)
        keep(mts=taken_ms, teacher_mts=teacher.times_ms)
        first, others = student.times_ms[::n], np.delete(student.times_ms, np.s_[::n])
        keep(student_first=first, student_others=others if len(others) else first)
        keep(teacher_alone=teacher.again(), student_alone=student.again())
    return turns


class _Logged(TimedModel):
    """A model that knows when and where it was called."""

    def __init__(self, potential: Any, name: str) -> None:
        super().__init__(potential, name)
        self.times_ms, self._where = list[float](), list[tuple[np.ndarray, np.ndarray]]()

    def forget(self) -> None:
        self.times_ms, self._where = [], []

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Any:
        before = self.seconds
        found = super().__call__(positions, cells)
        self.times_ms.append(1e3 * (self.seconds - before))
        self._where.append((positions.copy(), cells.copy()))
        return found

    def again(self) -> list[float]:
        """Repeat the calls without anything in between; return their times, ms."""
        where = self._where
        self.forget()
        for positions, cells in where:
            self(positions, cells)
        return self.times_ms


class _Trajectory:
    """A run that goes on where it was."""

    def __init__(
        self,
        atoms: Any,
        teacher: _Logged,
        student: _Logged | None,
        *,
        outer_fs: float,
        n: int,
        hydrogen_mass_Da: float,
    ) -> None:
        self._models = [model for model in (teacher, student) if model is not None]
        masses_Da = repartitioned_masses(atoms, hydrogen_mass_Da)
        state = thermal_state(atoms, masses_Da, temperature_K=TEMPERATURE_K, seed=1)
        masses = masses_Da * EV_FS2_A2_PER_AMU
        self._x = np.asarray(state.positions).copy()
        self._p = np.asarray(state.velocities) * masses[:, None]
        self._cell = np.asarray(cell_of(atoms))
        noise = chosen("auto", outer_fs=outer_fs, student=student is not None)
        coloured = high_pass_noise(FRICTION_PER_PS) if noise == "high-pass" else None
        self._extra = None if coloured is None else np.zeros((coloured.extra, *self._x.shape))
        white_per_fs = 0.0 if coloured else 1e-3 * FRICTION_PER_PS
        self._outer = OuterSteps(
            teacher,
            student,
            masses=masses,
            n=n,
            timestep=outer_fs,
            kT=BOLTZMANN_EV_K * TEMPERATURE_K,
            friction=np.full(len(atoms), white_per_fs),
            groups=np.ones((1, len(atoms)), bool),
            clip=DEFAULT_CLIP,
            fixcom=True,
            coloured=coloured,
        )
        self._step = 0
        self._look()

    def _look(self) -> None:
        self._outer.look(self._x, self._cell)

    def advance(self, steps: int) -> list[float]:
        """Take steps; return their times, ms. Models have forgotten their calls before."""
        self._look()  # forces of its own start, where it has not taken the last step
        for model in self._models:
            model.forget()
        return [_timed(self._advance) for _ in range(steps)]

    def _advance(self) -> None:
        self._step += 1
        noise = self._outer.draw(CounterNoise(1), self._step)
        taken = self._outer.take(self._x, self._p, self._cell, noise, self._extra)
        self._x, self._p = taken.positions, taken.momenta
        self._extra = None if self._extra is None else taken.extra


def _timed(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _row(label: str, values: np.ndarray, alone: np.ndarray | None) -> dict[str, Any]:
    row: dict[str, Any] = {"label": label, "ms": float(np.median(values))}
    quarters = np.percentile(values, [25, 75])
    row["ms_quarter"], row["ms_three_quarters"] = map(float, quarters)
    if alone is not None:
        row["ratio"], row["ratio_error"] = _mean(values / alone)
    return row


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
