"""The splitting on tensors that have fixed places, without the host.

The equations are those of `integrators.engine` and of the compiled loop. The inner steps and
the teacher are two pieces, each of them a graph; a guest, a model that is asked as it is, is asked
between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from integrators.compiled_loop import Ring
from integrators.constraints import Constraints
from integrators.device.fetched import Results, State, end
from integrators.device.model import DeviceModel
from integrators.device.moves import Moves
from integrators.device.numbers import RandomNumbers
from integrators.device.recorded import Beside
from integrators.gle import ColouredNoise
from integrators.levels import clipped
from integrators.splitting import FAST, OU, SLOW, Drift, Kick, Splitting
from integrators.state import Evaluation


class Piece(NamedTuple):
    """Operations up to where the teacher is asked, or from there on.

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
    p : Tensor, shape (P, N, 3)
        Momenta at its end.
    known : dict of str to Evaluation
        Of every model, where it was last asked; of the forces alone on the way.
    flags, lost : Tensor
        Of a step: above zero where atoms have left a model's lists, where these were too short, and
        where those that are not recordable are to be made anew, int32 (M, 3); whether distances
        that are held were not found again.
    results : Results
        What comes back to the host, see `integrators.device.fetched.end`.
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
        self.masses = masses
        self.m = self.tensor(np.where(moves, masses, 0.0))[:, None]
        self.inverse = self.tensor(np.where(moves, 1.0 / masses, 0.0))[:, None]
        self._groups = self.tensor((groups & moves).astype(float))
        self._matrix = None if ring is None else self.tensor(ring.matrix)
        self._omega = self.tensor(np.zeros(1) if ring is None else ring.frequencies)
        self._friction = None if friction is None or coloured else self.tensor(friction)
        self.numbers = RandomNumbers(self._splitting, self.device)
        self._weights = self._thermostat_weights()
        self.distinct = list({id(model): model for model in models.values()}.values())
        self.pieces = tuple(self._cut())
        self._beside = Beside(self.device)
        drifts = [k for k, op in enumerate(self._splitting) if isinstance(op, Drift)]
        self._last_drift = max(drifts, default=-1)

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
        rate = friction.to(self.m) * dt
        width = torch.sqrt(-torch.expm1(-2.0 * rate) * self._kT * self.inverse[:, 0])
        return torch.exp(-rate), width

    def _cut(self) -> list[Piece]:
        """Return the pieces, from where forces of all models are known."""
        found, first, asks = list[Piece](), 0, tuple[str, ...]()
        begin = fresh = frozenset(("teacher", FAST))
        for k, op in enumerate(self._splitting):
            if isinstance(op, Drift):
                fresh = frozenset()
            elif isinstance(op, Kick):
                asked = [n for n in self._needed_from(k) if n not in fresh]
                guests = [n for n in asked if not self.models[n].recordable]
                # a GPU starts with the first graph while the host launches the second
                if guests or "teacher" in asked:
                    found.append(Piece(first, k, asks, begin))
                    first, asks, begin = k, tuple(guests), fresh.union(guests)
                fresh = fresh.union(asked)
        return [*found, Piece(first, len(self._splitting), asks, begin)]

    def _needed_from(self, k: int) -> list[str]:
        """Return the models that kick k needs, and what others need before the next drift.

        But for guests, which are not asked before the student's lists are known to have done.
        """
        needed, op = list[str](), self._splitting[k]
        for later in itertools.takewhile(lambda o: not isinstance(o, Drift), self._splitting[k:]):
            for name in _needed(later) if isinstance(later, Kick) else ():
                if name not in needed and (later is op or self.models[name].recordable):
                    needed.append(name)
        return needed

    def allocate(self, shape: tuple[int, ...], cell: np.ndarray, *, held: bool) -> None:
        """Have arrays for beads of ``shape`` (P, N, 3) in a cell, where distances may be held."""
        self.cells = self.tensor(cell[None].repeat(shape[0], axis=0))
        self.x, self.v, self.p, self._begun = (self.tensor(np.zeros(shape)) for _ in range(4))
        size, rows = 0, tuple[int, ...]()
        if self._coloured is not None:
            size, rows = self._coloured.extra, (self._coloured.draws(held=held),)
        self.extra = self.tensor(np.zeros((size, *shape)))
        self.numbers.allocate((*rows, *shape))
        self.known = {name: self._nothing(shape) for name in ("teacher", FAST)}
        self._now = dict[str, Tensor]()
        self._found = dict[str, Evaluation]()
        self._on_modes = {level: self.tensor(np.zeros(shape)) for level in (FAST, SLOW)}
        self._q, self._u = self.x, self.v
        if self._matrix is not None:  # of normal modes
            self._q, self._u = torch.zeros_like(self.x), torch.zeros_like(self.v)
        self._moves = Moves(
            *(self._q, self._u, self.extra),
            masses=self.m[:, 0],
            inverse=self.inverse[:, 0],
            frequencies=self._omega,
            numbers=self.numbers,
            weights=self._weights,
            kT=self._kT,
            # of modes of beads, forces are clipped before they are those of modes
            clip=None if self._matrix is not None else self._clip,
        )
        self.flags = torch.zeros(len(self.distinct), 3, dtype=torch.int32, device=self.device)
        seen = len(self.numbers), len(self._groups)
        found = [part.shape for name in self.models for part in self.known[name]]
        self.results = Results(
            [self.flags.shape, (1,), (), shape, shape, self.extra.shape, seen, *found], self.device
        )

    @property
    def lost(self) -> Tensor:
        """Above zero where distances that are held were not found again."""
        return self._moves.lost

    def hold(self, constraints: Constraints) -> None:
        """Have distances held, in the images of this start."""
        self._moves.hold(constraints)

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

    def rebuild(self, *, due: Sequence[bool], first: bool) -> None:
        """Make the lists anew that may not be part of a graph, of models for which it is due.

        Those of the inner steps before them, and those of the teacher behind, for the same
        positions.
        """
        for model, search in zip(self.distinct, due, strict=True):
            if not model.lists_recordable and (model is self.models[FAST]) == first:
                model.rebuild(self.x if first else self._begun, search=search)

    def take(self, piece: Piece) -> None:
        """Walk a piece, from the arrays back to them; waits for nothing."""
        try:
            self._take(piece)
        finally:  # a recording could not end either
            self._beside.join()
        self._end(piece)

    def _take(self, piece: Piece) -> None:
        if piece.first == 0:
            self._begin()
        fresh, moves = set(piece.fresh), self._moves
        draw = sum(isinstance(op, OU) for op in self._splitting[: piece.first])
        for k in range(piece.first, piece.end):
            op = self._splitting[k]
            match op:
                case Kick(level=level, weight=weight):
                    asked = [n for n in self._needed_from(k) if n not in fresh]
                    if asked:
                        self._look(asked, last=k > self._last_drift)
                        fresh.update(asked)
                    self._kick(level, float(weight) * self._dt)
                case Drift(weight=weight):
                    moves.drift(float(weight) * self._dt)
                    fresh = set()
                case OU():
                    moves.heat_up(draw)
            if self._fixcom and not isinstance(op, Drift):
                moves.stop()
            if isinstance(op, OU):
                moves.measure(draw)
                draw += 1
        moves.walk()

    def _begin(self) -> None:
        self._moves.begin()
        self._found = {}
        self.results.joined[-1:].zero_()
        self._now = {name: found.forces for name, found in self.known.items()}
        # atoms move on while the lists of the teacher are made
        self._begun.copy_(self.x)
        with self._beside():
            for model in self.distinct:
                if model.lists_recordable and model is not self.models[FAST]:
                    model.rebuild(self._begun)
        if self.models[FAST].lists_recordable:
            self.models[FAST].rebuild(self.x)
        self.numbers.draw()
        if self._matrix is not None:
            _turn(self._matrix, self.x, self._q)
            _turn(self._matrix, self.v, self._u)

    def _end(self, piece: Piece) -> None:
        if self._matrix is not None:
            _turn(self._matrix.T, self._q, self.x)
            _turn(self._matrix.T, self._u, self.v)
        following = self.pieces[self.pieces.index(piece) + 1 :]
        if not following or following[0].asks:
            for flags, model in zip(self.flags, self.distinct, strict=True):
                if not model.lists_recordable:
                    flags[2].copy_(model.due(self.x))
                if following:
                    flags[:2].copy_(torch.stack(list(model.told())).amax(0))
        if piece.end == len(self._splitting):
            state = State(
                *(self.x, self.v, self.p, self.extra, self.m[:, 0], self.inverse[:, 0]),
                *(self._groups, self._moves.heat, self._moves.twice_kinetic),
                *(self.flags, self.lost),
            )
            told = [model.told() for model in self.distinct]
            known = {name: self.known[name] for name in self.models}
            end(state, told, known, self._found, self.results.joined)

    def _look(self, names: Sequence[str], *, last: bool) -> None:
        """Ask models, others beside the teacher; for more than forces where the step ends."""
        self._moves.walk()
        if self._matrix is not None:
            _turn(self._matrix.T, self._q, self.x)
        teacher = self.models["teacher"] if "teacher" in names else None
        beside = [n for n in names if teacher not in (None, self.models[n])]
        if beside:
            with self._beside():
                for name in beside:
                    self._forces_of(name, last=last)
        for name in names:
            if name not in beside:
                self._forces_of(name, last=last)
        if beside:
            self._beside.join()

    def _forces_of(self, name: str, *, last: bool) -> None:
        model, mine = self.models[name], self.known[name].forces
        if last:
            found = model.evaluate(self.x, self.cells)
            if model.forces_stay:
                mine = found.forces
            else:
                mine.copy_(found.forces)
            self._found[name] = found._replace(forces=mine)
        elif model.forces_stay:
            mine = model.forces(self.x, self.cells)
        else:
            mine.copy_(model.forces(self.x, self.cells))
        self._now[name] = mine

    def _kick(self, level: str, time: float) -> None:
        force, moves = self._now[FAST], self._moves
        if self._matrix is not None:
            if level != FAST:
                force = clipped(self._now["teacher"] - force, self._clip)[0]
            _turn(self._matrix, force, self._on_modes[level])
            moves.kick(level, self._on_modes[level], time)
        elif level != FAST:
            moves.kick(level, self._now["teacher"], time, beside=force)
        else:
            moves.kick(level, force, time)


def _needed(kick: Kick) -> tuple[str, ...]:
    """Return the models whose forces a kick needs."""
    return (FAST,) if kick.level == FAST else (FAST, "teacher")


def _turn(matrix: Tensor, beads: Tensor, out: Tensor) -> None:
    """Beads (P, N, 3) to modes, or back with the transposed matrix."""
    torch.mm(matrix, beads.flatten(1), out=out.flatten(1))
