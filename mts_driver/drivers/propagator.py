"""Steps of RESPA-BAOAB in the driver: one request for an inner loop, or for whole outer steps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from integrators.compiled_kernel import THERMOSTAT
from integrators.compiled_loop import Evaluate, Found, Loop, Program, Ring, Taken
from integrators.levels import difference
from integrators.noise import CounterNoise
from integrators.splitting import FAST, SLOW, fast_part, respa_baoab
from integrators.state import Evaluation
from mts_driver.drivers.step_requests import NEEDED, Arrays, beside, check, check_run, draws
from mts_driver.errors import UserError


class Mine(NamedTuple):
    """The atoms of this process, where others have the rest.

    Attributes
    ----------
    atoms : int array, shape (n,)
        Their numbers in the whole.
    natoms : int
        Of the whole.
    add_up : callable
        Replaces an array by its sum over all processes.
    held : bool
        Whether distances are held, of these atoms or of others.
    """

    atoms: np.ndarray
    natoms: int
    add_up: Callable[[np.ndarray], None]
    held: bool


class Propagator:
    """Walks the data of :mod:`integrators.splitting` in atomic units.

    Both ways take ``arrays`` with ``q``, ``p`` (P, N, 3), of P beads; ``masses`` (N,); ``cell``
    (3, 3), rows are lattice vectors; ``friction`` (P, N) on normal modes, empty without a
    thermostat; ``groups`` (G, N), bool; ``modes`` (P, P) and ``omega`` (P,), the normal modes of
    the free ring polymer and their frequencies, empty for one bead. Two things may be beside them
    for one bead: coloured noise in the place of ``friction``, with its ``drift`` matrix (k + 1,
    k + 1) and ``extra`` momenta over √m (k, P, N, 3); and distances that are held, with ``held``
    pairs of atoms (M, 2) and ``lengths`` (M,). ``timestep`` is that of the splitting, ``kT`` that
    of one bead times P; ``fixcom`` keeps the centre of mass still.

    Parameters
    ----------
    student : callable
        As `mts_driver.drivers.evaluator.Evaluator`, free for the structures of the last call.
    teacher : callable, optional
        The same, for whole outer steps.
    natoms : int
        Number of atoms that the models were loaded for.
    mine : Mine, optional
        Where these are not all; results are then this process's share.
    """

    def __init__(
        self,
        student: Evaluate,
        teacher: Evaluate | None = None,
        *,
        natoms: int,
        mine: Mine | None = None,
    ) -> None:
        self._natoms, self._mine = natoms, mine
        self._student, self._teacher = student, teacher

    def propagate(
        self, arrays: Arrays, *, n: int, timestep: float, kT: float, fixcom: bool
    ) -> dict[str, np.ndarray]:
        """Take ``n`` inner steps between two slow kicks.

        ``arrays`` also has ``noise`` (n, P, N, 3), standard normal numbers in normal modes, empty
        without a thermostat; of coloured noise (n, k + 1, P, N, 3), or k + 2 where distances are
        held, `integrators.gle.ColouredNoise.draws`.

        Returns
        -------
        dict
            ``q``, ``p``, the student's ``energy`` (P,), ``forces`` (P, N, 3) and ``virial``
            (P, 3, 3) at ``q``; ``heat`` () that went into the atoms; ``twice_kinetic`` (n, G),
            Σ m v² of every group behind every thermostat step; with coloured noise ``extra``, and
            with distances that are held ``held`` (), how many.

        Raises
        ------
        UserError
            If an array is missing or has another shape, or the model fails.
        """
        thermostat = check(arrays, n, self._natoms, "noise")
        program = program_of(n, 0, thermostat=thermostat)
        loop = self._loop(arrays, {FAST: self._student}, kT, fixcom)
        noise = np.array(arrays["noise"]) if thermostat else self.noise(0, program, arrays)
        with _blow_ups_said():
            taken = loop.take(program, timestep=timestep, noise=noise)
        return results_of(taken, arrays)

    def run(
        self,
        arrays: Arrays,
        *,
        n: int,
        seeds: Sequence[int],
        timestep: float,
        kT: float,
        fixcom: bool,
        clip: float,
    ) -> dict[str, np.ndarray]:
        """Take a whole outer step of ``n`` inner ones for every seed, with both models here.

        The noise of a step is that of ``CounterNoise(seed)``; slow forces longer than ``clip``
        (0: none) are scaled back to it.

        Returns
        -------
        dict
            What `propagate` returns and the teacher's ``teacher_energy``, ``teacher_forces``,
            ``teacher_virial``, all with one more axis in front, of outer steps.

        Raises
        ------
        UserError
            As `propagate`, or if there is no teacher here. Where the model fails behind the first
            step, the steps before are returned instead.
        """
        thermostat = check_run(arrays, seeds, n, self._natoms)
        fast, teacher = self._student, self.require_teacher()

        def slow(positions: np.ndarray, cells: np.ndarray) -> Found:
            both = (_evaluation(model(positions, cells)) for model in (teacher, fast))
            found = difference(*both, clip=clip or None)[0]
            return found.energy.numpy(), found.forces.numpy(), found.virial.numpy()

        program = program_of(n, 1, thermostat=thermostat)
        steps = list[dict[str, np.ndarray]]()
        loop = self._loop(arrays, {FAST: fast, SLOW: slow}, kT, fixcom)
        cells = arrays["cell"][None].repeat(len(arrays["q"]), axis=0)
        for seed in seeds:
            noise = self.noise(seed, program, arrays)
            try:
                with _blow_ups_said():
                    taken = loop.take(program, timestep=timestep, noise=noise)
            except UserError:
                if not steps:
                    raise
                break  # the steps before are good, and show what led there; the next request fails
            full = named("teacher_", teacher(taken.positions, cells))
            steps.append({**results_of(taken, arrays), **full})
        return {name: np.stack([step[name] for step in steps]) for name in steps[0]}

    def require_teacher(self) -> Evaluate:
        """Return the teacher.

        Raises
        ------
        UserError
            If there is none here.
        """
        if self._teacher is None:
            raise UserError(
                "this driver has no teacher to take whole outer steps with: start it with "
                "`mts serve TEACHER --student STUDENT --zmq ADDRESS`, or remove <device_steps>."
            )
        return self._teacher

    def _loop(
        self, arrays: Arrays, potentials: Mapping[str, Evaluate], kT: float, fixcom: bool
    ) -> Loop:
        # buffers that came over the wire are read-only, which is another type to compiled code
        a = {name: np.ascontiguousarray(arrays[name]).copy() for name in NEEDED}
        several = len(a["q"]) > 1
        coloured, extra, constraints = beside(arrays)
        return Loop(
            *(a["q"], a["p"], a["masses"], a["cell"]),
            potentials,
            kT=kT,
            friction=a["friction"] if a["friction"].size else None,
            groups=a["groups"],
            fixcom=fixcom,
            ring=Ring(a["modes"], a["omega"]) if several else None,
            add_up=self._mine.add_up if self._mine else None,
            coloured=coloured,
            extra=extra,
            constraints=constraints,
        )

    def noise(self, seed: int, program: Program, arrays: Arrays) -> np.ndarray:
        """Draw the noise of all thermostat steps of a splitting, the same on all processes."""
        natoms = self._mine.natoms if self._mine else self._natoms
        atoms = self._mine.atoms if self._mine else np.arange(natoms)
        several = draws(arrays, held=self._mine.held if self._mine else None)
        shape = (*several, len(arrays["q"]), natoms, 3)
        draw, ops = CounterNoise(seed), (program.kinds == THERMOSTAT).nonzero()[0]
        noise = np.empty((len(ops), *shape[:-2], len(atoms), 3))
        for one, op in zip(noise, ops, strict=True):
            one[:] = draw.of_atoms(0, int(op), shape, atoms)
        return noise


def _evaluation(found: Found) -> Evaluation:
    return Evaluation(*map(torch.from_numpy, found))


@contextmanager
def _blow_ups_said() -> Iterator[None]:
    """Say in words what ends a trajectory with distances that are held."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{error}.") from error


def results_of(taken: Taken, arrays: Arrays) -> dict[str, np.ndarray]:
    """Return what both kinds of requests share; also a sign that was seen what lies beside."""
    more = {}
    if len(taken.extra):
        more["extra"] = taken.extra
    if "held" in arrays and arrays["held"].size:
        more["held"] = np.array(len(arrays["held"]))
    return {
        **more,
        "q": taken.positions,
        "p": taken.momenta,
        **named("", taken.evaluations[FAST]),
        "heat": np.array(taken.heat),
        "twice_kinetic": taken.twice_kinetic,
    }


def named(prefix: str, found: Found) -> dict[str, np.ndarray]:
    """Return an evaluation by the names of its parts in an answer."""
    return dict(zip((f"{prefix}energy", f"{prefix}forces", f"{prefix}virial"), found, strict=True))


@cache  # exact fractions take longer than a step of a small student
def program_of(n: int, outer: int, *, thermostat: bool) -> Program:
    """Return ``n`` inner steps, and the slow kicks around them where ``outer`` is 1."""
    found = respa_baoab(n) if outer else fast_part(n)
    return Program.of(found if thermostat else found.without_ou())
