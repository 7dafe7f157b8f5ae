"""The loop alone: both models in one process, with nothing between them."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import TwoLevel
from integrators.splitting import SLOW, respa_baoab
from integrators.state import Evaluation, Potential
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K, Variant
from mts_driver.potentials import load_potential
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.files import read_structure
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.thermostats import high_pass_noise


class _Timed:
    """A potential, its calls and the time they took."""

    def __init__(self, potential: Potential) -> None:
        self._potential = potential
        self.calls, self.seconds = 0, 0.0

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        start = time.perf_counter()
        found = self._potential(positions, cell)
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - start
        return found


def run_in_process(atoms: Atoms, variant: Variant, steps: int) -> dict[str, Any]:
    """Run RESPA-BAOAB of the torch engine; the keys are those of a run's summary.

    It takes a student, and holds no bonds.
    """
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        structure = Path(folder) / "start.extxyz"
        atoms.write(structure)
        return call_fresh(
            run_here,
            threads=variant.threads,
            structure=str(structure),
            variant=asdict(variant),
            steps=steps,
        )


def run_here(*, structure: str, variant: dict[str, Any], steps: int) -> dict[str, Any]:
    """Run the variant, `Variant` as a dictionary, in this process."""
    atoms, chosen = read_structure(structure), Variant(**variant)
    assert chosen.student is not None and not chosen.constrain
    masses_Da = repartitioned_masses(atoms, chosen.hydrogen_mass)
    state = thermal_state(atoms, masses_Da, temperature_K=TEMPERATURE_K, seed=1)
    numbers = atoms.numbers.tolist()
    models = [
        _Timed(load_potential(spec, numbers, device=chosen.device))
        for spec in (chosen.teacher, chosen.student)
    ]
    levels, splitting = TwoLevel(models[0], models[1]), respa_baoab(chosen.protocol(steps).n_inner)
    options: dict[str, Any] = {
        "timestep": chosen.outer_fs,
        "bath": _bath(atoms, chosen),
        "seed": 1,
    }
    # models compile in their first calls
    state = run(levels.evaluate(state, SLOW), levels, splitting, steps=1, **options)
    for model in models:
        model.calls, model.seconds = 0, 0.0
    start = time.perf_counter()
    run(state, levels, splitting, steps=steps, **options)
    wall_s = time.perf_counter() - start
    teacher, student = models
    return {
        "steps": steps,
        "wall_s": wall_s,
        "teacher_ms": 1e3 * teacher.seconds / teacher.calls,
        "student_ms": 1e3 * student.seconds / student.calls,
        "overhead_fraction": 1.0 - (teacher.seconds + student.seconds) / wall_s,
    }


def _bath(atoms: Atoms, chosen: Variant) -> Bath:
    if chosen.high_pass:
        noise = high_pass_noise(FRICTION_PER_PS)
        return Bath.from_temperature(temperature_K=TEMPERATURE_K, coloured=noise)
    friction = torch.full((len(atoms),), FRICTION_PER_PS, dtype=torch.float64)
    if chosen.hydrogen_friction_per_ps is not None:
        friction[atoms.numbers == 1] = chosen.hydrogen_friction_per_ps
    return Bath.from_temperature(temperature_K=TEMPERATURE_K, friction_per_ps=friction)
