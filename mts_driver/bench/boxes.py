"""Boxes of many sizes made from a few structures, and short trajectories in them."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import MDState
from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of

MOST_REPEATS = 6
DISPLACEMENT_A = 0.02
"""Standard deviation of what tells the copies of a structure apart."""
FRAME_FS = 1.0


def box_of(structures: Sequence[Atoms], atoms: int) -> Atoms:
    """Repeat one of the structures to the number of atoms that is nearest to ``atoms``.

    Among equals it is the box that is nearest to a cube. Atoms are moved a little at random.

    Raises
    ------
    UserError
        If a structure has no cell.
    """
    for structure in structures:
        if not structure.pbc.all():
            raise UserError("--structure: a structure without a cell cannot be repeated.")

    def badness(choice: tuple[Atoms, tuple[int, int, int]]) -> tuple[int, float]:
        structure, repeats = choice
        lengths = structure.cell.lengths() * repeats
        return abs(len(structure) * int(np.prod(repeats)) - atoms), lengths.max() / lengths.min()

    numbers = range(1, MOST_REPEATS + 1)
    choices = product(structures, product(numbers, numbers, numbers))
    structure, repeats = min(choices, key=badness)
    box = structure.repeat(repeats)
    box.positions += np.random.default_rng(1).normal(0.0, DISPLACEMENT_A, box.positions.shape)
    return box


def write_trajectory(path: Path, atoms: Atoms, student: str, *, frames: int) -> None:
    """Write consecutive frames of dynamics with the student, 1 fs apart, at 300 K.

    The file holds ``numbers`` (N,), ``cell`` (3, 3) and ``frames`` (F, N, 3), Å.
    """
    masses_Da = repartitioned_masses(atoms, 0.0)
    kept: list[np.ndarray] = []

    def keep(state: MDState) -> None:
        kept.append(state.positions.numpy().copy())

    run(
        thermal_state(atoms, masses_Da, temperature_K=TEMPERATURE_K, seed=1),
        SingleLevel(load_potential(student, atoms.numbers.tolist())),
        baoab(),
        steps=frames,
        timestep=FRAME_FS,
        bath=Bath.from_temperature(temperature_K=TEMPERATURE_K, friction_per_ps=FRICTION_PER_PS),
        seed=1,
        on_step=keep,
    )
    np.savez(path, numbers=atoms.numbers, cell=cell_of(atoms).numpy(), frames=np.array(kept))


def back_and_forth(frames: int) -> Iterator[int]:
    """Yield 0, 1, … F−1, F−2, … 1, 0, 1, … without end: never a jump."""
    turn = max(2 * frames - 2, 1)
    k = 0
    while True:
        yield min(k, turn - k) if frames > 1 else 0
        k = (k + 1) % turn
