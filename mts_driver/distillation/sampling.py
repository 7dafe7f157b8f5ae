"""Where the student learns: configurations that its dynamics will visit, labelled by the teacher.

Plain molecular dynamics leaves holes: a student that never saw a long O-H bond pushes it further
apart where the teacher pulls it back, and the run ends with a broken bond. So half of the labels
are bent away from equilibrium on purpose, and pairs of frames that differ only by small
displacements along X-H bonds carry the stiffness, on which the usable outer step depends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import FULL, SingleLevel
from integrators.splitting import baoab
from integrators.state import MDState, Potential, initial_state
from mts_driver.distillation.contacts import crowd
from mts_driver.distillation.labels import LabelFile
from mts_driver.structures import hydrogen_bonds_to_heavy, repartitioned_masses
from mts_driver.units import BOLTZMANN_EV_K, EV_FS2_A2_PER_AMU

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``: called after every teacher call or two."""

TIMESTEP_FS = 2.0
HYDROGEN_MASS_DA = 4.0
FRICTION_PER_PS = 10.0
STIFF_DISPLACEMENT_A = 0.02
TRAIN_SHARE, TEST_SHARE = 0.76, 0.2
"""First and last part of the dynamics at the target temperature; what lies between is not used."""


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """How many teacher calls go where.

    Attributes
    ----------
    temperature_K : float
        Target temperature; hot frames come from 1.5 and 2.2 times as much.
    calls : int
        Teacher calls in all, about.
    every : int
        Steps of 2 fs between two kept frames.
    """

    temperature_K: float
    calls: int
    every: int = 5

    @property
    def stretched(self) -> int:
        """Frames with X-H bonds between 0.72 and 2 Å."""
        return max(8, self.calls // 20)

    @property
    def shaken(self) -> int:
        """Frames with random displacements of all atoms."""
        return max(8, self.calls // 25)

    @property
    def contacts(self) -> int:
        """Frames with molecules pushed into one another."""
        return max(8, self.calls // 15)

    @property
    def stiff_pairs(self) -> int:
        """Pairs of frames for the X-H force constants."""
        return max(8, self.calls // 12)

    @property
    def md_steps(self) -> int:
        """Steps of dynamics at the target temperature, equilibration apart."""
        displaced = self.stretched + self.shaken + self.contacts + 2 * self.stiff_pairs
        return (self.calls - displaced) * 5 // 10

    @property
    def hot_steps(self) -> int:
        """Steps at each of the two higher temperatures."""
        return self.md_steps // 4

    @property
    def equilibration_steps(self) -> int:
        """Steps before the dynamics at the target temperature counts as equilibrated."""
        return self.md_steps // 2


class Sampler:
    """Runs the stages of a `SamplingPlan`, each from where an earlier run stopped.

    Parameters
    ----------
    atoms : ase.Atoms
        Relaxed starting structure.
    teacher : Potential
        Bound to these atoms.
    labels : LabelFile
        Receives every labelled frame.
    plan : SamplingPlan
        How much of what.
    seed : int
        Of the noise and all random choices.
    report : callable
        Told about progress.
    """

    def __init__(
        self,
        atoms: Atoms,
        teacher: Potential,
        labels: LabelFile,
        plan: SamplingPlan,
        *,
        seed: int,
        report: Report,
    ) -> None:
        self.atoms, self.teacher, self.labels, self.plan = atoms, teacher, labels, plan
        self.seed, self.report = seed, report
        has_hydrogen = bool((atoms.numbers == 1).any())
        self.bonds = hydrogen_bonds_to_heavy(atoms) if has_hydrogen else np.zeros((0, 2), int)
        masses = repartitioned_masses(atoms, HYDROGEN_MASS_DA if has_hydrogen else 0.0)
        self._masses = torch.tensor(masses * EV_FS2_A2_PER_AMU)
        self._cell = torch.tensor(np.array(atoms.cell))

    def run(self) -> None:
        """All stages: dynamics at the target temperature, hotter, then displaced frames."""
        plan = self.plan
        self._dynamics("equil", plan.equilibration_steps, plan.temperature_K)
        self._dynamics("md", plan.md_steps, plan.temperature_K)
        self._dynamics("warm", plan.hot_steps, 1.5 * plan.temperature_K)
        self._dynamics("hot", plan.hot_steps, 2.2 * plan.temperature_K)
        self._shaken()
        self._contacts()
        if len(self.bonds):
            self._stretched()
            self._stiff()

    def _dynamics(self, kind: str, steps: int, temperature_K: float) -> None:
        """Langevin dynamics at one temperature; continues after the last stored frame."""
        done = self.labels.of(kind)
        earlier = {"md": "equil", "warm": "md", "hot": "warm"}.get(kind)
        # hotter runs start before the test frames, from which they must be independent
        before = [f for f in self.labels.of(earlier or "") if f.info["split"] == "train"]
        last = (done or before or [self.atoms])[-1]
        first_step = len(done) * self.plan.every
        state = self._state(last, temperature_K, first_step)
        rng_seed = self.seed + ["equil", "md", "warm", "hot"].index(kind)

        def keep(state: MDState) -> None:
            if state.step % self.plan.every == 0:
                frame = self._frame(state)
                found = state.evaluations[FULL]
                self.labels.add(
                    frame,
                    kind=kind,
                    split=block(state.step / steps) if kind == "md" else "train",
                    energy_eV=float(found.energy),
                    forces_eV_A=found.forces.numpy(),
                    velocities_A_fs=state.velocities.numpy(),
                    extra={"step": state.step},
                )
            self.report(f"teacher MD at {temperature_K:.0f} K", state.step, steps)

        run(
            state,
            SingleLevel(self.teacher),
            baoab(),
            steps=max(0, steps - first_step),
            timestep=TIMESTEP_FS,
            bath=Bath.from_temperature(
                temperature_K=temperature_K, friction_per_ps=FRICTION_PER_PS
            ),
            seed=rng_seed,
            on_step=keep,
        )

    def _state(self, atoms: Atoms, temperature_K: float, step: int) -> MDState:
        if atoms.has("velocities_A_fs"):
            velocities = torch.tensor(atoms.get_array("velocities_A_fs"))
        else:
            rng = np.random.default_rng(self.seed)
            width = (BOLTZMANN_EV_K * temperature_K / self._masses).sqrt()[:, None]
            velocities = torch.tensor(rng.normal(size=atoms.positions.shape)) * width
        state = initial_state(torch.tensor(atoms.positions), velocities, self._masses, self._cell)
        return MDState(**{**state.__dict__, "step": step})

    def _frame(self, state: MDState) -> Atoms:
        frame = self.atoms.copy()
        frame.positions = state.positions.numpy()
        return frame

    def _shaken(self) -> None:
        """All atoms displaced at random by 0.03 to 0.12 Å."""
        for k, rng, frame in self._sources("shaken", self.plan.shaken):
            frame.positions += rng.normal(size=(len(frame), 3)) * rng.uniform(0.03, 0.12)
            self._label(frame, "shaken", "train")
            self.report("displaced frames", k + 1, self.plan.shaken)

    def _contacts(self) -> None:
        """One molecule in ten turned at random and moved towards a neighbour."""
        for k, rng, frame in self._sources("contacts", self.plan.contacts):
            crowd(frame, rng)
            self._label(frame, "contacts", "train")
            self.report("close contacts", k + 1, self.plan.contacts)

    def _stretched(self) -> None:
        """One X-H bond in eight between 0.72 and 2 Å long."""
        for k, rng, frame in self._sources("stretched", self.plan.stretched):
            chosen = self.bonds[rng.random(len(self.bonds)) < 0.125]
            for hydrogen, heavy in chosen:
                length = rng.uniform(0.72, 2.0)
                bond = frame.get_distance(heavy, hydrogen, mic=True, vector=True)
                frame.positions[hydrogen] += bond * (length / np.linalg.norm(bond) - 1.0)
            self._label(frame, "stretched", "train")
            self.report("stretched X-H bonds", k + 1, self.plan.stretched)

    def _stiff(self) -> None:
        """Pairs of frames with half of the X-H bonds shorter and longer by 0.02 Å."""
        for split, pairs in (
            ("train", self.plan.stiff_pairs),
            ("test", self.plan.stiff_pairs // 6),
        ):
            kind = "stiff" if split == "train" else "stiff-test"
            # a pair whose second half was not labelled is made again
            for k, rng, frame in self._sources(kind, pairs, split=split, frames_each=2):
                chosen = rng.random(len(self.bonds)) < 0.5
                units = np.zeros((len(frame), 3))
                for hydrogen, heavy in self.bonds[chosen]:
                    bond = frame.get_distance(heavy, hydrogen, mic=True, vector=True)
                    units[hydrogen] = bond / np.linalg.norm(bond)
                for sign in (1.0, -1.0):
                    moved = frame.copy()
                    moved.positions += sign * STIFF_DISPLACEMENT_A * units
                    self._label(moved, kind, split, pair=k, sign=sign)
                self.report("X-H force constants", k + 1, pairs)

    def _sources(self, kind, count, *, split="train", frames_each=1):
        """(k, generator, copy of a random frame of dynamics) for what is still to be labelled."""
        pool = [f for f in self.labels.of("md") if f.info["split"] == split]
        if split == "train":
            pool += self.labels.of("warm")
        for k in range(len(self.labels.of(kind)) // frames_each, count):
            rng = np.random.default_rng([self.seed, k, *kind.encode()])
            source = pool[int(rng.integers(len(pool)))]
            yield k, rng, Atoms(source.numbers, source.positions, cell=source.cell, pbc=source.pbc)

    def _label(self, frame: Atoms, kind: str, split: str, **extra: float) -> None:
        found = self.teacher(torch.tensor(frame.positions), self._cell)
        self.labels.add(
            frame,
            kind=kind,
            split=split,
            energy_eV=float(found.energy),
            forces_eV_A=found.forces.numpy(),
            extra=extra,
        )


def block(share: float) -> str:
    """Which part of the data a frame belongs to, after this ``share`` of the dynamics."""
    if share <= TRAIN_SHARE:
        return "train"
    return "test" if share > 1 - TEST_SHARE else "gap"
