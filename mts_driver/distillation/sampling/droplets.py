"""Solutes with the solvent next to them, which a teacher labels for a fraction of the whole box.

A box has one solute in one conformation, and minutes of sampling leave it there: a student that is
fine-tuned on it gains on that conformation and loses on the others. In a droplet a picosecond of
the student's dynamics costs a sixth, and so does a label.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

from mts_driver.structures.bonds import LARGEST_MOLECULE
from mts_driver.structures.solutes import force_groups, solute_weights
from mts_driver.structures.topology import topology

SHELL_A = 5.0
"""Solvent within this distance of the solute: the surroundings that a student sees, and more."""
WORTHWHILE = 0.5
"""A droplet of more than this share of the box is not worth it."""


def droplets(systems: Sequence[Atoms]) -> list[Atoms]:
    """Return one droplet for every kind of small solute molecule in every system.

    Parameters
    ----------
    systems : sequence of ase.Atoms
        Each with a name in ``info['system']``.

    Returns
    -------
    list of ase.Atoms
        Isolated, named after their system, with the weights of `solute_weights` for the solute and
        0 for the solvent in the array ``force_weight``; none where there is no solvent, or where a
        molecule has more than 40 atoms, which fragments are for.
    """
    return [drop for atoms in systems for drop in _droplets_of(atoms)]


def _droplets_of(atoms: Atoms) -> list[Atoms]:
    groups = force_groups(atoms)
    if "solute" not in groups:
        return []
    bonds = topology(atoms)
    if np.bincount(bonds.molecule).max() > LARGEST_MOLECULE:
        return []
    solute, found = groups["solute"].numpy(), dict[bytes, Atoms]()
    # solvent at the surface of a droplet is not what the box holds
    weights = np.where(solute, solute_weights(atoms), 0.0)
    for molecule in np.unique(bonds.molecule[solute]):
        kind = np.sort(atoms.numbers[bonds.molecule == molecule]).tobytes()
        if kind in found:
            continue
        chosen, positions = _shell(atoms, bonds.molecule, molecule)
        if len(chosen) > WORTHWHILE * len(atoms):
            continue
        suffix = f"-{len(found) + 1}" if found else ""
        drop = Atoms(atoms.numbers[chosen], positions)
        drop.set_array("force_weight", weights[chosen])
        drop.info["system"] = f"{atoms.info['system']}-droplet{suffix}"
        if charge := int(bonds.charges[chosen].sum()):
            drop.info["charge"] = charge
        found[kind] = drop
    return list(found.values())


def _shell(atoms: Atoms, member: np.ndarray, molecule: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a molecule and all those near it: their atoms (M,) and positions (M, 3), unwrapped."""

    def beside(anchor: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mine = np.flatnonzero(member == member[anchor])
        steps, _ = find_mic(atoms.positions[mine] - atoms.positions[anchor], atoms.cell, atoms.pbc)
        return mine, place + steps

    first = int(np.flatnonzero(member == molecule)[0])
    pieces = [beside(first, atoms.positions[first])]
    places = dict(zip(*pieces[0], strict=True))
    i, j, vectors = neighbor_list("ijD", atoms, SHELL_A)
    near = np.flatnonzero((member[i] == molecule) & (member[j] != molecule))
    nearest = near[np.argsort(np.linalg.norm(vectors[near], axis=1))]
    for pair in nearest[np.unique(member[j[nearest]], return_index=True)[1]]:
        pieces.append(beside(int(j[pair]), places[i[pair]] + vectors[pair]))
    chosen, positions = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return chosen, positions
