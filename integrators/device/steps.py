"""Steps on the device where the models are, which the host sees once at their end.

The same steps as :func:`integrators.engine.step` and the compiled loop take, tested equal to them.
All arrays have fixed places, so that on CUDA a whole outer step is one recorded graph. Lists of
neighbours are made anew at its start; where one turns out to have been too small on the way, the
step is taken again with a larger one, and never with a wrong force.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from integrators.compiled_loop import Found, Ring, Taken
from integrators.constraints import Constraints, Distances
from integrators.device.fetched import StepLost, in_one_piece, require_finite
from integrators.device.model import DeviceModel
from integrators.device.numbers import RandomNumbers
from integrators.device.recorded import Recorded
from integrators.gle import ColouredNoise
from integrators.levels import difference
from integrators.noise import Counter
from integrators.splitting import FAST, OU, Drift, Kick, Splitting
from integrators.state import Evaluation

ROUNDS = 8
"""Of Newton's method for bonds that are held, which needs four or five."""
TRIES = 10
"""Of a step whose lists were too small; they grow every time, and models may end that before."""


class DeviceSteps:
    """Takes steps of one kind, for one set of atoms.

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
    distances : Distances, optional
        That are held, of one bead.
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
        distances: Distances | None = None,
    ) -> None:
        self._models, self._splitting, self._dt = models, tuple(splitting), timestep
        self._kT, self._clip, self._fixcom = kT, clip, fixcom
        self.device = models[FAST].device
        self._masses_given, self._distances = masses, distances
        moves = np.isfinite(masses)
        self._masses = self._tensor(masses)
        self._m = self._tensor(np.where(moves, masses, 0.0))[:, None]
        self._inverse = self._tensor(np.where(moves, 1.0 / masses, 0.0))[:, None]
        self._groups = self._tensor((groups & moves).astype(float))
        self._matrix = None if ring is None else self._tensor(ring.matrix)
        self._omega = self._tensor(np.ones(1) if ring is None else ring.frequencies)
        self._coloured = coloured
        self._friction = None if friction is None or coloured else self._tensor(friction)
        self._numbers = RandomNumbers(self._splitting, self.device)
        self._weights = self._thermostat_weights()
        self._constraints: Constraints | None = None
        self._run: Recorded | None = None
        self._places = tuple[tuple[int, ...], ...]()
        self._cell: np.ndarray | None = None
        self._at: np.ndarray | None = None

    def _tensor(self, values: np.ndarray) -> Tensor:
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
            decay, spread = (self._tensor(a.copy()) for a in self._coloured.propagator(dt))
            return decay, self._kT**0.5 * spread
        friction = torch.zeros(1, 1) if self._friction is None else self._friction
        rate = friction.to(self._m)[..., None] * dt
        return torch.exp(-rate), torch.sqrt(-torch.expm1(-2.0 * rate) * self._kT * self._inverse)

    def take(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        cell: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None = None,
    ) -> tuple[Taken, Found | None]:
        """Take a step; the host waits once, at its end.

        Parameters
        ----------
        positions, momenta : ndarray, shape (P, N, 3)
            Left as they are; on the manifold of distances that are held.
        cell : ndarray, shape (3, 3)
            Rows are lattice vectors; zeros for an isolated system.
        noise : ndarray, shape (n, P, N, 3) or (n, k + 1, P, N, 3)
            As `integrators.compiled_loop.Loop.take` has it; or a counter, from which the same is
            drawn on the device.
        extra : ndarray, shape (k, P, N, 3), optional
            Extra momenta of coloured noise, over √m.

        Returns
        -------
        Taken, Found or None
            Where it ends, and the teacher's evaluation there.

        Raises
        ------
        StepLost
            If the trajectory blew up: distances that are held are not found again, or a number is
            not finite.
        """
        if self._cell is None or not np.array_equal(cell, self._cell):
            self._begin(positions, cell)
        elif self._places_now() != self._places:
            self._at = None  # somebody else has used the models, in another cell perhaps
        for _ in range(TRIES):
            self._fill(positions, momenta, noise, extra)
            self._at = None  # until the step has come to a good end
            for model in self._distinct():
                model.rebuild(self._x)
            self._recorded()()
            flags, lost, taken, teacher = self._fetch()
            require_finite(taken, teacher)
            if not flags.any():
                break
            # the lists were too small on the way: the step does not count
            self._grow(flags, positions, taken.positions)
        else:
            raise StepLost("lists of neighbours were too small again and again")
        if lost:
            raise StepLost(
                "constrained bonds were not found again behind a drift: the step is too long for "
                "them, or the trajectory blew up; shorten the step"
            )
        self._at = taken.positions.copy()
        return taken, teacher

    def _places_now(self) -> tuple[tuple[int, ...], ...]:
        return tuple(model.place for model in self._distinct())

    def _recorded(self) -> Recorded:
        """Return what takes the step, for the arrays as they lie now."""
        places = self._places_now()
        if self._run is None or places != self._places:
            self._run, self._places = Recorded(self._body, self.device), places
        return self._run

    def _begin(self, positions: np.ndarray, cell: np.ndarray) -> None:
        """Have arrays and lists for a cell."""
        shape = positions.shape
        self._cell, self._at = cell.copy(), None
        self._cells = self._tensor(cell[None].repeat(shape[0], axis=0))
        self._x, self._v = self._tensor(np.zeros(shape)), self._tensor(np.zeros(shape))
        size, rows = 0, tuple[int, ...]()
        if self._coloured is not None:
            size = self._coloured.extra
            rows = (self._coloured.draws(held=self._distances is not None),)
        self._extra = self._tensor(np.zeros((size, *shape)))
        self._numbers.allocate((*rows, *shape))
        self._known = {level: self._nothing(shape) for level in ("teacher", FAST)}
        self._heat = self._tensor(np.zeros(()))
        self._seen = self._tensor(np.zeros((len(self._numbers), len(self._groups))))
        # of every model: whether atoms have left its lists, and whether these were too short
        self._flags = torch.zeros(len(self._distinct()), 2, dtype=torch.bool, device=self.device)
        self._lost = torch.zeros((), dtype=torch.bool, device=self.device)
        self._run = None

    def _hold(self, positions: np.ndarray) -> None:
        """Have the constraints of bonds in the images that they have at these positions."""
        if self._distances is None or not len(self._distances.pairs):
            return
        assert self._cell is not None
        made = (self._distances, self._masses_given, positions[0], self._cell)
        found = Constraints.of(*made)
        before = self._constraints
        if before is None or not np.array_equal(before.images, found.images):
            self._constraints, self._run = found, None

    def _nothing(self, shape: tuple[int, ...]) -> Evaluation:
        beads = shape[0]
        sizes = ((beads,), shape, (beads, 3, 3))
        return Evaluation(*(self._tensor(np.zeros(size)) for size in sizes))

    def _distinct(self) -> list[DeviceModel]:
        return list({id(model): model for model in self._models.values()}.values())

    def _grow(self, flags: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Make room for the neighbours at both ends of a step, or for longer ways."""
        for model, (moved, overflow) in zip(self._distinct(), flags, strict=True):
            if moved:
                model.reach_further()
            elif overflow:
                model.make_room()
            for positions in (after, before) if moved or overflow else ():
                if np.isfinite(positions).all():
                    model.update(self._tensor(positions), self._cells)

    def _fill(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None,
    ) -> None:
        """Copy a start to the device; forces are known where the last step has ended."""
        if self._at is None or not np.array_equal(positions, self._at):
            self._hold(positions)
            self._x.copy_(torch.from_numpy(positions))
            for model in self._distinct():
                model.update(self._x, self._cells)
            for name, model in self._models.items():
                self._evaluate(name, model)
        self._x.copy_(torch.from_numpy(positions))
        self._v.copy_(torch.from_numpy(momenta))
        self._v.mul_(self._inverse)
        if extra is not None:
            self._extra.copy_(torch.from_numpy(extra))
        if self._numbers.send(noise):
            self._run = None

    def _evaluate(self, name: str, model: DeviceModel) -> None:
        """Have the forces of a start, with room for all pairs."""
        for _ in range(TRIES):
            self._keep(name, model.evaluate(self._x, self._cells))
            if not bool(model.overflow()):
                return
            model.make_room()
            model.update(self._x, self._cells)
        raise StepLost("lists of neighbours were too small again and again")

    def _keep(self, name: str, found: Evaluation) -> None:
        for mine, new in zip(self._known[name], found, strict=True):
            mine.copy_(new)

    def _body(self) -> None:
        """All of the step but new lists, from the arrays back to them."""
        self._heat.zero_()
        self._flags.zero_()
        self._lost.zero_()
        self._numbers.draw()
        matrix = self._matrix
        q, v = (a if matrix is None else _turned(matrix, a) for a in (self._x, self._v))
        fresh, draw = {"teacher", FAST}, 0
        extra = self._extra
        for op in self._splitting:
            match op:
                case Kick(level=level, weight=weight):
                    needed = (FAST,) if level == FAST else (FAST, "teacher")
                    beads = q if matrix is None else _turned(matrix.T, q)
                    for name in needed:
                        if name not in fresh:
                            self._look(name, beads)
                            fresh.add(name)
                    force = self._force(level)
                    force = force if matrix is None else _turned(matrix, force)
                    v = v + float(weight) * self._dt * self._inverse * force
                    v = self._tangent(q, v)
                case Drift(weight=weight):
                    q, v = self._drift(q, v, float(weight) * self._dt)
                    fresh = set()
                case OU():
                    v, extra = self._thermostat(q, v, extra, self._numbers[draw])
            if self._fixcom and not isinstance(op, Drift):
                v = self._stop(v)
            if isinstance(op, OU):
                twice = (self._m * v.square()).sum((0, 2))
                self._seen[draw].copy_(self._groups @ twice)
                draw += 1
        for mine, new in ((self._x, q), (self._v, v)):
            mine.copy_(new if matrix is None else _turned(matrix.T, new))
        self._extra.copy_(extra)

    def _look(self, name: str, beads: Tensor) -> None:
        model = self._models[name]
        self._keep(name, model.evaluate(beads, self._cells))
        flags = torch.stack((model.moved(beads), model.overflow()))
        self._flags[self._distinct().index(model)].logical_or_(flags)

    def _force(self, level: str) -> Tensor:
        if level == FAST:
            return self._known[FAST].forces
        slow, _ = difference(self._known["teacher"], self._known[FAST], clip=self._clip)
        return slow.forces

    def _drift(self, q: Tensor, v: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        if self._constraints is not None:
            q, v = self._constraints.drift(q, v, self._masses, dt, rounds=ROUNDS)
            self._lost.logical_or_(self._constraints.missed(q))
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
        held = self._constraints
        if self._coloured is None:
            decay, width = self._weights
            after = decay * v + width * noise
            self._heat.add_(self._energy(after) - self._energy(v))
            return self._tangent(q, after, thermostat=True), extra
        decay, spread = self._weights
        if held is not None:
            thermal = torch.sqrt(self._kT * self._inverse) * noise[-1]
            across = held.across(q, thermal, self._masses)
            self._heat.add_(self._energy(across))
            v, noise = v + across, noise[:-1]
        both = torch.cat(((self._m.sqrt() * v)[None], extra))
        found = torch.tensordot(decay, both, 1) + torch.tensordot(spread, noise, 1)
        after = self._inverse.sqrt() * found[0]
        self._heat.add_(self._energy(after) - self._energy(v))
        return self._tangent(q, after, thermostat=True), found[1:]

    def _tangent(self, q: Tensor, v: Tensor, *, thermostat: bool = False) -> Tensor:
        """Project velocities; behind a thermostat what goes is heat."""
        if self._constraints is None:
            return v
        after = self._constraints.tangent(q, v, self._masses)
        if thermostat:
            self._heat.add_(self._energy(after) - self._energy(v))
        return after

    def _stop(self, v: Tensor) -> Tensor:
        """Stop the centre of mass; the energy that it had leaves as heat."""
        total = self._m.sum()
        center = (self._m * v[:1]).sum(1, keepdim=True) / total
        self._heat.sub_(0.5 * total * center.square().sum())
        return torch.cat((v[:1] - center, v[1:]))

    def _energy(self, v: Tensor) -> Tensor:
        return 0.5 * (self._m * v.square()).sum()

    def _fetch(self) -> tuple[np.ndarray, bool, Taken, Found | None]:
        """Bring all results to the host in one piece."""
        p = self._v * self._m
        names = [name for name in ("teacher", FAST) if name in self._models]
        found = [part for name in names for part in self._known[name]]
        parts = [self._flags, self._lost, self._heat, self._x, p, self._extra, self._seen, *found]
        arrays = in_one_piece(parts)
        flags, lost, heat, q, momenta, extra, seen = arrays[:7]
        models = {
            name: (arrays[k], arrays[k + 1], arrays[k + 2])
            for name, k in zip(names, range(7, 7 + 3 * len(names), 3), strict=True)
        }
        evaluations = {FAST: models[FAST]}
        taken = Taken(q, momenta, evaluations, float(heat), seen, extra)
        return flags > 0, bool(lost), taken, models.get("teacher")


def _turned(matrix: Tensor, beads: Tensor) -> Tensor:
    """Beads (P, N, 3) to modes, or back with the transposed matrix."""
    return (matrix @ beads.flatten(1)).view(beads.shape)
