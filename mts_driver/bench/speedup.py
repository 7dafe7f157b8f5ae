"""What multiple time steps gain on this machine, under real i-PI, side by side in one run."""

import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.bench.bare import run_in_process
from mts_driver.drivers.launcher import Launcher, load
from mts_driver.input_xml import ZMQ_FILE, ZMQ_TEXT, input_xml
from mts_driver.inputs import Protocol
from mts_driver.structures import repartitioned_masses, write_start

PACKAGED = "ase:mts_driver.bench.peers:packaged_so3lr"


@dataclass(frozen=True)
class Variant:
    """One way to run the same system.

    Attributes
    ----------
    label : str
        What the table calls it.
    teacher : str
        Specification of the expensive model.
    student : str or None
        None for single time steps.
    outer_fs, hydrogen_mass : float
        Time step of the teacher, fs, and mass of hydrogens, Da (0: natural).
    mode : str
        How i-PI talks to the drivers.
    """

    label: str
    teacher: str
    student: str | None
    outer_fs: float
    hydrogen_mass: float
    mode: str = "unix"


def variants(teacher: str, student: str, outer_fs: list[float]) -> list[Variant]:
    """Return single steps, multiple steps of ``outer_fs`` with HMR, and the packaged model."""
    found = [
        Variant("single step, 1 fs", teacher, None, 1.0, 0.0),
        Variant("single step, 2 fs, HMR", teacher, None, 2.0, 4.0),
    ]
    found += [Variant(f"MTS {t:g}/1 fs, HMR", teacher, student, t, 4.0) for t in outer_fs]
    if teacher == "so3lr":
        found.append(Variant("packaged ASE calculator, 1 fs", PACKAGED, None, 1.0, 0.0))
    return found


def measure(
    atoms: Atoms,
    todo: list[Variant],
    *,
    rounds: int,
    seconds: float,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Time all variants with `time_in_turn` and compare them with single steps.

    Returns
    -------
    dict
        ``name``, ``environment`` and ``rows``: a row a variant, with medians and spread.
    """
    rows = time_in_turn(atoms, todo, rounds=rounds, seconds=seconds, report=report)
    for row in rows:
        for name, base in (("1 fs", rows[0]), ("2 fs HMR", rows[1])):
            row[f"speedup vs {name}"] = base["s_per_ps"] / row["s_per_ps"]
    return {"name": "speedup", "environment": environment(atoms), "rows": rows}


def time_in_turn(
    atoms: Atoms,
    todo: Sequence[Variant],
    *,
    rounds: int,
    seconds: float,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Run all variants in turn, ``rounds`` times, and return a row for each.

    Parameters
    ----------
    atoms : ase.Atoms
        An equilibrated structure.
    seconds : float
        Aimed-at stepping time of each run; the first round finds the number of steps.
    """
    runs: dict[str, list[dict[str, Any]]] = {v.label: [] for v in todo}
    steps = {v.label: 6 for v in todo}
    for k in range(rounds + 1):
        for variant in todo:
            report(f"round {k} of {rounds}: {variant.label}")
            run = run_in_process if variant.mode == "none" else run_under_ipi
            found = run(atoms, variant, steps[variant.label])
            if k:
                runs[variant.label].append(found)
            else:
                per_step = found["wall_s"] / found["steps"]
                steps[variant.label] = max(4, round(seconds / per_step))
    return [_row(v, runs[v.label]) for v in todo]


def run_under_ipi(atoms: Atoms, variant: Variant, steps: int) -> dict[str, Any]:
    """One run of one variant in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mts-bench-"))
    try:
        protocol = Protocol(
            teacher=variant.teacher,
            student=variant.student,
            outer_fs=variant.outer_fs,
            inner_fs=1.0 if variant.student else variant.outer_fs,
            hydrogen_mass=variant.hydrogen_mass,
            temperature_K=300.0,
            friction_per_ps=1.0,
            steps=steps,
            stride=5 * -(-steps // 5),  # no frame, and properties every 5 steps
            seed=1,
            mode=variant.mode,
        )
        masses = repartitioned_masses(atoms, variant.hydrogen_mass)
        write_start(folder / "start.extxyz", atoms, masses)
        (folder / "input.xml").write_text(input_xml(protocol, folder))
        if variant.mode == "zmq":
            (folder / ZMQ_FILE).write_text(ZMQ_TEXT)
        return Launcher(load(folder / "input.xml"), baseline_steps=0).execute()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(variant: Variant, runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [r["wall_s"] / (r["steps"] * variant.outer_fs / 1000.0) for r in runs]

    def median(key: str) -> float | None:
        values = [r[key] for r in runs if r.get(key) is not None]
        return statistics.median(values) if values else None

    teacher_ms, student_ms = median("teacher_ms"), median("student_ms")
    return {
        "variant": variant.label,
        "s_per_ps": statistics.median(seconds),
        "s_per_ps_min": min(seconds),
        "s_per_ps_max": max(seconds),
        "ns_per_day": 86.4 / statistics.median(seconds),
        "teacher_ms": teacher_ms,
        "student_ms": student_ms,
        "overhead_fraction": median("overhead_fraction"),
        "runs": len(runs),
        "steps": runs[0]["steps"],
    }


def environment(atoms: Atoms) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    names = ("mts-driver", "torch", "ipi", "numba", "numpy", "so3krates-torch")
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "atoms": len(atoms),
        "density_g_cm3": float(np.sum(atoms.get_masses()) * 1.66053907 / atoms.get_volume()),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def write(result: dict[str, Any], path: Path) -> None:
    """Write the result as JSON."""
    path.write_text(json.dumps(result, indent=2) + "\n")
