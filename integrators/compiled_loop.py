"""Steps without what they don't need: the loop of a driver.

Walks the same splittings as :func:`integrators.engine.step`, the reference that it is tested
against, in place and with momenta: on a CPU a frozen state for every operation costs as much as a
cheap student does. Between two evaluations there is one call of compiled code. Ring polymers are
propagated in their normal modes, as i-PI does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from integrators.compiled_kernel import DRIFT, KICK, THERMOSTAT, advance, weigh
from integrators.constraints import Constraints
from integrators.gle import ColouredNoise
from integrators.splitting import OU, Drift, Kick, Splitting

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Energies (P,), forces (P, N, 3) and virials (P, 3, 3)."""
Evaluate = Callable[[np.ndarray, np.ndarray], Found]
"""Takes positions (P, N, 3), which it must not keep, and cells (P, 3, 3)."""


@dataclass(frozen=True)
class Taken:
    """What a loop with n thermostat steps leaves.

    Attributes
    ----------
    positions, momenta : ndarray, shape (P, N, 3)
        At its end.
    evaluations : dict of str to Found
        There, for every level.
    heat : float
        Energy that thermostat and centre of mass have brought in.
    twice_kinetic : ndarray, shape (n, G)
        Σ p²/m of every group, over all beads, behind every thermostat step.
    extra : ndarray, shape (k, P, N, 3)
        Extra momenta of coloured noise, over √m.
    """

    positions: np.ndarray
    momenta: np.ndarray
    evaluations: dict[str, Found]
    heat: float
    twice_kinetic: np.ndarray
    extra: np.ndarray


@dataclass(frozen=True)
class Ring:
    """Normal modes of free ring polymers of P beads.

    Attributes
    ----------
    matrix : ndarray, shape (P, P)
        Orthogonal; modes are ``matrix`` times beads, the centroid first.
    frequencies : ndarray, shape (P,)
        The first is not used.
    """

    matrix: np.ndarray
    frequencies: np.ndarray

    def modes(self, beads: np.ndarray) -> np.ndarray:
        """From beads (P, N, 3) to modes."""
        modes: np.ndarray = self.matrix @ beads.reshape(len(beads), -1)
        return modes.reshape(beads.shape)

    def beads(self, modes: np.ndarray) -> np.ndarray:
        """From modes (P, N, 3) to beads."""
        beads: np.ndarray = self.matrix.T @ modes.reshape(len(modes), -1)
        return beads.reshape(modes.shape)


class Program(NamedTuple):
    """A splitting as arrays, an entry an operation.

    Attributes
    ----------
    levels : tuple of str
        Force levels.
    kinds, which : int64 arrays
        Kick, drift or thermostat; the level of a kick.
    weights : float64 array
        Of the outer time step.
    """

    levels: tuple[str, ...]
    kinds: np.ndarray
    which: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, splitting: Splitting) -> Program:
        """Write a splitting down, e.g. ``fast_part(6)`` or ``respa_baoab(6)``."""
        names, kinds = splitting.levels, {Kick: KICK, Drift: DRIFT, OU: THERMOSTAT}
        return cls(
            names,
            np.array([kinds[type(op)] for op in splitting]),
            np.array([names.index(op.level) if isinstance(op, Kick) else -1 for op in splitting]),
            np.array([float(op.weight) for op in splitting]),
        )


