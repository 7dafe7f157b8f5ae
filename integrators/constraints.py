"""Bonds of fixed length: drifts along the manifold that they leave, and velocities tangent to it.

Geodesic BAOAB (Leimkuhler and Matthews, Proc. R. Soc. A 2016, 472, 20160138): a drift goes along
the manifold (SHAKE, with the velocities that have led there), and every kick and thermostat step is
followed by the projection of the velocities (RATTLE). The splitting stays what it is.

Coloured noise has extra velocities, which live in all directions of space and know of no manifold.
Velocities are given a thermal part across it before such a step: with it they and the extra ones
are canonical as without constraints, the step leaves that so, and the projection takes the part
away again.

Constraints that share an atom form a cluster, which is solved for at once by Newton's method; for
X-H bonds that is a heavy atom with its hydrogens, for rigid water all three distances.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-12
"""Of the squares of lengths, relative, behind a drift."""
MOST_ITERATIONS = 30
"""Newton's method needs four or five; more means that atoms are lost."""


BONDS_LOST = (
    "constrained bonds were not found again behind a drift: the step is too long for them, or the "
    "trajectory blew up; shorten the step"
)


class BondsLost(ValueError):
    """Held distances are not found again behind a drift: the trajectory blew up."""


class Distances(NamedTuple):
    """What is to be held.

    Attributes
    ----------
    pairs : int array, shape (M, 2)
        Atoms.
    lengths : array, shape (M,)
        How far they stay apart.
    """

    pairs: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, eq=False)
