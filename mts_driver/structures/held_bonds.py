"""Bonds to hydrogen that are held at a fixed length: which, and how long."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from ase import Atoms

from integrators.constraints import Constraints, Distances
from mts_driver.errors import UserError
from mts_driver.structures.bonds import bonded_pairs
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.masses import hydrogen_bonds_to_heavy
from mts_driver.structures.tensors import cell_of, inertial_masses
from mts_driver.thermostats import BEYOND_FS

LONGEST_A = 2.5
"""Å; longer is no bond to a hydrogen, nor the distance of two in a water molecule."""
LONGEST_WITH_HEAVY_BONDS_FS = 7.0, 2.0
"""Outer and inner steps at which a peptide in water does not heat up; at 10 fs C=O resonates."""
Lengths = Mapping[str, float]


def held_pairs(atoms: Atoms, *, rigid_water: bool = False) -> dict[str, np.ndarray]:
    """Return bonds to hydrogen by kind, int arrays (M, 2), heavy atom first.

    A kind names the heavy atom with all its neighbours, such as ``O(HH)-H`` in water and
    ``O(CH)-H`` in an alcohol. ``rigid_water`` adds the distance of both hydrogens, ``H-O-H``.

    Raises
    ------
    UserError
        If there is no hydrogen, one is not bonded, or a bond has one atom that is held in place
        and one that is not.
    """
    if not (atoms.numbers == 1).any():
        raise UserError("constrain_hydrogens=True, but there is no hydrogen: leave it out.")
    bonds = hydrogen_bonds_to_heavy(atoms)[:, ::-1]
    neighbours: list[list[int]] = [[] for _ in atoms]
    pairs = bonded_pairs(atoms)
    for i, j in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True):
        neighbours[i].append(j)
        neighbours[j].append(i)
    moves = moving_atoms(atoms)
    found: dict[str, list[tuple[int, int]]] = {}
    for heavy, hydrogen in bonds.tolist():
        if moves[heavy] != moves[hydrogen]:
            raise UserError(
                f"the bond of atoms {heavy} and {hydrogen} cannot be held, since one of the two is "
                "held in place: hold both or none, or leave constrain_hydrogens out."
            )
        if moves[heavy]:
            around = "".join(sorted(atoms.symbols[k] for k in neighbours[heavy]))
            kind = f"{atoms.symbols[heavy]}({around})-H"
            found.setdefault(kind, []).append((heavy, hydrogen))
    if rigid_water:
        found |= _waters(atoms, bonds, neighbours, moves)
    return {kind: np.array(of_kind) for kind, of_kind in found.items()}


def _waters(
    atoms: Atoms, bonds: np.ndarray, neighbours: list[list[int]], moves: np.ndarray
) -> dict[str, list[tuple[int, int]]]:
    waters = []
    for k in np.flatnonzero((atoms.numbers == 8) & moves).tolist():
        around = [h for heavy, h in bonds.tolist() if heavy == k]
        if len(around) == len(neighbours[k]) == 2:
            waters.append((around[0], around[1]))
    if not waters:
        raise UserError("rigid_water=True, but there is no water molecule: leave it out.")
    return {"H-O-H": waters}


def distances(pairs: Mapping[str, np.ndarray], lengths_A: Lengths) -> Distances:
    """Give bonds of all kinds their lengths, Å.

    Parameters
    ----------
    pairs : mapping
        As `held_pairs` returns.
    lengths_A : mapping of str to float
        By kind, or by elements (``O-H``); the kind wins.

    Raises
    ------
    UserError
        If one is missing, names nothing that there is, or is no length.
    """
    names = {kind: (kind, re.sub(r"\(.*\)", "", kind)) for kind in pairs}
    for name, length in lengths_A.items():
        if not any(name in known for known in names.values()):
            allowed = ", ".join(dict.fromkeys(n for known in names.values() for n in known))
            raise UserError(f"bond_lengths_A names {name!r}: there are {allowed}.")
        if not 0.5 <= length <= LONGEST_A:
            raise UserError(
                f"bond_lengths_A has {name}={length!r}: give a length of 0.5 to {LONGEST_A:g} Å."
            )
    found = []
    for kind, known in names.items():
        given = [lengths_A[name] for name in known if name in lengths_A]
        if not given:
            raise UserError(f"bond_lengths_A lacks {kind}: give it, or none for averages.")
        found.append(np.full(len(pairs[kind]), given[0]))
    together = np.concatenate([np.zeros((0, 2), int), *pairs.values()])
    return Distances(together, np.concatenate([np.zeros(0), *found]))


def heavy_bonds_warning(
    atoms: Atoms, *, outer_fs: float, inner_fs: float, high_pass: bool
) -> str | None:
    """Return what speaks against such steps where bonds between heavy atoms are free, or None."""
    pairs = bonded_pairs(atoms)
    if not ((atoms.numbers[pairs.i] != 1) & (atoms.numbers[pairs.j] != 1)).any():
        return None
    free = "bonds between heavy atoms are not held"
    longest_fs, longest_inner_fs = LONGEST_WITH_HEAVY_BONDS_FS
    if outer_fs > BEYOND_FS and not high_pass:
        return (
            f"{free}, and resonate with the outer step (half a period of C=O is 9.8 fs): leave "
            "--thermostat high-pass, which damps them"
        )
    if outer_fs > longest_fs:
        return (
            f"{free}, and outer steps of more than {longest_fs:g} fs, here {outer_fs:g}, may heat "
            "the molecules that have them: --high-friction-per-ps 200 takes most of it away; see "
            "the temperature of the solute in `mts check` first"
        )
    if inner_fs > longest_inner_fs:
        return (
            f"{free}, and vibrate too fast for inner steps of {inner_fs:g} fs: give an --inner-fs "
            f"of at most {longest_inner_fs:g}"
        )
    return None


def parse_lengths(text: str) -> dict[str, float]:
    """Read ``O-H=0.98,C-H=1.09``, Å.

    Raises
    ------
    UserError
        If it is something else.
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(
                f"bond_lengths_A={text!r}: give lengths in Å such as O-H=0.98,C-H=1.09."
            ) from None
    return found


def on_manifold(
    atoms: Atoms, masses_Da: np.ndarray, held: Distances
) -> tuple[np.ndarray, Constraints]:
    """Return positions (N, 3) with these distances, near those of the atoms, and the constraints.

    Parameters
    ----------
    masses_Da : ndarray, shape (N,)
        Those of the run.

    Raises
    ------
    UserError
        If there are none.
    """
    masses = inertial_masses(atoms, masses_Da)
    constraints = Constraints.of(held, masses.numpy(), atoms.positions, cell_of(atoms).numpy())
    try:
        moved = constraints.onto(torch.tensor(atoms.positions), masses).numpy()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"bonds of the start cannot be brought to the lengths that are to be held ({error}): "
            "relax the structure, or give other bond_lengths_A."
        ) from error
    return moved, constraints