class Loop:
    """Beads on their way, and what is known where they are.

    Parameters
    ----------
    positions, momenta : ndarray, shape (P, N, 3)
        Of P beads, left as they are. Any consistent units.
    masses : ndarray, shape (N,)
        Positive.
    cell : ndarray, shape (3, 3)
        Rows are lattice vectors.
    potentials : mapping of str to callable
        An `Evaluate` for every level; called where a drift has moved the atoms, and once at the
        start.
    kT, friction : float, and ndarray of shape (P, N), optional
        Of the thermostat on every normal mode; with P beads kT is P times that of the temperature.
    groups : ndarray of bool, shape (G, N)
        Atoms whose kinetic energy is reported together.
    fixcom : bool
        Whether the centre of mass is kept still, after every kick and every OU step as in i-PI.
    ring : Ring, optional
        For more than one bead.
    add_up : callable, optional
        Where other processes have the other atoms: replaces an array by its sum over all. What is
        taken then has this process's share of heat and kinetic energy.
    coloured : ColouredNoise, optional
        In the place of ``friction``, on all normal modes; in units of one over those of time.
    extra : ndarray, shape (k, P, N, 3), optional
        Its extra momenta, over √m.
    constraints : Constraints, optional
        Distances that are held, of one bead; the start is on their manifold.
    """

    def __init__(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        masses: np.ndarray,
        cell: np.ndarray,
        potentials: Mapping[str, Evaluate],
        *,
        kT: float = 0.0,
        friction: np.ndarray | None = None,
        groups: np.ndarray,
        fixcom: bool = False,
        ring: Ring | None = None,
        add_up: Callable[[np.ndarray], None] | None = None,
        coloured: ColouredNoise | None = None,
        extra: np.ndarray | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        self._add_up = add_up if fixcom else None
        self._potentials, self._kT, self._fixcom, self._ring = potentials, kT, fixcom, ring
        self._m, self._groups = masses[:, None].repeat(3, axis=1), groups
        self._friction = np.zeros((len(positions), 0)) if friction is None else friction
        self._cells = cell[None].repeat(len(positions), axis=0)
        self._omega = np.zeros(1) if ring is None else ring.frequencies
        self._coloured = coloured
        self._extra = np.zeros((0, *positions.shape)) if extra is None else extra.copy()
        self._held = _arrays(constraints)
        self._place = {level: k for k, level in enumerate(potentials)}
        self._forces = np.zeros((len(potentials), *positions.shape))
        self._known = np.zeros(len(potentials), bool)
        self._found: dict[str, Found] = {}
        self._set(positions, momenta)

    def _set(self, positions: np.ndarray, momenta: np.ndarray) -> None:
        # where the beads are, known as long as they stay: back from the modes comes a rounding
        # error, and steps must not depend on how many of them a loop takes
        self._beads: np.ndarray | None = positions
        both = (positions, momenta)
        self._q, self._p = (a.copy() if self._ring is None else self._ring.modes(a) for a in both)

    def take(self, program: Program, *, timestep: float, noise: np.ndarray) -> Taken:
        """Apply a splitting from left to right.

        Parameters
        ----------
        program : Program
            With levels that there are potentials for.
        timestep : float
            Of the whole splitting.
        noise : ndarray, shape (n, P, N, 3), or (n, k + 1, P, N, 3)
            Standard normal numbers of its n thermostat steps, in normal modes; of coloured noise
            those of momenta first, with constraints one row more, `integrators.gle`.
        """
        kinds, dts = program.kinds, program.weights * timestep
        which = np.array([self._place[level] for level in program.levels])[program.which]
        seen = np.zeros((int((kinds == THERMOSTAT).sum()), len(self._groups)))
        at, draw, heat = 0, 0, 0.0
        noise = noise[:, None] if noise.ndim == 4 else noise
        matrices = self._matrices(dts[kinds == THERMOSTAT])
        while True:
            before = at
            end = len(kinds) if self._add_up is None else at + 1
            at, draw, more = advance(
                *(at, draw, kinds[:end], which, dts, self._known, self._forces, self._q, self._p),
                *(self._m, self._kT, self._friction, noise, self._omega),
                *(self._fixcom and self._add_up is None, self._groups, seen),
                *(*matrices, self._extra, *self._held),
            )
            heat += more
            if self._add_up is not None and at > before and kinds[before] != DRIFT:
                heat -= self._stop_together(self._add_up)
                if kinds[before] == THERMOSTAT:
                    weigh(self._p, self._m, self._groups, seen[draw - 1])
            if DRIFT in kinds[before:at]:
                self._beads = None
            if at == len(kinds):
                break
            if at > before and at == end:
                continue
            self._evaluate(program.levels[program.which[at]])
        if self._ring is None:
            q, p = self._q.copy(), self._p.copy()
        else:
            q, p = self._ring.beads(self._q), self._ring.beads(self._p)
            self._set(q, p)
        return Taken(q, p, dict(self._found), heat, seen, self._extra.copy())

    def _matrices(self, dts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrices of coloured noise for the thermostat steps, empty without it."""
        if self._coloured is None or not len(dts):
            return np.zeros((0, 0)), np.zeros((0, 0))
        if not np.allclose(dts, dts[0], rtol=1e-12):
            raise ValueError("coloured noise needs thermostat steps of one length")
        decay, spread = self._coloured.propagator(float(dts[0]))
        return decay.copy(), spread.copy()  # what cannot be written to is another type

    def _stop_together(self, add_up: Callable[[np.ndarray], None]) -> float:
        """Stop the centre of mass of all processes, and return this one's share of its energy."""
        mass = self._m[:, 0].sum()
        total = np.append(self._p[0].sum(0), mass)
        add_up(total)
        velocity = total[:3] / total[3]
        self._p[0] -= self._m * velocity
        return float(0.5 * mass * velocity @ velocity)

    def _evaluate(self, level: str) -> None:
        if self._beads is None:
            self._beads = self._q if self._ring is None else self._ring.beads(self._q)
        found = self._found[level] = self._potentials[level](self._beads, self._cells)
        k = self._place[level]
        self._forces[k] = found[1] if self._ring is None else self._ring.modes(found[1])
        self._known[k] = True


def _arrays(constraints: Constraints | None) -> tuple[np.ndarray, ...]:
    """Return constraints as the kernel takes them."""
    if constraints is None or not constraints.count:
        return (
            *(np.zeros((0, 0, 2), np.int64), np.zeros((0, 0)), np.zeros((0, 0, 3))),
            *(np.zeros((0, 0, 0)), np.zeros(0, np.int64)),
        )
    c = constraints
    return tuple(
        np.ascontiguousarray(a) for a in (c.pairs, c.squares, c.images, c.inverse_masses, c.counts)
    )