class Constraints:
    """Distances that are held, in clusters of up to K that share atoms.

    Attributes
    ----------
    pairs : int array, shape (C, K, 2)
        Atoms of every distance; a cluster with fewer repeats an atom, twice.
    squares : array, shape (C, K)
        Squares of the lengths; 0 where there is none.
    images : array, shape (C, K, 3)
        Lattice vector between the first atom and the image of the second that it is bonded to.
    inverse_masses : array, shape (C, K, K)
        How a force along the second distance moves the first: ±1/m of the atoms that both have.
    counts : int array, shape (C,)
        Distances of each cluster, which come first.
    """

    pairs: np.ndarray
    squares: np.ndarray
    images: np.ndarray
    inverse_masses: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(
        cls,
        distances: Distances,
        masses: np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray,
    ) -> Constraints:
        """Sort distances into clusters.

        Parameters
        ----------
        distances : Distances
            Each pair once.
        masses : array, shape (N,)
            Infinite for atoms that are held.
        positions : array, shape (N, 3)
            Not wrapped, or wrapped: a bond keeps the nearest image that its atoms have here.
        cell : array, shape (3, 3)
            Rows are lattice vectors; zeros for an isolated system.

        Raises
        ------
        ValueError
            If a pair names an atom that there is not, twice the same, or one that is named before;
            a length is not positive; or both atoms are held.
        """
        pairs = np.ascontiguousarray(distances.pairs, dtype=np.int64).reshape(-1, 2)
        lengths = np.ascontiguousarray(distances.lengths, dtype=float)
        masses = np.ascontiguousarray(masses, dtype=float)
        made = _made(pairs.tobytes(), lengths.tobytes(), masses.tobytes())
        i, j = made.pairs[..., 0], made.pairs[..., 1]
        apart = positions[i] - positions[j]
        return replace(made, images=nearest_images(apart, cell))

    @property
    def count(self) -> int:
        """How many distances are held."""
        return int(self.counts.sum())

    def require_one_friction(self, friction: np.ndarray) -> None:
        """Refuse white noise under which projected velocities would not stay canonical.

        Parameters
        ----------
        friction : array, shape (N,)
            Of every atom.

        Raises
        ------
        ValueError
            If atoms of one cluster have frictions that differ.
        """
        of_pairs = friction[self.pairs].reshape(len(self.pairs), -1)
        if of_pairs.size and (np.ptp(of_pairs, axis=1) > 0).any():
            raise ValueError(
                "atoms whose distance is held have frictions that differ, under which they would "
                "not keep their temperature: give hydrogens the friction of all atoms"
            )

    @cached_property
    def _tensors(self) -> tuple[Tensor, ...]:
        held = torch.from_numpy(self.squares > 0)
        # an empty place must not leave the matrix singular
        idle = torch.diag_embed((~held).to(torch.float64))
        arrays = (self.pairs, self.squares, self.images, self.inverse_masses)
        return (*map(torch.from_numpy, arrays), idle)

    def drift(
        self, positions: Tensor, velocities: Tensor, masses: Tensor, dt: float
    ) -> tuple[Tensor, Tensor]:
        """Move along the manifold for ``dt``.

        Parameters
        ----------
        positions, velocities : Tensor, shape (..., N, 3)
            On the manifold, and tangent to it.
        masses : Tensor, shape (N,)
            As the constraints were made with.

        Returns
        -------
        positions, velocities : Tensor, shape (..., N, 3)
            There, tangent to it there.

        Raises
        ------
        BondsLost
            If no such positions are found: the step is too long, or atoms are lost.
        """
        bonds = self._bonds(positions)
        free = positions + dt * velocities
        moved = self.onto(free, masses, along=bonds)
        velocities = velocities + (moved - free) / dt
        return moved, self.tangent(moved, velocities, masses)

    def onto(self, positions: Tensor, masses: Tensor, along: Tensor | None = None) -> Tensor:
        """Move positions (..., N, 3) onto the manifold, along bonds (..., C, K, 3) (SHAKE).

        Without ``along`` these are the ones that the positions have, which is for starts.

        Raises
        ------
        BondsLost
            If Newton's method does not end there.
        """
        _, squares, _, shared, _ = self._on(positions)
        lead = self._bonds(positions) if along is None else along
        now = self._bonds(positions)
        multipliers = now.new_zeros(now.shape[:-1])
        for _ in range(MOST_ITERATIONS):
            off = 0.5 * (now.square().sum(-1) - squares)
            if bool((off.abs() <= TOLERANCE * squares).all()):
                return self._pushed(positions, lead, multipliers, masses)
            slope = self._coupling(now, lead)
            # a bond that has turned by 90° makes it singular: infinite numbers, and no way back
            more = torch.linalg.solve_ex(slope, off[..., None])[0][..., 0]
            multipliers = multipliers - more
            pushes = torch.einsum("...kl,...l,...lx->...kx", shared, more, lead)
            now = now - pushes
        raise BondsLost(BONDS_LOST)

    def tangent(self, positions: Tensor, velocities: Tensor, masses: Tensor) -> Tensor:
        """Take away what would change a length from velocities (..., N, 3) (RATTLE)."""
        pairs = self._on(positions)[0]
        bonds = self._bonds(positions)
        apart = velocities[..., pairs[..., 0], :] - velocities[..., pairs[..., 1], :]
        slope = self._coupling(bonds, bonds)
        grows = (bonds * apart).sum(-1, keepdim=True)
        amounts = torch.linalg.solve_ex(slope, grows)[0][..., 0]
        return self._pushed(velocities, bonds, -amounts, masses)

    def across(self, positions: Tensor, velocities: Tensor, masses: Tensor) -> Tensor:
        """Return the part of velocities (..., N, 3) that `tangent` takes away."""
        return velocities - self.tangent(positions, velocities, masses)

    def lost_degrees(self, positions: Tensor, masses: Tensor) -> Tensor:
        """Return the degrees of freedom that every atom has lost at positions (N, 3), shape (N,).

        Momenta are canonical on the tangent space, so that <m_i v_i²> is kT times the trace of
        atom i's block of the projector onto it.
        """
        pairs, _, _, _, idle = self._on(positions)
        bonds = self._bonds(positions)
        inverse = torch.linalg.inv(self._coupling(bonds, bonds))
        # gradient of distance k at each of its two atoms: +bond and -bond
        lost = torch.zeros_like(masses)
        signs = torch.tensor([1.0, -1.0], dtype=positions.dtype)
        for a in range(2):
            for b in range(2):
                same = pairs[:, :, None, a] == pairs[:, None, :, b]
                both = (bonds[:, :, None] * bonds[:, None, :]).sum(-1) * inverse * same
                both = both * (1.0 - idle.sum(-1))[:, :, None] * (1.0 - idle.sum(-1))[:, None, :]
                share = signs[a] * signs[b] * both / masses[pairs[..., a]][:, :, None]
                lost.index_add_(0, pairs[..., a].reshape(-1), share.sum(-1).reshape(-1))
        return lost

    def virial(
        self, positions: Tensor, velocities: Tensor, forces: Tensor, masses: Tensor
    ) -> Tensor:
        """Return the virial of the forces that hold the bonds, shape (..., 3, 3), i-PI's sign.

        Parameters
        ----------
        positions, velocities, forces : Tensor, shape (..., N, 3)
            Where the atoms are, tangent velocities, and the forces on them but for these.
        """
        pairs, _, _, _, idle = self._on(positions)
        bonds = self._bonds(positions)
        i, j = pairs[..., 0], pairs[..., 1]
        pull = forces / masses[:, None]
        speeds = velocities[..., i, :] - velocities[..., j, :]
        pulls = pull[..., i, :] - pull[..., j, :]
        slope = self._coupling(bonds, bonds)
        needed = speeds.square().sum(-1) + (bonds * pulls).sum(-1)
        needed = needed * (1.0 - idle.sum(-1))
        tension = -torch.linalg.solve(slope, needed[..., None])[..., 0]
        return torch.einsum("...ck,...ckx,...cky->...xy", tension, bonds, bonds)

    @cached_property
    def _copies(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]]:
        return {}

    def _on(self, like: Tensor) -> tuple[Tensor, ...]:
        """Return all tensors where and as ``like`` is; copied there once."""
        found = self._copies.get(key := (like.device, like.dtype))
        if found is None:
            pairs, *numbers = self._tensors
            found = (pairs.to(like.device), *(n.to(like.device, like.dtype) for n in numbers))
            self._copies[key] = found
        return found

    def _coupling(self, bonds: Tensor, along: Tensor) -> Tensor:
        """How pushes along some bonds (..., C, K, 3) change the squares of others, halved."""
        _, _, _, shared, idle = self._on(bonds)
        return shared * (bonds[..., :, None, :] * along[..., None, :, :]).sum(-1) + idle

    def _bonds(self, positions: Tensor) -> Tensor:
        pairs, _, images, *_ = self._on(positions)
        return positions[..., pairs[..., 0], :] - positions[..., pairs[..., 1], :] - images

    def _pushed(self, values: Tensor, bonds: Tensor, amounts: Tensor, masses: Tensor) -> Tensor:
        """Add ±amount · bond / m to both atoms of every distance."""
        pairs = self._on(values)[0]
        pushes = (amounts[..., None] * bonds).flatten(-3, -2)
        i, j = pairs[..., 0].reshape(-1), pairs[..., 1].reshape(-1)
        pushed = values.index_add(-2, i, pushes / masses[i, None])
        return pushed.index_add(-2, j, -pushes / masses[j, None])


