"""Steps of RESPA-BAOAB in a driver whose models, lists and atoms stay on a device."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from integrators.compiled_loop import Ring
from integrators.constraints import Distances
from integrators.device.fetched import StepLost
from integrators.device.model import DeviceModel
from integrators.device.steps import DeviceSteps
from integrators.device.walk import Walk
from integrators.noise import Counter
from integrators.splitting import FAST, Splitting, fast_part, respa_baoab
from integrators.state import Evaluation
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.propagator import Propagator, named, program_of, results_of
from mts_driver.drivers.step_requests import Arrays, beside, check, check_run
from mts_driver.errors import UserError
from mts_driver.potentials.backends import on_device
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A

OF_THE_KIND = ("masses", "friction", "groups", "modes", "omega", "drift", "held", "lengths")
"""Arrays of a request that say what kind of steps they are."""


class InAtomicUnits:
    """A model on a device that takes Bohr and gives Hartree.

    Parameters
    ----------
    model : DeviceModel
        In Å and eV.
    periodic : bool
        Whether cells are looked at; without them virials are zero.
    """

    forces_stay = False

    def __init__(self, model: DeviceModel, *, periodic: bool) -> None:
        self.device, self.recordable = model.device, model.recordable
        self._model, self._periodic = model, periodic

    @property
    def place(self) -> tuple[int, ...]:
        """See `DeviceModel.place`."""
        return self._model.place

    @property
    def lists_recordable(self) -> bool:
        """See `DeviceModel.lists_recordable`."""
        return self._model.lists_recordable

    def update(self, x: Tensor, cells: Tensor) -> None:
        """See `DeviceModel.update`."""
        self._model.update(x * BOHR_A, self._cells(cells))

    def rebuild(self, x: Tensor, *, search: bool = True) -> None:
        """See `DeviceModel.rebuild`."""
        self._model.rebuild(x * BOHR_A, search=search)

    def due(self, x: Tensor) -> Tensor:
        """See `DeviceModel.due`."""
        return self._model.due(x * BOHR_A)

    def told(self) -> tuple[Tensor, ...]:
        """See `DeviceModel.told`."""
        return self._model.told()

    def renew(self) -> None:
        """See `DeviceModel.renew`."""
        self._model.renew()

    def reach_further(self) -> None:
        """See `DeviceModel.reach_further`."""
        self._model.reach_further()

    def make_room(self) -> None:
        """See `DeviceModel.make_room`."""
        self._model.make_room()

    def forces(self, x: Tensor, cells: Tensor) -> Tensor:
        """See `DeviceModel.forces`."""
        return self._model.forces(x * BOHR_A, self._cells(cells)) / HARTREE_PER_BOHR_EV_A

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """See `DeviceModel.evaluate`."""
        energy, forces, virial = self._model.evaluate(x * BOHR_A, self._cells(cells))
        virial = virial / HARTREE_EV * float(self._periodic)
        return Evaluation(energy / HARTREE_EV, forces / HARTREE_PER_BOHR_EV_A, virial)

    def _cells(self, cells: Tensor) -> Tensor:
        return cells * BOHR_A if self._periodic else torch.zeros_like(cells)


class DevicePropagator(Propagator):
    """Takes the steps of `Propagator` without the host.

    Parameters
    ----------
    student, teacher : Evaluator
        As `Propagator` takes them; the student is on a device.
    """

    def __init__(self, student: Evaluator, teacher: Evaluator | None) -> None:
        super().__init__(student, teacher, natoms=student.natoms)
        self._evaluators = {FAST: student} | ({"teacher": teacher} if teacher else {})
        models = on_device(student.potential, teacher.potential if teacher else None)
        assert models is not None
        # a model in both roles is one, which must not be asked for both at once
        wrapped = dict[tuple[int, bool], InAtomicUnits]()
        self._models = dict[str, DeviceModel]()
        for name, one in self._evaluators.items():
            model, periodic = models[name], one.periodic is not False
            mine = InAtomicUnits(model, periodic=periodic)
            self._models[name] = wrapped.setdefault((id(model), periodic), mine)
        self._steps: DeviceSteps | None = None
        self._kind: tuple[Any, ...] = ()

    def propagate(
        self, arrays: Arrays, *, n: int, timestep: float, kT: float, fixcom: bool
    ) -> dict[str, np.ndarray]:
        """Take ``n`` inner steps between two slow kicks; see `Propagator.propagate`."""
        thermostat = check(arrays, n, self._natoms, "noise")
        splitting = fast_part(n) if thermostat else fast_part(n).without_ou()
        models = {FAST: self._models[FAST]}
        steps = self._steps_for(arrays, models, splitting, n, timestep, kT, fixcom, 0.0)
        program = program_of(n, 0, thermostat=thermostat)
        noise = arrays["noise"] if thermostat else self.noise(0, program, arrays)
        found, _ = self._take(steps, arrays, arrays, noise, n)
        return found

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
        """Take a whole outer step for every seed; see `Propagator.run`."""
        thermostat = check_run(arrays, seeds, n, self._natoms)
        self.require_teacher()
        splitting = respa_baoab(n) if thermostat else respa_baoab(n).without_ou()
        steps = self._steps_for(arrays, self._models, splitting, n, timestep, kT, fixcom, clip)
        program = program_of(n, 1, thermostat=thermostat)
        here, taken = arrays, list[dict[str, np.ndarray]]()
        for k, seed in enumerate(seeds):
            noise = Counter(seed, 0) if thermostat else self.noise(seed, program, arrays)
            following = Counter(seeds[k + 1], 0) if thermostat and k + 1 < len(seeds) else None
            try:
                found, teacher = self._take(steps, arrays, here, noise, n, following)
            except UserError:
                if not taken:
                    raise
                break  # as `Propagator.run` does
            taken.append({**found, **named("teacher_", teacher)})
            here = found
        return {name: np.stack([step[name] for step in taken]) for name in taken[0]}

    def _take(
        self,
        steps: DeviceSteps,
        arrays: Arrays,
        here: Arrays,
        noise: np.ndarray | Counter,
        n: int,
        following: Counter | None = None,
    ) -> tuple[dict[str, np.ndarray], Any]:
        """Take one, from the positions, momenta and extra momenta ``here``."""
        start = time.perf_counter()
        extra = here.get("extra") if arrays.get("drift", np.zeros(0)).size else None
        # buffers that came over the wire cannot be written to, which torch warns of
        q, p, cell = (np.array(a) for a in (here["q"], here["p"], arrays["cell"]))
        drawn = noise if isinstance(noise, Counter) else np.array(noise)
        more = None if extra is None else np.array(extra)
        try:
            taken, teacher = steps.take(q, p, cell, drawn, more, following=following)
        except StepLost as error:
            raise UserError(
                f"{error}. Restart from the last checkpoint with a shorter time step."
            ) from error
        beads, seconds = len(here["q"]), time.perf_counter() - start
        self._evaluators[FAST].stats.count(n * beads, 0.0 if teacher is not None else seconds)
        if teacher is not None:
            self._evaluators["teacher"].stats.count(beads, seconds)
        return results_of(taken, arrays), teacher

    def _steps_for(
        self,
        arrays: Arrays,
        models: Mapping[str, DeviceModel],
        splitting: Splitting,
        n: int,
        timestep: float,
        kT: float,
        fixcom: bool,
        clip: float,
    ) -> DeviceSteps:
        """Return those of the last request if it was of this kind, or new ones."""
        bytes_of = tuple(np.asarray(arrays[k]).tobytes() for k in OF_THE_KIND if k in arrays)
        kind = (tuple(models), len(splitting), n, timestep, kT, fixcom, clip, *bytes_of)
        if self._steps is None or kind != self._kind:
            coloured, _, _ = beside(arrays)  # refuses what cannot be
            held = np.asarray(arrays.get("held", np.zeros(0)))
            several = len(arrays["q"]) > 1
            walk = Walk(
                models,
                splitting,
                masses=np.array(arrays["masses"]),
                timestep=timestep,
                kT=kT,
                friction=np.array(arrays["friction"]) if arrays["friction"].size else None,
                groups=np.array(arrays["groups"], bool),
                clip=clip or None,
                fixcom=fixcom,
                ring=Ring(np.array(arrays["modes"]), np.array(arrays["omega"]))
                if several
                else None,
                coloured=coloured,
            )
            distances = None
            if held.size:
                distances = Distances(held.astype(np.int64), np.array(arrays["lengths"]))
            self._steps = DeviceSteps(walk, distances)
            self._kind = kind
        return self._steps
