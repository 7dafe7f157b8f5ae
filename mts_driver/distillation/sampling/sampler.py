"""Where the student learns: configurations that its dynamics will visit, labelled by the teacher.

Plain molecular dynamics leaves holes: a student that never saw a long O-H bond pushes it further
apart where the teacher pulls it back, and the run ends with a broken bond. So half of the labels
are bent away from equilibrium on purpose, and pairs of frames that differ only by small
displacements along bonds carry the stiffness, on which the usable outer step depends.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.bath import Bath
from integrators.engine import StepObserver, run
from integrators.levels import FULL, SingleLevel, TwoLevel
from integrators.splitting import FAST, baoab, respa_baoab
from integrators.state import Evaluation, MDState, Potential
from mts_driver.distillation.labels.kinds import DYNAMICS, Kind
from mts_driver.distillation.labels.labeller import Labeller, kept_info
from mts_driver.distillation.sampling.displaced import label_displaced
from mts_driver.distillation.sampling.displacements import Skeleton
from mts_driver.distillation.sampling.schedule import SamplingPlan, block
from mts_driver.distillation.state_file import StateFile
from mts_driver.progress import Progress
from mts_driver.simulation.equilibrate import EQUILIBRATION_FRICTION_PER_PS
from mts_driver.simulation.holes import HOLE_EV_A
from mts_driver.simulation.relax import relax
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.masses import repartitioned_masses

TIMESTEP_FS = 2.0
HYDROGEN_MASS_DA = 3.0
"""At 4 Da methane would have no mass left for its carbon."""
INNER_STEPS = 3
"""Of 2 fs, where a student takes them."""


class _Lost(Exception):
    """The student is not where its teacher is."""


class Sampler:
    """Samples one system in stages, each continued from where an earlier run stopped.

    Parameters
    ----------
    atoms : ase.Atoms
        Starting structure; relaxed first.
    system : str
        Name that its labels carry.
    labeller : Labeller
        Labels frames and keeps them.
    plan : SamplingPlan
        How much of what.
    seed : int
        Of the noise and all random choices.
    report : callable
        Told about progress.
    runner : Potential, optional
        A student that is good enough for multiple time steps beside the teacher, where fine-tuning
        starts from one: frames lie three times as far apart for the same time. Its own dynamics
        would be cheaper still, but leads to where it is wrong and the teacher never goes.
    settling_steps : int
        Of its own dynamics, before the first label.
    """

    def __init__(
        self,
        atoms: Atoms,
        system: str,
        labeller: Labeller,
        plan: SamplingPlan,
        *,
        seed: int,
        report: Progress,
        runner: Potential | None = None,
        settling_steps: int = 0,
    ) -> None:
        self.atoms, self.system, self.labeller, self.plan = atoms, system, labeller, plan
        self.labels, self.seed, self.report = labeller.labels, seed, report
        self.runner, self.settling_steps = runner, settling_steps
        self._checkpoint = StateFile(self.labels.path.parent, system)

    @staticmethod
    def frames(plan: SamplingPlan) -> int:
        """Return how many labels a plan makes."""
        return plan.dynamics + plan.displaced

    def run(self) -> None:
        """Run all stages: dynamics at the target temperature, hotter, then displaced frames."""
        plan, start = self.plan, self.atoms
        if not self.labels.of(Kind.EQUIL, self.system):
            potential = self.runner or self.labeller.teacher(start)
            start, _ = relax(start, potential, report=self._tell_relaxation)
            self.report("relaxation", 200, 200)
            if self.runner is not None:
                start = self._settled(self.runner, start)
        for kind, steps, hotter in (
            (Kind.EQUIL, plan.equilibration_steps, 1.0),
            (Kind.MD, plan.md_steps, 1.0),
            (Kind.WARM, plan.hot_steps, 1.5),
            (Kind.HOT, plan.hot_steps, 2.2),
        ):
            temperature_K = hotter * plan.temperature_K
            if self.runner is not None and kind != Kind.HOT:
                self._dynamics(kind, steps, temperature_K, start, self.runner)
            # all of it, or what a student that was lost has left
            self._dynamics(kind, steps, temperature_K, start)
        label_displaced(
            self.labeller,
            plan,
            self.system,
            seed=self.seed,
            report=self.report,
            skeleton=Skeleton.of(self.atoms),
        )

    def _last(self, kind: Kind, start: Atoms) -> Atoms:
        """Return the frame that a stage goes on from."""
        done = self.labels.of(kind, self.system)
        earlier = DYNAMICS[max(0, DYNAMICS.index(kind) - 1)]
        # hotter runs start before the test frames, from which they must be independent
        before = [f for f in self.labels.of(earlier, self.system) if f.info["split"] == "train"]
        return (done or before or [start])[-1]

    def _settled(self, runner: Potential, start: Atoms) -> Atoms:
        """Return the structure after dynamics of the student; its solvent finds its places."""
        steps = self.settling_steps

        def tell(state: MDState) -> None:
            self.report("the student equilibrates", state.step, steps)

        state = self._state(start, self.plan.temperature_K, 0)
        levels = SingleLevel(runner)
        end = self._langevin(Kind.EQUIL, levels, state, self.plan.temperature_K, steps, tell)
        return self._frame(end)

    def _tell_relaxation(self, step: int, force_eV_A: float) -> None:
        self.report("relaxation", step, 200)

    def _dynamics(
        self,
        kind: Kind,
        steps: int,
        temperature_K: float,
        start: Atoms,
        student: Potential | None = None,
    ) -> None:
        """Langevin dynamics at one temperature; continues after the last stored frame.

        With a student in multiple time steps, whose labels lie three times as far apart. That ends
        where the student has left the teacher's surface.
        """
        first_step = len(self.labels.of(kind, self.system)) * self.plan.every
        if first_step > steps - self.plan.every or (student is not None and self._lost(kind)):
            return
        state = self._state(self._last(kind, start), temperature_K, first_step)
        state = self._checkpoint.read(kind, state, latest=first_step + self.plan.every)
        teacher = self.labeller.teacher(self.atoms)
        levels = SingleLevel(teacher) if student is None else TwoLevel(teacher, student)
        who = "teacher MD" if student is None else "teacher and student"

        def keep(state: MDState) -> None:
            self.report(f"{who} at {temperature_K:.0f} K", state.step, steps)
            found = state.evaluations[FULL]
            off = torch.linalg.vector_norm(found.forces - state.evaluations[FAST].forces, dim=-1)
            if student is not None and not float(off.max()) <= HOLE_EV_A:
                self._add(state, found, Kind.HOLE, "train", arrays={}, stage=kind)
                raise _Lost
            if state.step % self.plan.every == 0:
                self._checkpoint.write(kind, state)
                self._add(state, found, kind, _split(kind, state.step / steps))

        with suppress(_Lost):
            if state.step > first_step:  # a kill came between the state and its label
                state = levels.evaluate(state, levels.names[0])
                keep(state)
            self._langevin(kind, levels, state, temperature_K, steps - state.step, keep)

    def _lost(self, kind: Kind) -> bool:
        """Tell whether the student was lost in this stage, so that the teacher goes on alone."""
        return any(f.info.get("stage") == kind for f in self.labels.of(Kind.HOLE, self.system))

    def _langevin(
        self,
        kind: Kind,
        levels: SingleLevel | TwoLevel,
        state: MDState,
        temperature_K: float,
        steps: int,
        keep: StepObserver,
    ) -> MDState:
        n = INNER_STEPS if isinstance(levels, TwoLevel) else 1
        return run(
            state,
            levels,
            respa_baoab(n) if isinstance(levels, TwoLevel) else baoab(),
            steps=steps,
            timestep=n * TIMESTEP_FS,
            bath=Bath.from_temperature(
                temperature_K=temperature_K, friction_per_ps=EQUILIBRATION_FRICTION_PER_PS
            ),
            seed=self.seed + DYNAMICS.index(kind),
            on_step=keep,
        )

    def _add(
        self,
        state: MDState,
        found: Evaluation,
        kind: Kind,
        split: str,
        arrays: dict[str, np.ndarray] | None = None,
        **info: Any,
    ) -> None:
        """Keep a frame of dynamics with the teacher's answer, by default with its velocities."""
        self.labels.add(
            self._frame(state),
            kind=kind,
            split=split,
            system=self.system,
            energy_eV=float(found.energy),
            forces_eV_A=found.forces.numpy(),
            arrays={"velocities_A_fs": state.velocities.numpy()} if arrays is None else arrays,
            info={**kept_info(self.atoms), "step": state.step, **info},
        )

    def _state(self, atoms: Atoms, temperature_K: float, step: int) -> MDState:
        has_hydrogen = bool((atoms.numbers == 1).any())
        masses_Da = repartitioned_masses(self.atoms, HYDROGEN_MASS_DA if has_hydrogen else 0.0)
        here = self.atoms.copy()  # whose constraints labels lack
        here.positions = atoms.positions
        state = thermal_state(here, masses_Da, temperature_K=temperature_K, seed=self.seed)
        if atoms.has("velocities_A_fs"):
            state = replace(state, velocities=torch.tensor(atoms.get_array("velocities_A_fs")))
        return replace(state, step=step)

    def _frame(self, state: MDState) -> Atoms:
        frame = self.atoms.copy()
        frame.positions = state.positions.numpy()
        return frame


def _split(kind: Kind, share: float) -> str:
    return block(share) if kind == Kind.MD else "train"