def nearest_images(apart: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return lattice vectors (..., 3) that, taken from vectors between atoms, leave the shortest.

    For bonds, which are far shorter than ``cell`` (3, 3) is wide; zeros for an isolated system.
    """
    images: np.ndarray = np.rint(apart @ np.linalg.pinv(cell)) @ cell
    return images


def _check(pairs: np.ndarray, lengths: np.ndarray, masses: np.ndarray) -> None:
    if lengths.shape != (len(pairs),):
        raise ValueError(f"there are {len(pairs)} pairs and lengths of shape {lengths.shape}")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(masses)):
        raise ValueError(f"a constraint names an atom outside 0..{len(masses) - 1}")
    if len(np.unique(np.sort(pairs, axis=1), axis=0)) != len(pairs):
        raise ValueError("a distance is constrained twice; name each pair of atoms once")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("a constraint names the same atom twice")
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("lengths of constraints must be positive and finite")
    if np.isinf(masses[pairs]).any():
        raise ValueError("a constraint has an atom that is held in place; leave one of the two out")


@lru_cache(maxsize=16)  # the same in every outer step of a run
def _made(pair_bytes: bytes, length_bytes: bytes, mass_bytes: bytes) -> Constraints:
    """Return all that does not depend on where the atoms are."""
    pairs = np.frombuffer(pair_bytes, np.int64).reshape(-1, 2)
    lengths, masses = np.frombuffer(length_bytes), np.frombuffer(mass_bytes)
    _check(pairs, lengths, masses)
    members = _clusters(pairs)
    most = max(map(len, members), default=0)
    place = np.full((len(members), most), -1)
    for row, numbers in zip(place, members, strict=True):
        row[: len(numbers)] = numbers
    there = place >= 0
    which = np.where(there[..., None], pairs[place], pairs[place[:, :1], :1])
    squares = np.where(there, lengths[place] ** 2, 0.0)
    shared = _shared(which, there, 1.0 / masses)
    return Constraints(which, squares, np.zeros((*place.shape, 3)), shared, there.sum(axis=1))


def _clusters(pairs: np.ndarray) -> list[list[int]]:
    """Return the numbers of pairs that are connected, by cluster."""
    owner: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    for number, pair in enumerate(pairs.tolist()):
        joined = sorted({owner[atom] for atom in pair if atom in owner})
        cluster = [one for key in joined for one in members.pop(key)]
        key = min([number, *joined])
        members[key] = sorted([*cluster, number])
        for one in members[key]:
            for atom in pairs[one].tolist():
                owner[atom] = key
    return list(members.values())


def _shared(which: np.ndarray, there: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return ±1/m of the atoms that two distances of a cluster have in common, (C, K, K)."""
    found = np.zeros((*there.shape, there.shape[1]))
    for a, first in ((0, 1.0), (1, -1.0)):
        for b, second in ((0, 1.0), (1, -1.0)):
            same = which[:, :, None, a] == which[:, None, :, b]
            found += first * second * same * inverse[which[..., a]][:, :, None]
    return np.where(there[:, :, None] & there[:, None, :], found, 0.0)
