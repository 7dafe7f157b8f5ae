"""How long a call of a potential takes."""

import statistics
import time

import numpy as np
import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.structures.tensors import cell_of


def milliseconds_per_call(potential: Potential, atoms: Atoms, *, calls: int = 6) -> float:
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
