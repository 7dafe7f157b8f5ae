"""The loop alone: both models in one process, with nothing between them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from ase import Atoms
from torch import Tensor

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import TwoLevel
from integrators.splitting import SLOW, respa_baoab
from integrators.state import Evaluation, Potential, initial_state
from mts_driver.potentials import load_potential
from mts_driver.structures import repartitioned_masses
from mts_driver.tensors import cell_of, thermal_velocities
from mts_driver.units import EV_FS2_A2_PER_AMU

if TYPE_CHECKING:
    from mts_driver.bench.speedup import Variant


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
    """Run RESPA-BAOAB of the torch engine; the keys are those of a run's summary."""
    assert variant.student is not None
    masses = torch.tensor(repartitioned_masses(atoms, variant.hydrogen_mass) * EV_FS2_A2_PER_AMU)
    velocities = thermal_velocities(masses, 300.0, 1)
    state = initial_state(torch.tensor(atoms.positions), velocities, masses, cell_of(atoms))
    numbers = atoms.numbers.tolist()
    models = [_Timed(load_potential(m, numbers)) for m in (variant.teacher, variant.student)]
    levels, n = TwoLevel(models[0], models[1]), round(variant.outer_fs)
    options: dict[str, Any] = {
        "timestep": variant.outer_fs,
        "bath": Bath.from_temperature(temperature_K=300.0, friction_per_ps=1.0),
        "seed": 1,
    }
    # models compile in their first calls
    state = run(levels.evaluate(state, SLOW), levels, respa_baoab(n), steps=1, **options)
    for model in models:
        model.calls, model.seconds = 0, 0.0
    start = time.perf_counter()
    run(state, levels, respa_baoab(n), steps=steps, **options)
    wall_s = time.perf_counter() - start
    teacher, student = models
    return {
        "steps": steps,
        "wall_s": wall_s,
        "teacher_ms": 1e3 * teacher.seconds / teacher.calls,
        "student_ms": 1e3 * student.seconds / student.calls,
        "overhead_fraction": 1.0 - (teacher.seconds + student.seconds) / wall_s,
    }
