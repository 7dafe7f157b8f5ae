"""Path integrals: what a bead costs when all are evaluated at once, and under i-PI.

A model is asked for all beads in one call, as the drivers do (i-PI's ``<batch_size>``), and for one
after the other. Runs under i-PI have natural masses, since with quantum nuclei they are physics.
"""

import tempfile
from pathlib import Path
from typing import Any

from mts_driver.bench.boxes import write_trajectory
from mts_driver.bench.calls import time_calls
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.ipi_runs import Variant, run_under_ipi
from mts_driver.bench.rounds import Run, in_turn, median_of, ratio, speed, spread
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment

FRAMES = 60
PATIENCE_S = 300.0
ROLES = ("student", "teacher")
DEFAULTS: dict[str, Any] = {
    "beads": (1, 2, 4, 8, 16, 32),
    "outer_fs": (3.0,),
    "inner_fs": 0.75,
    "mode": "unix",
}
COLUMNS: Columns = {
    "beads": ("beads", "d"),
    "student ms": ("student_ms_per_bead", ".3f"),
    "one by one (student)": ("student_ms_one_by_one", ".3f"),
    "teacher ms": ("teacher_ms_per_bead", ".1f"),
    "one by one (teacher)": ("teacher_ms_one_by_one", ".1f"),
    "i-PI s per ps": ("ipi_s_per_ps_per_bead", ".2f"),
    "min": ("ipi_s_per_ps_per_bead_min", ".2f"),
    "max": ("ipi_s_per_ps_per_bead_max", ".2f"),
    "× first row": ("ipi_to_first_row", ".2f"),
    "its student ms": ("ipi_student_ms_per_bead", ".2f"),
    "its teacher ms": ("ipi_teacher_ms_per_bead", ".1f"),
    "overhead": ("overhead_fraction", ".1%"),
}


def measure(settings: BenchSettings) -> Result:
    """Time the models and whole runs with all numbers of beads, in turn."""
    outer_fs, atoms = settings.the_outer_fs(), settings.structure
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        trajectory = Path(folder) / "frames.npz"
        write_trajectory(trajectory, atoms, settings.student, frames=FRAMES)
        todo = {}
        for beads in settings.beads:
            for role in ROLES:
                for batched in (True, False):
                    todo[_label(beads, role, batched)] = _model_run(
                        trajectory, getattr(settings, role), beads, batched, settings
                    )
            variant = _variant(beads, outer_fs, settings)
            variant.protocol(1)  # time steps that do not fit are reported before anything runs
            todo[_label(beads, "i-PI")] = _ipi_run(variant, settings)
        runs, left_out = in_turn(todo, settings)
    rows = [_row(beads, runs, outer_fs) for beads in settings.beads]
    for row in rows:
        first = rows[0]["ipi_s_per_ps_per_bead"]
        row["ipi_to_first_row"] = ratio(row["ipi_s_per_ps_per_bead"], first)
    notes = [f"{label}: {reason}" for label, reason in left_out.items()]
    notes.append("all times are those of one bead; a picosecond of a ring polymer takes P of them")
    return Result("beads", environment(settings), rows, notes)


def _label(beads: int, what: str, batched: bool = True) -> str:
    return f"{beads} beads, {what}" + ("" if batched else ", one by one")


def _variant(beads: int, outer_fs: float, settings: BenchSettings) -> Variant:
    return Variant(
        label=_label(beads, "i-PI"),
        teacher=settings.teacher,
        student=settings.student,
        outer_fs=outer_fs,
        inner_fs=settings.inner_fs,
        beads=beads,
        mode=settings.mode,
        device=settings.device,
        threads=settings.threads,
    )


def _ipi_run(variant: Variant, settings: BenchSettings) -> Run:
    return lambda steps: run_under_ipi(settings.structure, variant, steps)


def _model_run(
    trajectory: Path, model: str, beads: int, batched: bool, settings: BenchSettings
) -> Run:
    """Return a measurement of its own length: ``steps`` are frames, whatever was asked for."""

    def run(_: int) -> dict[str, Any]:
        found = call_fresh(
            time_calls,
            threads=settings.threads,
            timeout_s=20 * settings.seconds + PATIENCE_S,
            model=model,
            trajectory=str(trajectory),
            seconds=settings.seconds,
            device=settings.device,
            beads=beads,
            batched=batched,
        )
        wall_s = 1e-3 * found["ms"] * found["calls"]
        return {**found, "steps": found["calls"], "wall_s": wall_s}

    return run


def _row(beads: int, runs: dict[str, list[dict[str, Any]]], outer_fs: float) -> dict[str, Any]:
    row: dict[str, Any] = {"beads": beads}
    for role in ROLES:
        for batched, name in ((True, "per_bead"), (False, "one_by_one")):
            found = runs[_label(beads, role, batched)]
            row |= spread(f"{role}_ms_{name}", [run["ms"] / beads for run in found])
        row[f"{role}_peak_MB"] = median_of(runs[_label(beads, role)], "peak_MB")
    found = runs[_label(beads, "i-PI")]
    for key, value in speed(found, outer_fs).items():
        if key.startswith("s_per_ps"):
            row[key.replace("s_per_ps", "ipi_s_per_ps_per_bead")] = ratio(value, beads)
    for role in ROLES:  # a run's summary counts a call a bead
        row[f"ipi_{role}_ms_per_bead"] = median_of(found, f"{role}_ms")
    return row | {"overhead_fraction": median_of(found, "overhead_fraction")}
