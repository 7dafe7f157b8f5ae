"""Steps on the device where the models are, which the host sees once at their end.

The same steps as :func:`integrators.engine.step` and the compiled loop take, tested equal to them.
All arrays have fixed places, so that on CUDA an outer step is two recorded graphs. Lists of
neighbours are looked at where it starts; where one turns out to have been too old or too small on
the way, the step is taken again with another one, and never with a wrong force.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from integrators.compiled_loop import Found, Taken
from integrators.constraints import BONDS_LOST, Constraints, Distances
from integrators.device.fetched import StepLost, in_one_piece, require_finite
from integrators.device.model import DeviceModel
from integrators.device.recorded import Recorded
from integrators.device.walk import Walk
from integrators.noise import Counter
from integrators.splitting import FAST

TRIES = 10
"""Of a step whose lists were too small; they grow every time, and models may end that before."""

FURTHEST = 1e6
"""From the origin, of atoms that have not flown away, in any unit of length."""


class DeviceSteps:
    """Takes steps of one kind, for one set of atoms.

    Parameters
    ----------
    walk : Walk
        What moves them.
    distances : Distances, optional
        That are held, of one bead.
    """

    def __init__(self, walk: Walk, distances: Distances | None = None) -> None:
        self._walk, self._distances = walk, distances
        self._runs = tuple[Recorded, ...]()
        self._places = tuple[tuple[int, ...], ...]()
        self._cell: np.ndarray | None = None
        self._at: np.ndarray | None = None
        self._end: tuple[np.ndarray, ...] = ()
        # of every model, whether its lists are to be made anew where the last step has ended
        self._due = list[bool]()
        # of the step that the device was sent on beyond the last one, and where that is sent to
        self._ahead: tuple[Counter, int] | None = None
        # guests are not asked again where a step is taken again
        self._guests_at: np.ndarray | None = None

    def take(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        cell: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None = None,
        *,
        following: Counter | None = None,
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
        following : Counter, optional
            Of the step that will be asked for next, from where this one ends. The device takes it
            while the host sees to this one, unless guests are asked; it waits for this one's end
            where lists are by cells. Nothing is lost if another is asked for.

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
        walk = self._walk
        if self._cell is None or not np.array_equal(cell, self._cell):
            self._cell, self._runs = cell.copy(), ()
            self._at = self._guests_at = self._ahead = None
            self._end = ()
            walk.allocate(positions.shape, cell, held=self._distances is not None)
        elif self._places_now() != self._places:
            # somebody else has used the models, in another cell perhaps
            self._at, self._ahead, self._end = None, None, ()
        sent, renewed = self._sent_ahead(positions, momenta, noise, extra), set[int]()
        blind = all(model.lists_recordable for model in walk.distinct)
        for _ in range(TRIES):
            if sent is None:
                self._fill(positions, momenta, noise, extra)
                self._at, self._end = None, ()  # until the step has come to a good end
                sent = self._launch(self._due)
            ahead = self._go_ahead(following) if blind else None
            (flags, lost, *found), finite = walk.results.get(sent)
            sent = None
            counts = not flags[:, :2].any()
            self._due = (flags[:, 2] > 0).tolist()
            if not blind and finite and counts and not lost:
                ahead = self._go_ahead(following)
            # where it lies the step after the next will be sent to
            taken, teacher = self._taken(*map(np.copy, found))
            if not finite:
                require_finite(taken, teacher)
            if counts:
                break
            # the lists were too small on the way: the step does not count
            self._grow(flags > 0, positions, taken.positions, renewed)
        else:
            raise StepLost("lists of neighbours were too small again and again")
        if lost:
            raise StepLost(BONDS_LOST)
        self._ahead = ahead
        self._at = self._guests_at = taken.positions.copy()
        self._end = (self._at, taken.momenta.copy(), taken.extra.copy())
        return taken, teacher

    def _go_ahead(self, following: Counter | None) -> tuple[Counter, int] | None:
        """Have the device take the step that will be asked for next, unless a guest is asked."""
        walk = self._walk
        if following is None or any(piece.asks for piece in walk.pieces):
            return None
        if walk.numbers.send(following):
            self._runs = ()
        return following, self._launch(self._due)

    def _sent_ahead(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None,
    ) -> int | None:
        """Tell where this step is sent to if it was taken ahead; if another was, start anew."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        following, sent = ahead
        asked = isinstance(noise, Counter) and noise == following
        asked = asked and self._is_end(positions, momenta, extra)
        self._at, self._end = None, ()
        return sent if asked else None

    def _is_end(self, positions: np.ndarray, momenta: np.ndarray, extra: np.ndarray | None) -> bool:
        """Tell whether the last step has ended there."""
        if extra is None:
            extra = np.zeros((0, *positions.shape))
        start = positions, momenta, extra
        return bool(self._end) and all(map(np.array_equal, self._end, start))

    def _launch(self, due: list[bool]) -> int:
        """Have the device take the step that it was sent; waits for guests alone.

        Returns
        -------
        int
            What `Results` has it by.
        """
        walk = self._walk
        due = due or [True] * len(walk.distinct)
        walk.rebuild(due=due, first=True)
        for k, (piece, run) in enumerate(zip(walk.pieces, self._recorded(), strict=True)):
            if k == 1:  # while a GPU takes the inner steps
                walk.rebuild(due=due, first=False)
            if piece.asks:
                if not self._counts():
                    walk.results.break_off(walk.flags, walk.lost)
                    break
                self._guests_at = None
                walk.ask(piece)
            run()
        return walk.results.send()

    def _counts(self) -> bool:
        """Tell whether lists have done so far; a guest is not asked about what has blown up."""
        walk = self._walk
        flags, lost, furthest = in_one_piece([walk.flags, walk.lost, walk.x.abs().max()])
        if flags[:, :2].any():
            return False
        if lost:
            raise StepLost(BONDS_LOST)
        if not furthest < FURTHEST:
            raise StepLost("atoms are not finite, or far away: the trajectory blew up")
        return True

    def _places_now(self) -> tuple[tuple[int, ...], ...]:
        return tuple(model.place for model in self._walk.distinct)

    def _recorded(self) -> tuple[Recorded, ...]:
        """Return what takes the pieces of a step, for the arrays as they lie now."""
        places = self._places_now()
        if not self._runs or places != self._places:
            walk, self._places = self._walk, places
            self._runs = tuple(
                Recorded(partial(walk.take, piece), walk.device) for piece in walk.pieces
            )
        return self._runs

    def _hold(self, positions: np.ndarray) -> None:
        """Have the constraints of bonds in the images that they have at these positions."""
        if self._distances is None or not len(self._distances.pairs):
            return
        assert self._cell is not None
        found = Constraints.of(self._distances, self._walk.masses, positions[0], self._cell)
        self._walk.hold(found)

    def _grow(
        self, flags: np.ndarray, before: np.ndarray, after: np.ndarray, renewed: set[int]
    ) -> None:
        """Make room for the neighbours at both ends of a step, or for longer ways.

        Lists that were old may do once they are new; only where new ones did not, they reach out.
        """
        for model, (moved, overflow, _) in zip(self._walk.distinct, flags, strict=True):
            if moved and id(model) in renewed:
                model.reach_further()
            elif moved:
                model.renew()
                renewed.add(id(model))
            elif overflow:
                model.make_room()
            for positions in (after, before) if moved or overflow else ():
                if np.isfinite(positions).all():
                    model.update(self._walk.tensor(positions), self._walk.cells)

    def _fill(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None,
    ) -> None:
        """Copy a start to the device; forces are known where the last step has ended."""
        walk = self._walk
        if self._at is None or not np.array_equal(positions, self._at):
            self._due, self._at, self._end = [], None, ()
            self._hold(positions)
            walk.x.copy_(torch.from_numpy(positions))
            for model in walk.distinct:
                model.update(walk.x, walk.cells)
            known = self._guests_at is not None and np.array_equal(positions, self._guests_at)
            for name, model in walk.models.items():
                if model.recordable or not known:
                    self._evaluate(name, model)
            self._guests_at = positions.copy()
        if not self._is_end(positions, momenta, extra):  # where all is there
            walk.x.copy_(torch.from_numpy(positions))
            walk.v.copy_(torch.from_numpy(momenta))
            walk.v.mul_(walk.inverse)
            if extra is not None:
                walk.extra.copy_(torch.from_numpy(extra))
        if walk.numbers.send(noise):
            self._runs = ()

    def _evaluate(self, name: str, model: DeviceModel) -> None:
        """Have the forces of a start, with room for all pairs."""
        walk = self._walk
        for _ in range(TRIES):
            walk.keep(name, model.evaluate(walk.x, walk.cells))
            if not any(bool(told[1]) for told in model.told()):
                return
            model.make_room()
            model.update(walk.x, walk.cells)
        raise StepLost("lists of neighbours were too small again and again")

    def _taken(
        self,
        heat: np.ndarray,
        q: np.ndarray,
        momenta: np.ndarray,
        extra: np.ndarray,
        seen: np.ndarray,
        *found: np.ndarray,
    ) -> tuple[Taken, Found | None]:
        """Put together what came back of a step."""
        models = {
            name: (found[k], found[k + 1], found[k + 2])
            for name, k in zip(self._walk.models, range(0, len(found), 3), strict=True)
        }
        taken = Taken(q, momenta, {FAST: models[FAST]}, float(heat), seen, extra)
        return taken, models.get("teacher")
