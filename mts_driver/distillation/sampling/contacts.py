"""Close contacts: molecules pushed into one another, as in a structure that packmol has packed.

A student that has seen equilibrium only does not know that two oxygens 2 Å apart repel each other:
a random packing, or a hot moment, then ends with molecules on top of one another. In a protein a
hydrogen that comes near a nitrogen, carbon or sulfur of another group then bonds to it.
"""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii, vdw_radii
from ase.neighborlist import neighbor_list
from scipy.spatial.distance import cdist

from mts_driver.structures.bonds import LARGEST_MOLECULE, molecules

SHARE_OF_MOLECULES = 0.1
"""Of every kind, and at least one."""
REACH_A = 3.4
CLOSEST = 0.5
"""A pair ends between this share of its distance and the whole."""
PLACEMENTS = 50
"""Of which the one with most room is taken."""


def crowd(atoms: Atoms, rng: np.random.Generator) -> None:
    """Turn some molecules at random and move each towards one atom of a neighbour, in place.

    Molecules of a gas, which have no neighbours, meet in pairs instead.

    Parameters
    ----------
    atoms : ase.Atoms
        Changed; a system of one molecule is left as it is.
    rng : numpy.random.Generator
        Source of all choices.
    """
    member = molecules(atoms)
    if member.max() == 0:
        return
    i, j = neighbor_list("ij", atoms, REACH_A)
    touching = np.unique(member[i[member[i] != member[j]]])
    alone = rng.permutation(np.setdiff1d(member, touching))
    for first, second in alone[: len(alone) // 2 * 2].reshape(-1, 2):
        _meet(atoms, np.flatnonzero(member == first), np.flatnonzero(member == second), rng)
    small = touching[np.bincount(member)[touching] <= LARGEST_MOLECULE]
    for molecule in rng.permutation(_some_of_each(atoms, member, small, rng)):
        mine = np.flatnonzero(member == molecule)
        _turn(atoms, mine, rng)
        i, j, d = neighbor_list("ijD", atoms, REACH_A)
        outside = np.flatnonzero((member[i] == molecule) & (member[j] != molecule))
        if len(outside):
            pair = outside[rng.integers(len(outside))]
            atoms.positions[mine] += d[pair] * (1.0 - rng.uniform(CLOSEST, 1.0))


def _some_of_each(
    atoms: Atoms, member: np.ndarray, candidates: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """Draw molecules from every formula among the candidates: a lone ion gets its turn."""
    alike: dict[bytes, list[int]] = {}
    for molecule in candidates.tolist():
        formula = np.sort(atoms.numbers[member == molecule]).tobytes()
        alike.setdefault(formula, []).append(molecule)
    chosen = []
    for found in alike.values():
        lucky = [molecule for molecule in found if rng.random() < SHARE_OF_MOLECULES]
        chosen += lucky or [found[rng.integers(len(found))]]
    return chosen


def _meet(atoms: Atoms, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> None:
    """Put the second molecule where an atom of it is too near to one of the first, in place.

    Both atoms are drawn at random, their distance between that of a bond and that of touching
    spheres; of several orientations and directions that with most room for all others is taken.
    """
    a, b = int(rng.choice(first)), int(rng.choice(second))
    z = atoms.numbers
    distance_A = rng.uniform(
        covalent_radii[z[a]] + covalent_radii[z[b]], vdw_radii[z[a]] + vdw_radii[z[b]]
    )
    touching_A = vdw_radii[z[first]][:, None] + vdw_radii[z[second]]
    periodic = bool(atoms.pbc.any())
    arms = atoms.get_distances(b, second, mic=periodic, vector=True)
    surroundings = atoms.get_distances(a, first, mic=periodic, vector=True)
    most_room, best = -np.inf, arms
    for _ in range(PLACEMENTS):
        line = rng.normal(size=3)
        placed = arms @ _rotation(rng).T + distance_A * line / np.linalg.norm(line)
        room = cdist(surroundings, placed) / touching_A
        room[first == a, second == b] = np.inf
        if room.min() > most_room:
            most_room, best = room.min(), placed
    atoms.positions[second] = atoms.positions[a] + best


def _turn(atoms: Atoms, mine: np.ndarray, rng: np.random.Generator) -> None:
    """Rotate a molecule about its first atom by a random rotation."""
    arms = atoms.get_distances(mine[0], mine, mic=bool(atoms.pbc.any()), vector=True)
    atoms.positions[mine] = atoms.positions[mine[0]] + arms @ _rotation(rng).T


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation matrix, (3, 3)."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return rotation * np.sign(np.linalg.det(rotation))
