"""Outer steps of RESPA-BAOAB with the compiled loop, for one set of atoms with both models here.

The same steps as :func:`integrators.engine.step` takes, on arrays. Atoms of infinite mass are held
in place: the loop does not see them, the models do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from integrators.compiled_kernel import THERMOSTAT
from integrators.compiled_loop import Evaluate, Found, Loop, Program
from integrators.constraints import Constraints, Distances
from integrators.device.model import DeviceModel
from integrators.device.steps import DeviceSteps
from integrators.device.walk import Walk
from integrators.gle import ColouredNoise
from integrators.levels import difference
from integrators.noise import Counter, CounterNoise, Noise
from integrators.splitting import FAST, SLOW, baoab, respa_baoab
from integrators.state import Evaluation


@dataclass(frozen=True)
class Stepped:
    """Where an outer step ends.

    Attributes
    ----------
    positions, momenta : ndarray, shape (N, 3)
        Of all atoms; held ones have no momentum.
    teacher, student : Found
        Energies (1,), forces (1, N, 3) and virials (1, 3, 3) there; without a student both are the
        teacher's.
    heat : float
        Energy that thermostat and centre of mass have brought in.
    twice_kinetic : ndarray, shape (n, G)
        Σ p²/m of every group behind every thermostat step.
    extra : ndarray, shape (k, N, 3)
        Extra momenta of coloured noise, over √m; for the next step.
    """

    positions: np.ndarray
    momenta: np.ndarray
    teacher: Found
    student: Found
    heat: float
    twice_kinetic: np.ndarray
    extra: np.ndarray

    @property
    def force_difference(self) -> np.ndarray:
        """Teacher - student before it is clipped, shape (N, 3)."""
        difference: np.ndarray = self.teacher[1][0] - self.student[1][0]
        return difference


class OuterSteps:
    """Takes outer steps of one kind.

    Parameters
    ----------
    teacher : callable
        An `Evaluate` for one structure, in any consistent units.
    student : callable, optional
        The same, for the inner steps; without it the teacher takes single steps of BAOAB.
    masses : ndarray, shape (N,)
        Positive; infinite for atoms that are held.
    n : int
        Inner steps an outer one.
    timestep : float
        Of the outer step.
    kT : float
        Of the thermostat.
    friction : ndarray, shape (N,)
        Of every atom; where it is zero there is no thermostat, exactly.
    groups : ndarray of bool, shape (G, N)
        Atoms whose kinetic energy is reported together; held ones do not count.
    clip : float, optional
        Bound on the norm of teacher - student of an atom; None for no bound.
    fixcom : bool
        Whether the centre of mass is kept still, after every kick and every thermostat step.
    coloured : ColouredNoise, optional
        In the place of ``friction``, which is then zero.
    distances : Distances, optional
        Distances that are held, between atoms of which none has an infinite mass.
    on_device : mapping of str to DeviceModel, optional
        The same models where they take steps without the host, as `DeviceSteps` has them.

    Raises
    ------
    ValueError
        If a mass is not positive, there are inner steps and no student, or distances cannot be
        held beside such a thermostat.
    """

    def __init__(
        self,
        teacher: Evaluate,
        student: Evaluate | None = None,
        *,
        masses: np.ndarray,
        n: int,
        timestep: float,
        kT: float,
        friction: np.ndarray,
        groups: np.ndarray,
        clip: float | None,
        fixcom: bool,
        coloured: ColouredNoise | None = None,
        distances: Distances | None = None,
        on_device: Mapping[str, DeviceModel] | None = None,
    ) -> None:
        if not (masses > 0).all():
            raise ValueError(f"masses must be positive; the smallest is {masses.min():g}")
        if student is None and n != 1:
            raise ValueError(f"n is {n}; without a student an outer step is one inner step")
        self._moves = np.isfinite(masses)
        self._masses = masses[self._moves]
        self._teacher = _Remembering(teacher)
        self._student = self._teacher if student is None else _Remembering(student)
        splitting = baoab() if student is None else respa_baoab(n)
        self._program = Program.of(splitting)
        self._levels = {FAST: self._fast} | ({} if student is None else {SLOW: self._slow})
        self._timestep, self._kT, self._clip, self._fixcom = timestep, kT, clip, fixcom
        self._friction = friction[None, self._moves].astype(float)
        self._groups = np.ascontiguousarray(groups[:, self._moves])
        self._at = np.zeros((1, len(masses), 3))
        self.coloured = coloured
        self._distances: Distances | None = None
        if distances is not None and len(distances.pairs):
            check = Constraints.of(distances, masses, self._at[0], np.zeros((3, 3)))
            check.require_one_friction(friction)
            among_moving = (np.cumsum(self._moves) - 1)[distances.pairs]
            self._distances = Distances(among_moving, distances.lengths)
        self._on_device: DeviceSteps | None = None
        if on_device is not None:
            walk = Walk(
                on_device,
                splitting,
                masses=masses,
                timestep=timestep,
                kT=kT,
                friction=np.where(self._moves, friction, 0.0)[None],
                groups=groups,
                clip=clip,
                fixcom=fixcom,
                coloured=coloured,
            )
            held = None if self._distances is None else distances
            self._on_device = DeviceSteps(walk, held)

    @property
    def on_device(self) -> bool:
        """Whether steps are taken on the device where the models are."""
        return self._on_device is not None

    @property
    def thermostat_steps(self) -> np.ndarray:
        """Places in the splitting of the thermostat steps of an outer step, shape (n,)."""
        places: np.ndarray = (self._program.kinds == THERMOSTAT).nonzero()[0]
        return places

    def draw(self, noise: Noise, step: int) -> np.ndarray | Counter:
        """Draw what `take` needs from a counter-based noise, (n, N, 3) or (n, k + 1, N, 3).

        One row more where distances are held. On a device a `CounterNoise` is drawn there later.
        """
        if self.on_device and isinstance(noise, CounterNoise):
            return Counter(noise.seed, step)
        held = self._distances is not None
        several = () if self.coloured is None else (self.coloured.draws(held=held),)
        like = torch.empty((*several, *self._at.shape[1:]), dtype=torch.float64)
        return np.stack([noise(step, int(op), like).numpy() for op in self.thermostat_steps])

    def look(self, positions: np.ndarray, cell: np.ndarray) -> tuple[Found, Found]:
        """Evaluate teacher and student at positions (N, 3); free where a step has ended."""
        cells = cell[None]
        return self._teacher(positions[None], cells), self._student(positions[None], cells)

    def take(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        cell: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None = None,
        *,
        following: np.ndarray | Counter | None = None,
    ) -> Stepped:
        """Take one outer step.

        Parameters
        ----------
        positions, momenta : ndarray, shape (N, 3)
            Left as they are.
        cell : ndarray, shape (3, 3)
            Rows are lattice vectors; zeros for an isolated system.
        noise : ndarray, shape (n, N, 3) or (n, k + 1, N, 3)
            Standard normal numbers of the thermostat steps; or what `draw` has returned.
        extra : ndarray, shape (k, N, 3), optional
            With coloured noise: of the step before, or √kT times standard normal numbers.
        following : optional
            What `draw` has returned for the step that will be taken next from where this one ends:
            a device takes it while the host sees to this one.

        Raises
        ------
        ValueError
            If distances that are held are not found again: the trajectory blew up.
        """
        if self._on_device is not None:
            ahead = following if isinstance(following, Counter) else None
            return self._take_on_device(positions, momenta, cell, noise, extra, ahead)
        moves = self._moves
        self._at[0] = positions
        loop = Loop(
            *(positions[None, moves], momenta[None, moves], self._masses, cell),
            self._levels,
            kT=self._kT,
            friction=self._friction,
            groups=self._groups,
            fixcom=self._fixcom,
            coloured=self.coloured,
            extra=None if extra is None else np.ascontiguousarray(extra[:, None, moves]),
            constraints=self._constraints(positions[moves], cell),
        )
        assert not isinstance(noise, Counter)  # `draw` has it for steps on a device only
        drawn = np.ascontiguousarray(noise[..., None, moves, :])
        taken = loop.take(self._program, timestep=self._timestep, noise=drawn)
        after, moving = positions.copy(), np.zeros_like(momenta)
        after[moves], moving[moves] = taken.positions[0], taken.momenta[0]
        teacher, student = self.look(after, cell)
        left = np.zeros((len(taken.extra), *momenta.shape))
        left[:, moves] = taken.extra[:, 0]
        return Stepped(after, moving, teacher, student, taken.heat, taken.twice_kinetic, left)

    def _take_on_device(
        self,
        positions: np.ndarray,
        momenta: np.ndarray,
        cell: np.ndarray,
        noise: np.ndarray | Counter,
        extra: np.ndarray | None,
        following: Counter | None,
    ) -> Stepped:
        assert self._on_device is not None
        more = None if extra is None else extra[:, None]
        numbers = noise if isinstance(noise, Counter) else noise[..., None, :, :]
        taken, teacher = self._on_device.take(
            *(positions[None], momenta[None], cell, numbers, more), following=following
        )
        student = taken.evaluations[FAST]
        teacher = student if teacher is None else teacher
        for model, found in ((self._student, student), (self._teacher, teacher)):
            model.remember(taken.positions, cell[None], found)
        return Stepped(
            *(taken.positions[0], taken.momenta[0], teacher, student, taken.heat),
            *(taken.twice_kinetic, taken.extra[:, 0]),
        )

    def _constraints(self, moving: np.ndarray, cell: np.ndarray) -> Constraints | None:
        if self._distances is None:
            return None
        return Constraints.of(self._distances, self._masses, moving, cell)

    def _whole(self, positions: np.ndarray) -> np.ndarray:
        """Positions of all atoms, from those that the loop moves."""
        self._at[:, self._moves] = positions
        return self._at

    def _of_moving(self, found: Found) -> Found:
        energy, forces, virial = found
        return energy, np.ascontiguousarray(forces[:, self._moves]), virial

    def _fast(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        return self._of_moving(self._student(self._whole(positions), cells))

    def _slow(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        whole = self._whole(positions)
        both = (
            Evaluation(*map(torch.from_numpy, model(whole, cells)))
            for model in (self._teacher, self._student)
        )
        found, _ = difference(*both, clip=self._clip)
        return self._of_moving((found.energy.numpy(), found.forces.numpy(), found.virial.numpy()))


class _Remembering:
    """A model that is free where it was asked last."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._last: tuple[np.ndarray, np.ndarray, Found] | None = None

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        if self._last is not None:
            at, in_cells, found = self._last
            if np.array_equal(at, positions) and np.array_equal(in_cells, cells):
                return found
        found = self._evaluate(positions, cells)
        self.remember(positions, cells, found)
        return found

    def remember(self, positions: np.ndarray, cells: np.ndarray, found: Found) -> None:
        """Be free there from now on."""
        self._last = positions.copy(), cells.copy(), found
