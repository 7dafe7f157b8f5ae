"""How long bonds are on average: what they are held at."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from ase import Atoms

from integrators.constraints import nearest_images
from integrators.state import MDState, Potential
from mts_driver.errors import UserError
from mts_driver.simulation.equilibrate import damped_run
from mts_driver.structures.tensors import cell_of

PICOSECONDS = 1.0
"""A hundred periods of a stretch vibration; bonds of a kind are averaged over."""
_DISCARDED = 0.3


def average_lengths(
    atoms: Atoms,
    masses_Da: np.ndarray,
    potential: Potential,
    pairs: Mapping[str, np.ndarray],
    *,
    temperature_K: float,
    timestep_fs: float = 1.0,
    picoseconds: float = PICOSECONDS,
    seed: int,
    report: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, float]:
    """Run a potential, usually the student, and return the mean distance of every kind, Å.

    Langevin dynamics (BAOAB, 10/ps) of flexible bonds; the first 30 % are left out.

    Parameters
    ----------
    pairs : mapping of str to int array, shape (M, 2)
        Atoms of every kind of bond.
    report : callable
        ``report(step, steps)``.

    Raises
    ------
    UserError
        If the potential does not hold the atoms together.
    """
    steps = round(1000 * picoseconds / timestep_fs)
    every = np.concatenate(list(pairs.values()))
    apart = atoms.positions[every[:, 0]] - atoms.positions[every[:, 1]]
    images = torch.from_numpy(nearest_images(apart, cell_of(atoms).numpy()))
    sums, count = torch.zeros(len(every), dtype=torch.float64), 0

    def look(state: MDState) -> None:
        nonlocal sums, count
        if state.step > _DISCARDED * steps:
            x = state.positions.cpu()
            bonds = x[every[:, 0]] - x[every[:, 1]] - images
            sums, count = sums + torch.linalg.vector_norm(bonds, dim=-1), count + 1
        report(state.step, steps)

    damped_run(
        *(atoms, masses_Da, potential),
        temperature_K=temperature_K,
        steps=steps,
        timestep_fs=timestep_fs,
        seed=seed,
        on_step=look,
    )
    means = (sums / count).numpy()
    ends = np.cumsum([len(of_kind) for of_kind in pairs.values()])[:-1]
    found = {
        kind: float(part.mean()) for kind, part in zip(pairs, np.split(means, ends), strict=True)
    }
    if not all(np.isfinite(length) and length < 2.5 for length in found.values()):
        raise UserError(
            "the average lengths of bonds are not those of bonds: the model does not hold this "
            "structure together. Give bond_lengths_A, or start from a relaxed structure."
        )
    return found
