"""Whole outer steps on several ranks, each of which moves its own atoms.

The first rank is asked, and tells the others once a request; from then to its answer ranks exchange
what lies in their halos, and a few sums.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mts_driver.drivers.evaluator import Results
from mts_driver.drivers.propagator import Mine, Propagator, check_run
from mts_driver.errors import RankFailed, UserError
from mts_driver.potentials.backends import is_on_device
from mts_driver.potentials.ranks.exchange import Ranks, sum_over_ranks
from mts_driver.potentials.ranks.potential import SharedPotential
from mts_driver.structures.bonds import connected
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A

if TYPE_CHECKING:
    from mts_driver.drivers.evaluator import Evaluator
    from mts_driver.drivers.mpi import Team

Arrays = Mapping[str, np.ndarray]
OF_ATOMS = {"q": 1, "p": 1, "masses": 0, "friction": 1, "groups": 1, "extra": 2}
"""Along which axis of an array the atoms are."""
KEPT = 50
"""Requests after which atoms are shared out anew; they drift apart, and halos grow."""


class OwnEvaluator:
    """One of two models on this rank's atoms, which remembers the structures of its last call.

    Parameters
    ----------
    potential : SharedPotential
        Has shared the atoms out.
    ranks : Ranks
        Who shares.
    periodic : bool
        Whether the model sees the cell.
    """

    def __init__(self, potential: SharedPotential, ranks: Ranks, *, periodic: bool) -> None:
        self._potential, self._ranks, self._periodic = potential, ranks, periodic
        self._known: tuple[np.ndarray, np.ndarray, Results] | None = None
        self.calls, self.seconds = 0, 0.0

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Results:
        """As `Evaluator`, on this rank's atoms, with energies and virials that add up.

        Raises
        ------
        RankFailed
            If the model fails here.
        """
        same = self._known is not None and all(
            map(np.array_equal, self._known[:2], (positions, cells))
        )
        anywhere = np.array([not same], np.float64)
        # held atoms of one rank may stay where those of another move
        self._ranks.add_up(anywhere)
        if anywhere[0] or self._known is None:
            start = time.perf_counter()
            cells_A = cells * BOHR_A if self._periodic else np.zeros_like(cells)
            try:
                energies, forces, virials = self._potential.evaluate_own(
                    positions * BOHR_A, cells_A
                )
            except UserError as error:
                raise RankFailed(str(error)) from error
            if not np.isfinite(forces.sum()):
                raise RankFailed(
                    "forces are not finite: atoms overlap or the structure lies outside what the "
                    "model knows; restart from the last checkpoint with a shorter time step."
                )
            found = (
                energies / HARTREE_EV,
                forces / HARTREE_PER_BOHR_EV_A,
                virials / HARTREE_EV * self._periodic,
            )
            self._known = positions.copy(), cells.copy(), found
            self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - start
        return self._known[2]


class OwnSteps:
    """The steps of this rank, as long as requests go on where the last one ended.

    Parameters
    ----------
    teacher, student : SharedPotential
        The models.
    ranks : Ranks
        Who shares.
    periodic : bool
        Whether the models see the cell.
    """

    def __init__(
        self, teacher: SharedPotential, student: SharedPotential, ranks: Ranks, *, periodic: bool
    ) -> None:
        self._ranks, self._potentials, self._periodic = ranks, (teacher, student), periodic
        self.evaluators: list[OwnEvaluator] = []

    def share_out(self, q: np.ndarray, cell: np.ndarray, held: np.ndarray) -> None:
        """Give each rank its atoms, as they lie at ``q`` (P, N, 3) in a cell (3, 3), Bohr.

        Atoms whose distance is held, pairs (M, 2), are moved by one rank.
        """
        x, cells = q * BOHR_A, np.repeat(cell[None] * BOHR_A * self._periodic, len(q), axis=0)
        leads = leads_of(held, q.shape[1])
        for potential in self._potentials:
            self._own = potential.share_out(x, cells, leads)
        self.evaluators = [
            OwnEvaluator(potential, self._ranks, periodic=self._periodic)
            for potential in self._potentials
        ]
        teacher, student = self.evaluators
        mine = Mine(self._own, q.shape[1], self._ranks.add_up, len(held) > 0)
        self._propagator = Propagator(student, teacher, natoms=len(self._own), mine=mine)

    def run(self, arrays: Arrays, options: dict[str, Any]) -> dict[str, np.ndarray]:
        """Take steps; see `Propagator.run`, whose results all ranks return, of all atoms."""
        here = {
            name: a.take(self._own, axis=OF_ATOMS[name]) if name in OF_ATOMS and a.size else a
            for name, a in arrays.items()
        }
        held = held_of(arrays)
        if len(held):
            mine = np.isin(held[:, 0], self._own)
            here["held"] = np.searchsorted(self._own, held[mine])
            here["lengths"] = arrays["lengths"][mine]
        found = self._propagator.run(here, **options)
        found.pop("held", None)  # not all ranks have some
        whole = []
        for name, part in found.items():
            array = part
            if name in ("q", "p", "extra") or name.endswith("forces"):
                array = np.zeros((*part.shape[:-2], arrays["masses"].size, 3))
                array[..., self._own, :] = part
            whole.append(array)
        total = dict(zip(found, sum_over_ranks(self._ranks, *whole), strict=True))
        return total | ({"held": np.full(len(total["q"]), len(held))} if len(held) else {})


def held_of(arrays: Arrays) -> np.ndarray:
    """Return the pairs (M, 2) of atoms of a request whose distance is held."""
    return np.asarray(arrays.get("held", ())).astype(np.int64).reshape(-1, 2)


def leads_of(held: np.ndarray, natoms: int) -> np.ndarray:
    """Return for every atom one (N,) that is the same for all which pairs (M, 2) connect."""
    label = connected(held[:, 0], held[:, 1], natoms)
    return np.unique(label, return_index=True)[1][label]


class SharedPropagator(Propagator):
    """Has all ranks of a team take whole outer steps; the inner ones alone are the first rank's.

    Parameters
    ----------
    student, teacher : Evaluator
        As `Propagator` takes them, with models of the team.
    team : Team
        All ranks.
    """

    def __init__(self, student: Evaluator, teacher: Evaluator, *, team: Team) -> None:
        super().__init__(student, teacher, natoms=teacher.natoms)
        self._both, self._team = (teacher, student), team
        self._end: tuple[np.ndarray, ...] | None = None
        self._requests = 0

    def run(
        self, arrays: Arrays, *, seeds: Sequence[int], n: int, **options: Any
    ) -> dict[str, np.ndarray]:
        """Take whole outer steps; see `Propagator.run`."""
        check_run(arrays, seeds, n, self._both[0].natoms)
        held = held_of(arrays)
        start = arrays["q"], arrays["cell"], held
        goes_on = self._end is not None and all(map(np.array_equal, self._end, start))
        if not goes_on:
            self._require_atoms_for_all(held)
        self._requests = (self._requests + 1) % KEPT if goes_on else 0
        found, counts = self._team.take_steps(
            [evaluator.potential for evaluator in self._both],
            dict(arrays),
            {"seeds": list(seeds), "n": n, **options},
            periodic=self._both[0].periodic is not False,
            anew=self._requests == 0,
        )
        for evaluator, (calls, seconds) in zip(self._both, counts, strict=True):
            evaluator.stats.count(calls * len(arrays["q"]), seconds)
        self._end = found["q"][-1].copy(), arrays["cell"].copy(), held
        return found

    def _require_atoms_for_all(self, held: np.ndarray) -> None:
        """Refuse more ranks than groups of atoms that pairs (M, 2) keep together."""
        together, ranks = len(np.unique(leads_of(held, self._natoms))), self._team.ranks.size
        if together < ranks:
            raise UserError(
                f"{ranks} ranks for {together} groups of atoms: those whose distance is held stay "
                f"on one rank; start mpiexec with -n {together} or less."
            )


def propagator_of(student: Evaluator, teacher: Evaluator | None) -> Propagator:
    """Return what takes the steps of a client: on all ranks or on the device, if models can."""
    if is_on_device(student.potential):
        from mts_driver.drivers.device_propagator import DevicePropagator

        return DevicePropagator(student, teacher)
    team = getattr(student.potential, "team", None)
    if teacher is None or team is None:
        return Propagator(student, teacher, natoms=student.natoms)
    if team.can_take_steps(teacher.potential, student.potential):
        return SharedPropagator(student, teacher, team=team)
    return Propagator(student, teacher, natoms=student.natoms)
