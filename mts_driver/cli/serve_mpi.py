"""``mpiexec -n N mts serve --mpi``: one driver of several processes, which share the atoms out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.errors import UserError

MOST_ATOMS = 5000
"""Of a structure that the first rank also evaluates alone, before it answers."""
# of a force, and of an energy an atom
TOLERANCE_EV_A = {"float32": 1e-3, "float64": 1e-8}
_FAULT = "this is a fault of mts-driver or of the MPI library"
_FAULTS = {
    "ase": "its receptive_field_A is too small, or its energies of atoms do not add up",
    "metatomic": "atoms matter to it beyond the interaction range that the model declares",
}


def on_all_ranks(
    answer: Callable[[Callable[..., Any]], None],
    ranks: Any,
    models: list[str],
    structure: Path,
    *,
    device: str,
    dtype: str,
) -> None:
    """Have the first rank answer a server, with models that all ranks evaluate together.

    Parameters
    ----------
    answer : callable
        Takes what loads a model, ``load(spec, atoms, device=..., dtype=...)``; calls it for each of
        the ``models``, in this order.
    ranks : MpiRanks
        All of them.
    structure : Path
        With the atoms.
    """
    from mts_driver.drivers.mpi import Team, all_end_together
    from mts_driver.structures.files import read_structure

    with all_end_together(ranks):
        team = Team(ranks)
        if ranks.rank == 0:
            answer(lambda *a, **options: _checked(team, *a, **options))
            team.end()
        else:
            atoms = read_structure(structure)
            for model in models:
                team.load(model, atoms.numbers.tolist(), device=device, dtype=dtype)
            team.follow()
        ranks.leave()


def _checked(team: Any, spec: str, atoms: Any, *, device: str, dtype: str) -> Any:
    """Load a model for all ranks, whose forces and energy must be those of one process."""
    from mts_driver.potentials import load_potential

    if team.ranks.size > len(atoms):
        raise UserError(
            f"{team.ranks.size} ranks for {len(atoms)} atoms: start mpiexec with -n {len(atoms)} "
            "or less."
        )
    numbers = atoms.numbers.tolist()
    shared = team.load(spec, numbers, device=device, dtype=dtype)
    if team.ranks.size == 1 or len(atoms) > MOST_ATOMS:
        return shared
    import torch

    from mts_driver.structures.tensors import cell_of

    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    alone = load_potential(spec, numbers, device=device, dtype=dtype)
    found = [model(x, cell) for model in (shared, alone)]
    forces = [one.forces.double().numpy() for one in found]
    difference = float(np.abs(forces[0] - forces[1]).max())
    apart = abs(found[0].energy.item() - found[1].energy.item()) / len(atoms)
    if not (difference < TOLERANCE_EV_A[dtype] and apart < TOLERANCE_EV_A[dtype]):
        fault = _FAULTS.get(spec.partition(":")[0], _FAULT)
        raise UserError(
            f"{spec} on {team.ranks.size} ranks gives forces that differ by {difference:.2g} eV/Å, "
            f"and an energy that differs by {apart:.2g} eV an atom, from those of one process: "
            f"{fault}; run without --mpi."
        )
    return shared
