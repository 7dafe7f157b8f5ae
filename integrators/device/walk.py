"""The splitting on tensors that have fixed places, without the host.

The equations are those of `integrators.engine` and of the compiled loop. What can be recorded as a
graph is one piece; a guest, a model that is asked as it is, ends a piece where its forces are
needed, and the next one goes on behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from integrators.compiled_loop import Ring
from integrators.constraints import Constraints
from integrators.device.model import DeviceModel
from integrators.device.numbers import RandomNumbers
from integrators.gle import ColouredNoise
from integrators.levels import difference
from integrators.splitting import FAST, OU, Drift, Kick, Splitting
from integrators.state import Evaluation

ROUNDS = 8
"""Of Newton's method for bonds that are held, which needs four or five."""


class Piece(NamedTuple):
    """Operations between two visits of a guest.

    Attributes
    ----------
    first, end : int
        In the splitting.
    asks : tuple of str
        Guests whose forces are needed before it.
    fresh : frozenset of str
        Models whose forces are those of its start, guests included.
    """

    first: int
    end: int
    asks: tuple[str, ...]
    fresh: frozenset[str]


class Walk:
    """Positions, velocities and forces on a device, and what moves them.

    Parameters
    ----------
    models : mapping of str to DeviceModel
        ``fast``, and for splittings with a slow level ``teacher``; of one device.
    splitting : Splitting
        E.g. ``respa_baoab(6)``, or ``fast_part(6)``.
    masses : ndarray, shape (N,)
        Any consistent units; infinite for atoms that are held.
    timestep : float
        Of the splitting.
    kT, friction : float, and ndarray of shape (P, N)
        Of the thermostat on every normal mode; with P beads kT is P times that of the temperature.
    groups : ndarray of bool, shape (G, N)
        Atoms whose kinetic energy is reported together; held ones do not count.
    clip : float, optional
        Bound on the norm of teacher - student of an atom; None for no bound.
    fixcom : bool
        Whether the centre of mass is kept still, after every kick and every OU step.
    ring : Ring, optional
        For more than one bead.
    coloured : ColouredNoise, optional
        In the place of ``friction``.

    Attributes
    ----------
    x, v, extra : Tensor, shapes (P, N, 3), (P, N, 3), (k, P, N, 3)
        State at both ends of a step.
    known : dict of str to Evaluation
        Of every model, where it was last asked.
    heat, seen, flags, lost : Tensor
        Of a step: the energy that the thermostat has brought in; Σ m v² of every group (n, G);
        whether atoms have left a model's lists and whether these were too short (M, 2); whether
        distances that are held were not found again.
    constraints : Constraints or None
        In the images of this start.
    pieces : tuple of Piece
        The splitting.
    """

    def __init__(
        self,
        models: Mapping[str, DeviceModel],
        splitting: Splitting,
        *,
        masses: np.ndarray,
        timestep: float,
        kT: float = 0.0,
        friction: np.ndarray | None = None,
        groups: np.ndarray,
        clip: float | None = None,
        fixcom: bool = False,
        ring: Ring | None = None,
        coloured: ColouredNoise | None = None,
    ) -> None:
        self.models, self._splitting, self._dt = models, tuple(splitting), timestep
        self._kT, self._clip, self._fixcom, self._coloured = kT, clip, fixcom, coloured
        self.device = models[FAST].device
        moves = np.isfinite(masses)
        self.masses, self._masses = masses, self.tensor(masses)
        self.m = self.tensor(np.where(moves, masses, 0.0))[:, None]
        self.inverse = self.tensor(np.where(moves, 1.0 / masses, 0.0))[:, None]
        self._groups = self.tensor((groups & moves).astype(float))
        self._matrix = None if ring is None else self.tensor(ring.matrix)
        self._omega = self.tensor(np.ones(1) if ring is None else ring.frequencies)
        self._friction = None if friction is None or coloured else self.tensor(friction)
        self.numbers = RandomNumbers(self._splitting, self.device)
        self._weights = self._thermostat_weights()
        self.constraints: Constraints | None = None
        self.distinct = list({id(model): model for model in models.values()}.values())
        self.pieces = tuple(self._cut())

    def tensor(self, values: np.ndarray) -> Tensor:
        """Return values in float64 on the device."""
        return torch.as_tensor(values, dtype=torch.float64, device=self.device)

    def _thermostat_weights(self) -> tuple[Tensor, ...]:
        """Return what an OU step multiplies by: a constant of the splitting, on the device."""
        steps = {float(op.weight) * self._dt for op in self._splitting if isinstance(op, OU)}
        if not steps:
            return ()
        if max(steps) - min(steps) > 1e-12 * max(steps):
            raise ValueError("thermostat steps of one splitting must be of one length")
        dt = steps.pop()
        if self._coloured is not None:
            decay, spread = (self.tensor(a.copy()) for a in self._coloured.propagator(dt))
            return decay, self._kT**0.5 * spread
        friction = torch.zeros(1, 1) if self._friction is None else self._friction
        rate = friction.to(self.m)[..., None] * dt
        return torch.exp(-rate), torch.sqrt(-torch.expm1(-2.0 * rate) * self._kT * self.inverse)

    def _cut(self) -> list[Piece]:
        """Return the pieces, from where forces of all models are known."""
        found, first, asks = list[Piece](), 0, tuple[str, ...]()
        begin = fresh = frozenset(("teacher", FAST))
        for k, op in enumerate(self._splitting):
            if isinstance(op, Drift):
                fresh = frozenset()
            elif isinstance(op, Kick):
                needed = _needed(op)
                guests = [n for n in needed if n not in fresh and not self.models[n].recordable]
                if guests:
                    found.append(Piece(first, k, asks, begin))
                    first, asks, begin = k, tuple(guests), fresh.union(guests)
                fresh = fresh.union(needed)
        return [*found, Piece(first, len(self._splitting), asks, begin)]

    def allocate(self, shape: tuple[int, ...], cell: np.ndarray, *, held: bool) -> None:
        """Have arrays for beads of ``shape`` (P, N, 3) in a cell, where distances may be held."""
        self.cells = self.tensor(cell[None].repeat(shape[0], axis=0))
        self.x, self.v = self.tensor(np.zeros(shape)), self.tensor(np.zeros(shape))
        size, rows = 0, tuple[int, ...]()
        if self._coloured is not None:
            size, rows = self._coloured.extra, (self._coloured.draws(held=held),)
        self.extra = self.tensor(np.zeros((size, *shape)))
        self.numbers.allocate((*rows, *shape))
        self.known = {name: self._nothing(shape) for name in ("teacher", FAST)}
        self.heat = self.tensor(np.zeros(()))
        self.seen = self.tensor(np.zeros((len(self.numbers), len(self._groups))))
        self.flags = torch.zeros(len(self.distinct), 2, dtype=torch.bool, device=self.device)
        self.lost = torch.zeros((), dtype=torch.bool, device=self.device)

    def _nothing(self, shape: tuple[int, ...]) -> Evaluation:
        beads = shape[0]
        sizes = ((beads,), shape, (beads, 3, 3))
        return Evaluation(*(self.tensor(np.zeros(size)) for size in sizes))

    def keep(self, name: str, found: Evaluation) -> None:
        """Copy an evaluation to where that of the model lies."""
        for mine, new in zip(self.known[name], found, strict=True):
            mine.copy_(new)

    def ask(self, piece: Piece) -> None:
        """Ask the guests whose forces the piece needs."""
        for name in piece.asks:
            self.keep(name, self.models[name].evaluate(self.x, self.cells))

    def take(self, piece: Piece) -> None:
        """Walk a piece, from the arrays back to them; waits for nothing."""
        if piece.first == 0:
            self.heat.zero_()
            self.flags.zero_()
            self.lost.zero_()
            self.numbers.draw()
        matrix = self._matrix
        q, v = (a if matrix is None else _turned(matrix, a) for a in (self.x, self.v))
        fresh, extra = set(piece.fresh), self.extra
        draw = sum(isinstance(op, OU) for op in self._splitting[: piece.first])
        for op in self._splitting[piece.first : piece.end]:
            match op:
                case Kick(level=level, weight=weight):
                    beads = q if matrix is None else _turned(matrix.T, q)
                    for name in _needed(op):
                        if name not in fresh:
                            self._look(name, beads)
                            fresh.add(name)
                    force = self._force(level)
                    force = force if matrix is None else _turned(matrix, force)
                    v = v + float(weight) * self._dt * self.inverse * force
                    v = self._tangent(q, v)
                case Drift(weight=weight):
                    q, v = self._drift(q, v, float(weight) * self._dt)
                    fresh = set()
                case OU():
                    v, extra = self._thermostat(q, v, extra, self.numbers[draw])
            if self._fixcom and not isinstance(op, Drift):
                v = self._stop(v)
            if isinstance(op, OU):
                twice = (self.m * v.square()).sum((0, 2))
                self.seen[draw].copy_(self._groups @ twice)
                draw += 1
        for mine, new in ((self.x, q), (self.v, v)):
            mine.copy_(new if matrix is None else _turned(matrix.T, new))
        self.extra.copy_(extra)

    def _look(self, name: str, beads: Tensor) -> None:
        model = self.models[name]
        self.keep(name, model.evaluate(beads, self.cells))
        flags = torch.stack((model.moved(beads), model.overflow()))
        self.flags[self.distinct.index(model)].logical_or_(flags)

    def _force(self, level: str) -> Tensor:
        if level == FAST:
            return self.known[FAST].forces
        slow, _ = difference(self.known["teacher"], self.known[FAST], clip=self._clip)
        return slow.forces

    def _drift(self, q: Tensor, v: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        if self.constraints is not None:
            q, v = self.constraints.drift(q, v, self._masses, dt, rounds=ROUNDS)
            self.lost.logical_or_(self.constraints.missed(q))
            return q, v
        if self._matrix is None:
            return q + dt * v, v
        w = self._omega[1:, None, None]
        c, s = torch.cos(w * dt), torch.sin(w * dt)
        x, u = q[1:], v[1:]
        free = q[:1] + dt * v[:1]
        return torch.cat((free, c * x + s / w * u)), torch.cat((v[:1], c * u - s * w * x))

    def _thermostat(
        self, q: Tensor, v: Tensor, extra: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        held = self.constraints
        if self._coloured is None:
            decay, width = self._weights
            after = decay * v + width * noise
            self.heat.add_(self._energy(after) - self._energy(v))
            return self._tangent(q, after, thermostat=True), extra
        decay, spread = self._weights
        if held is not None:
            thermal = torch.sqrt(self._kT * self.inverse) * noise[-1]
            across = held.across(q, thermal, self._masses)
            self.heat.add_(self._energy(across))
            v, noise = v + across, noise[:-1]
        both = torch.cat(((self.m.sqrt() * v)[None], extra))
        found = torch.tensordot(decay, both, 1) + torch.tensordot(spread, noise, 1)
        after = self.inverse.sqrt() * found[0]
        self.heat.add_(self._energy(after) - self._energy(v))
        return self._tangent(q, after, thermostat=True), found[1:]

    def _tangent(self, q: Tensor, v: Tensor, *, thermostat: bool = False) -> Tensor:
        """Project velocities; behind a thermostat what goes is heat."""
        if self.constraints is None:
            return v
        after = self.constraints.tangent(q, v, self._masses)
        if thermostat:
            self.heat.add_(self._energy(after) - self._energy(v))
        return after

    def _stop(self, v: Tensor) -> Tensor:
        """Stop the centre of mass; the energy that it had leaves as heat."""
        total = self.m.sum()
        center = (self.m * v[:1]).sum(1, keepdim=True) / total
        self.heat.sub_(0.5 * total * center.square().sum())
        return torch.cat((v[:1] - center, v[1:]))

    def _energy(self, v: Tensor) -> Tensor:
        return 0.5 * (self.m * v.square()).sum()


def _needed(kick: Kick) -> tuple[str, ...]:
    """Return the models whose forces a kick needs."""
    return (FAST,) if kick.level == FAST else (FAST, "teacher")


def _turned(matrix: Tensor, beads: Tensor) -> Tensor:
    """Beads (P, N, 3) to modes, or back with the transposed matrix."""
    return (matrix @ beads.flatten(1)).view(beads.shape)
