"""Cut-outs of a big system that an expensive teacher can afford.

After Cattin et al. (arXiv 2510.06562): a sphere around a sampled atom, small molecules whole, a
protein cut at single bonds that end in link hydrogens. The teacher labels the piece as an isolated
molecule; its forces teach only on atoms whose neighbours are all there.
"""

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from mts_driver.errors import UserError
from mts_driver.structures.bonds import LARGEST_MOLECULE
from mts_driver.structures.files import check_structure
from mts_driver.structures.neighbors import VerletList
from mts_driver.structures.topology import (
    C,
    H,
    N,
    Topology,
    check_size,
    formal_charge,
    topology,
)

LINK_LENGTH_A = {C: 1.09, N: 1.01}
CLOSEST_LINKS_A = 1.5
"""Two hydrogens of a methylene group are 1.78 Å apart."""
MARGIN_A = 1.0
"""A sphere that is hardly larger than a complete environment has only its centre complete."""
COUNTER_ION_A = 3.0
"""A counter-ion up to here beyond the sphere is taken if it makes the piece neutral."""
SIDESTEP_A, SIDESTEPS = 3.0, 8
"""How far from a drawn centre, and at how many atoms, a neutral piece is looked for."""


def cut(
    atoms: Atoms, topology: Topology, center: int, *, radius_A: float = 9.0, complete_A: float = 3.5
) -> Atoms:
    """Cut out the surroundings of the atom ``center``.

    Molecules of at most 40 atoms come whole if one of their atoms is in the sphere. A larger one
    is extended from the sphere to single bonds of tetrahedral carbon, C-C or to an amide N, and
    outside rings. Counter-ions within ``radius_A`` + 3 Å come with a charged piece.

    Parameters
    ----------
    atoms : ase.Atoms
        A snapshot of the whole system, Å.
    radius_A, complete_A : float
        Of the sphere; of the undisturbed surroundings that an atom needs for its force to count, Å.

    Returns
    -------
    ase.Atoms
        Isolated, the centre at the origin, link hydrogens last. Arrays ``source`` (index in the
        whole system, −1 for a link hydrogen) and ``force_weight`` (1 or 0); info ``system``,
        ``center``, ``charge`` (e).

    Raises
    ------
    UserError
        If the radius leaves no complete atom, does not fit the cell, or holds the whole system.
    """
    return _Snapshot(atoms, topology, radius_A, complete_A).cut(center)


def centers(
    atoms: Atoms,
    topology: Topology,
    count: int,
    rng: np.random.Generator,
    *,
    solute_share: float = 0.7,
) -> np.ndarray:
    """Draw heavy atoms as centres: the solute evenly in space, the solvent at random.

    The solvent is the commonest small molecule; ions and ligands belong to the solute. What one
    of the two cannot provide comes from the other.

    Returns
    -------
    int array, shape (count,)
        Different atoms, those of the solute first.

    Raises
    ------
    UserError
        If there are fewer heavy atoms than centres, or the share is not within 0 to 1.
    """
    check_size(atoms, topology)
    heavy, solvent = atoms.numbers > H, _solvent(atoms, topology)
    if not 0.0 <= solute_share <= 1.0:
        raise UserError(f"solute_share={solute_share:g} is not a share: give 0 to 1.")
    if not 1 <= count <= heavy.sum():
        raise UserError(f"count={count} fragments: give 1 to {heavy.sum()}, one a heavy atom.")
    solute, fluid = np.flatnonzero(heavy & ~solvent), np.flatnonzero(heavy & solvent)
    wanted = max(round(count * solute_share), count - len(fluid))
    spread = _farthest(atoms, solute, min(wanted, len(solute)), rng)
    return np.concatenate([spread, rng.choice(fluid, count - len(spread), replace=False)])


def fragments(
    atoms: Atoms,
    *,
    count: int,
    seed: int,
    radius_A: float = 9.0,
    complete_A: float = 3.5,
    solute_share: float = 0.7,
    bonds: Topology | None = None,
) -> list[Atoms]:
    """Cut ``count`` fragments out of a snapshot; parameters and errors of `cut` and `centers`.

    Where a fragment is charged, and one around an atom within 3 Å of its centre is nearer to
    neutral, that one is taken.

    Parameters
    ----------
    bonds : Topology, optional
        Of the system, from a snapshot with no bond stretched; by default from this one.
    """
    bonds = bonds or topology(atoms)
    snapshot = _Snapshot(atoms, bonds, radius_A, complete_A)
    drawn = centers(atoms, bonds, count, np.random.default_rng(seed), solute_share=solute_share)
    free = atoms.numbers > H
    free[drawn] = False
    found = []
    for center in drawn:
        found.append(snapshot.cut_nearly_neutral(int(center), free))
        free[found[-1].info["center"]] = False
    return found


