"""The same teacher and student in other codes: what a user could run today without our drivers.

All engines take the same models, bind them to one process with the same threads, and run at 300 K
with a friction of 1/ps; those with multiple time steps have hydrogens of 4 Da. Every row says how
far its forces on the first structure are from the teacher's.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.bench import peer_openmm, peer_runs
from mts_driver.bench.calculators import packaged_spec
from mts_driver.bench.calls import forces_of
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.ipi_runs import Variant, run_under_ipi
from mts_driver.bench.rounds import SPEED_COLUMNS, Run, in_turn, ratio, speed
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment

HYDROGEN_MASS_DA = 4.0
DEFAULTS: dict[str, Any] = {"outer_fs": (6.0,), "inner_fs": 1.0, "mode": "unix"}
COLUMNS: Columns = {
    "engine": ("engine", ""),
    **SPEED_COLUMNS,
    "time to ours": ("time_to_ours", ".2f"),
    "max |ΔF| eV/Å": ("max_force_difference_eV_A", ".1e"),
}


def measure(settings: BenchSettings) -> Result:
    """Time all engines in turn and compare their forces."""
    outer_fs = settings.the_outer_fs()
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        structure = Path(folder) / "start.extxyz"
        settings.structure.write(structure)
        todo = _engines(structure, outer_fs, settings)
        runs, left_out = in_turn({label: run for label, (run, _) in todo.items()}, settings)
        reference = np.array(
            call_fresh(
                forces_of,
                threads=settings.threads,
                model=settings.teacher,
                structure=str(structure),
                device=settings.device,
            )
        )
    rows = [
        {
            "engine": label,
            **speed(runs[label], timestep_fs),
            "max_force_difference_eV_A": _difference(runs[label], reference),
            "runs": len(runs[label]),
            "left_out": left_out.get(label),
        }
        for label, (_, timestep_fs) in todo.items()
    ]
    for row in rows:
        row["time_to_ours"] = ratio(row["s_per_ps"], rows[0]["s_per_ps"])
    notes = [f"{label}: {reason}" for label, reason in left_out.items()]
    return Result("peers", environment(settings), rows, notes)


def _engines(
    structure: Path, outer_fs: float, settings: BenchSettings
) -> dict[str, tuple[Run, float]]:
    """Return a run and its time step, fs, for every engine; ours first."""
    steps = f"{outer_fs:g}/{settings.inner_fs:g} fs"
    ours = Variant(
        label=f"mts-driver: i-PI, MTS {steps}",
        teacher=settings.teacher,
        student=settings.student,
        outer_fs=outer_fs,
        inner_fs=settings.inner_fs,
        hydrogen_mass=HYDROGEN_MASS_DA,
        mode=settings.mode,
        device=settings.device,
        threads=settings.threads,
    )
    ours.protocol(1)  # time steps that do not fit are reported before anything runs
    common: dict[str, Any] = {"structure": str(structure), "device": settings.device}
    pair: dict[str, Any] = {
        **common,
        "teacher": settings.teacher,
        "student": settings.student,
        "outer_fs": outer_fs,
        "inner_fs": settings.inner_fs,
        "hydrogen_mass": HYDROGEN_MASS_DA,
    }

    def fresh(function: Any, **arguments: Any) -> Run:
        call = partial(call_fresh, function, threads=settings.threads, **arguments)
        return lambda steps: call(steps=steps)

    found: dict[str, tuple[Run, float]] = {
        ours.label: (partial(run_under_ipi, settings.structure, ours), outer_fs),
        f"OpenMM, MTSLangevinIntegrator with PythonForce, {steps}": (
            fresh(peer_openmm.run_openmm, **pair),
            outer_fs,
        ),
        f"i-PI's own baoab MTS, ASE socket clients, {steps}": (
            fresh(peer_runs.run_native_ipi, **pair),
            outer_fs,
        ),
        "ASE Langevin, fast teacher, 1 fs": (
            fresh(peer_runs.run_ase, model=settings.teacher, **common),
            1.0,
        ),
    }
    if settings.teacher == "so3lr":
        packaged = packaged_spec(settings.device)
        run = fresh(peer_runs.run_ase, model=packaged, **common)
        found["ASE Langevin, packaged calculator, 1 fs"] = (run, 1.0)
    return found


def _difference(runs: list[dict[str, Any]], reference: np.ndarray) -> float | None:
    """Largest deviation of an atom's force (norm) from the reference in any run."""
    if not runs:
        return None
    apart = [np.array(run["start_forces"]) - reference for run in runs]
    return max(float(np.linalg.norm(d, axis=1).max()) for d in apart)