class _Snapshot:
    """What all fragments of one snapshot share."""

    def __init__(self, atoms: Atoms, bonds: Topology, radius_A: float, complete_A: float) -> None:
        check_size(atoms, bonds)
        check_structure(atoms, "to be cut into fragments")
        if not (complete_A > 0 and radius_A >= complete_A + MARGIN_A):
            raise UserError(
                f"radius_A={radius_A:g} leaves no atom with a complete environment of "
                f"complete_A={complete_A:g} Å: give a radius of at least complete_A + {MARGIN_A:g}."
            )
        self.topology, self.numbers, self.x = bonds, atoms.numbers, atoms.positions
        self.radius_A, self.complete_A = radius_A, complete_A
        self.cell = atoms.cell.array * atoms.pbc[:, None]
        self._to_cell = np.linalg.pinv(self.cell)
        # up to half of the smallest width of the cell, rounding finds the nearest image
        self.reach_A = 0.5 / max(float(np.linalg.norm(self._to_cell, axis=0).max()), 1e-9)
        if self.reach_A < radius_A:
            raise UserError(
                f"radius_A={radius_A:g} does not fit the cell: give at most half of its width, "
                f"{self.reach_A:.2f}, or let the teacher label the whole system."
            )
        self.large = (np.bincount(bonds.molecule) > LARGEST_MOLECULE)[bonds.molecule]
        both = np.concatenate([bonds.bonds, bonds.bonds[:, ::-1]])
        self.ways = both[self.large[both[:, 0]]]
        self.firm = ~np.tile(bonds.cuttable, 2)[self.large[both[:, 0]]]
        pairs = VerletList(cutoff_A=complete_A, skin_A=0.0).pairs(self.x, self.cell)
        self.neighbors = np.bincount(np.concatenate([pairs.i, pairs.j]), minlength=len(atoms))

    def around(self, center: int) -> tuple[np.ndarray, np.ndarray]:
        """Cells (N, 3) by which atoms move to be nearest to the centre, and distances (N,), Å."""
        images = self._nearest(np.array(center), slice(None))
        return images, np.linalg.norm(self.x - self.x[center] + images @ self.cell, axis=1)

    def _nearest(self, a: np.ndarray, b: np.ndarray | slice) -> np.ndarray:
        return -np.round((self.x[b] - self.x[a]) @ self._to_cell)

    def cut(self, center: int) -> Atoms:
        """Cut out one fragment; see the function of this name."""
        images, distances = self.around(center)
        inside = self.large & (distances < self.radius_A)
        capped, links = self._grow(inside, images)
        self._take_molecules(inside, images, distances)
        name = f"a fragment of radius_A={self.radius_A:g} around atom {center}"
        if inside.all():
            raise UserError(f"{name} is all of the system, which need not be cut: label it whole.")
        a, b = self.topology.bonds[inside[self.topology.bonds].all(1)].T
        if (images[b] != images[a] + self._nearest(a, b)).any():
            raise UserError(f"{name} reaches round the cell: give a smaller one or a larger cell.")
        source = np.flatnonzero(inside)
        x = np.concatenate([self.x[source] + images[source] @ self.cell, links])
        fragment = Atoms([*self.numbers[source], *[H] * len(links)], x - self.x[center])
        fragment.set_array("source", np.append(source, np.full(len(links), -1)))
        fragment.set_array("force_weight", self._force_weight(fragment, capped))
        fragment.info.update(system="fragment", center=int(center))
        fragment.info["charge"] = formal_charge(fragment, self.topology)
        return fragment

    def cut_nearly_neutral(self, center: int, free: np.ndarray) -> Atoms:
        """Cut at the centre, or at a free atom nearby where the piece is nearer to neutral."""
        _, distances = self.around(center)
        alike = free & (self.large == self.large[center])
        near = np.flatnonzero(alike & (distances < SIDESTEP_A))
        pieces = []
        for atom in [center, *near[np.argsort(distances[near])][:SIDESTEPS]]:
            pieces.append(self.cut(int(atom)))
            if pieces[-1].info["charge"] == 0:
                break
        return min(pieces, key=lambda piece: abs(piece.info["charge"]))

    def _grow(self, inside: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Extend large molecules to bonds that may be cut, in place; capped atoms, links (L, 3)."""
        while True:
            crossing = inside[self.ways[:, 0]] & ~inside[self.ways[:, 1]]
            a, b = self.ways[crossing].T
            shifts = images[a] + self._nearest(a, b)
            start = self.x[a] + images[a] @ self.cell
            arms = self.x[b] + shifts @ self.cell - start
            extend = self.firm[crossing]
            if not extend.any():
                lengths = np.array([LINK_LENGTH_A[z] for z in self.numbers[a]])
                links = start + arms * (lengths / np.linalg.norm(arms, axis=1))[:, None]
                extend[cKDTree(links).query_pairs(CLOSEST_LINKS_A, output_type="ndarray")] = True
            if not extend.any():
                return a, links
            inside[b[extend]], images[b[extend]] = True, shifts[extend]

    def _take_molecules(self, inside: np.ndarray, images: np.ndarray, r: np.ndarray) -> None:
        """Add small molecules that reach into the sphere, and counter-ions near it, in place."""
        molecule, charges = self.topology.molecule, self.topology.charges
        edge_A = min(self.radius_A + COUNTER_ION_A, self.reach_A)
        near = np.flatnonzero(~self.large & (r < edge_A))
        near = near[np.argsort(r[near], kind="stable")]
        found, first = np.unique(molecule[near], return_index=True)
        closest, taken = near[first], r[near[first]] < self.radius_A
        charge = np.bincount(molecule, weights=charges)[found]
        excess = charges[inside].sum() + charge[taken].sum()
        ions = np.flatnonzero(~taken & (charge != 0))
        for ion in ions[np.argsort(r[closest[ions]])]:
            if abs(excess + charge[ion]) == abs(excess) - abs(charge[ion]):
                taken[ion] = True
                excess += charge[ion]
        anchor = np.full(molecule.max() + 1, -1)
        anchor[found[taken]] = closest[taken]
        members = np.flatnonzero(anchor[molecule] >= 0)
        anchors, inside[members] = anchor[molecule[members]], True
        images[members] = images[anchors] + self._nearest(anchors, members)

    def _force_weight(self, fragment: Atoms, capped: np.ndarray) -> np.ndarray:
        """1 for atoms with all their neighbours and no cut near them, 0 for others, (M,)."""
        source = fragment.get_array("source")
        search = VerletList(cutoff_A=self.complete_A, skin_A=0.0)
        pairs = search.pairs(fragment.positions, np.zeros((3, 3)))
        i, j = np.concatenate([pairs.i, pairs.j]), np.concatenate([pairs.j, pairs.i])
        at_cut = (source < 0) | np.isin(source, capped)
        near_cut = np.bincount(i[at_cut[j]], minlength=len(fragment)) > 0
        complete = np.bincount(i, minlength=len(fragment)) == self.neighbors[source]
        return (complete & ~near_cut & ~at_cut).astype(float)


def _solvent(atoms: Atoms, topology: Topology) -> np.ndarray:
    """Mark the atoms of the commonest small molecule, (N,)."""
    composition = np.zeros((topology.molecule.max() + 1, atoms.numbers.max() + 1), int)
    np.add.at(composition, (topology.molecule, atoms.numbers), 1)
    small = composition.sum(1) <= LARGEST_MOLECULE
    kinds, counts = np.unique(composition[small], axis=0, return_counts=True)
    commonest = kinds[counts.argmax()] if len(kinds) else 0
    return (composition == commonest).all(1)[topology.molecule]


def _farthest(atoms: Atoms, pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Choose ``count`` atoms of the pool, each as far as possible from those before it."""
    pool, found = rng.permutation(pool), np.zeros(count, int)
    distances = np.full(len(pool), np.inf)
    for k in range(count):
        found[k] = pool[distances.argmax()]
        distances = np.minimum(distances, atoms.get_distances(found[k], pool, mic=atoms.pbc.any()))
    return found
