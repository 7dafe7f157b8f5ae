"""Systems that are too big for the teacher: snapshots by a student, labels on fragments of them."""

import statistics
import time
from functools import partial
from pathlib import Path

import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.label_file import append, complete_frames, drop_what_follows
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.sampling.displaced import label_displaced
from mts_driver.distillation.sampling.fragments import fragments
from mts_driver.distillation.sampling.sampler import HYDROGEN_MASS_DA, TIMESTEP_FS
from mts_driver.distillation.sampling.schedule import SamplingPlan
from mts_driver.errors import UserError
from mts_driver.potentials.timing import milliseconds_per_call
from mts_driver.progress import Progress
from mts_driver.simulation.equilibrate import equilibrate
from mts_driver.simulation.relax import relax
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of
from mts_driver.structures.topology import topology

RELAX_STEPS = 200
SNAPSHOTS, FIRST_PS, SPACING_PS = 6, 1.0, 0.3
TEST_SNAPSHOTS = 1
"""The last; none of its fragments is trained on."""
COMPLETE_A = 5.0
"""An atom's force counts if all within this distance of it are in the fragment."""
TIMED_PIECES = 4
FRAGMENT_SHARE = 0.5
"""Share of the calls that goes to undisturbed fragments, the rest to displaced ones."""


class FragmentSampler:
    """Samples a big system by fragments, with the arguments of `Sampler` and more.

    Parameters
    ----------
    student : Potential
        Bound to the whole system; its dynamics makes the snapshots.
    radius_A : float
        Of the fragments, Å.
    snapshots : Path
        Where the snapshots are kept.
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
        student: Potential,
        radius_A: float,
        snapshots: Path,
    ) -> None:
        self.atoms, self.system, self.labeller, self.plan = atoms, system, labeller, plan
        self.labels, self.seed, self.report = labeller.labels, seed, report
        self.student, self.radius_A, self.snapshots = student, radius_A, snapshots
        self.bonds = topology(atoms)
        _require_its_charge(atoms, int(self.bonds.charges.sum()))

    @staticmethod
    def costs(
        atoms: Atoms, radius_A: float, labeller: Labeller, student: Potential
    ) -> tuple[float, float]:
        """Time of all snapshots, s, and of one label, ms, most of it for lists that serve once."""
        picoseconds = FIRST_PS + (SNAPSHOTS - 1) * SPACING_PS
        steps = RELAX_STEPS + 1e3 * picoseconds / TIMESTEP_FS
        snapshots_s = 1e-3 * steps * milliseconds_per_call(student, atoms)
        times = []
        for piece in fragments(
            atoms, count=TIMED_PIECES, seed=0, radius_A=radius_A, complete_A=COMPLETE_A
        ):
            started = time.perf_counter()
            labeller.teacher(piece)(torch.tensor(piece.positions), cell_of(piece))
            times.append(time.perf_counter() - started)
        return snapshots_s, 1e3 * statistics.median(times[1:])  # the first compiles kernels

    @staticmethod
    def frames(plan: SamplingPlan) -> int:
        """Return how many labels a plan makes."""
        return SNAPSHOTS * _a_snapshot(plan) + plan.displaced

    def run(self) -> None:
        """Make snapshots, label fragments of them, then displaced fragments."""
        count = _a_snapshot(self.plan)
        labelled = {
            (int(f.info["snapshot"]), int(f.info["center"]))
            for f in self.labels.of(Kind.MD, self.system)
        }
        for k, snapshot in enumerate(self._take_snapshots()):
            pieces = fragments(
                snapshot,
                count=count,
                seed=self.seed + k,
                radius_A=self.radius_A,
                complete_A=COMPLETE_A,
                bonds=self.bonds,
            )
            for n, piece in enumerate(pieces):
                if (k, piece.info["center"]) not in labelled:
                    self.labeller.label(
                        piece,
                        kind=Kind.MD,
                        split="train" if k < SNAPSHOTS - TEST_SNAPSHOTS else "test",
                        system=self.system,
                        snapshot=k,
                        center=piece.info["center"],
                    )
                self.report("fragments", k * count + n + 1, SNAPSHOTS * count)
        label_displaced(self.labeller, self.plan, self.system, seed=self.seed, report=self.report)

    def _take_snapshots(self) -> list[Atoms]:
        """Return snapshots of the student's dynamics; those of an earlier run are kept."""
        taken = list(complete_frames(self.snapshots))
        drop_what_follows(taken, self.snapshots)
        masses_Da = repartitioned_masses(self.atoms, HYDROGEN_MASS_DA)
        for k in range(len(taken), SNAPSHOTS):
            start = taken[-1] if taken else self._relaxed()
            start.set_constraint(self.atoms.constraints)
            atoms = equilibrate(
                start,
                masses_Da,
                self.student,
                temperature_K=self.plan.temperature_K,
                picoseconds=SPACING_PS if taken else FIRST_PS,
                timestep_fs=TIMESTEP_FS,
                seed=self.seed + k,
                report=partial(self._tell, k),
            )
            snapshot = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            taken.append(append(self.snapshots, snapshot))
        return taken

    def _tell(self, snapshot: int, step: int, steps: int) -> None:
        self.report("snapshots by the student", snapshot + step / steps, SNAPSHOTS)

    def _relaxed(self) -> Atoms:
        relaxed, _ = relax(
            self.atoms,
            self.student,
            steps=RELAX_STEPS,
            report=lambda k, f: self.report("relaxation", k, RELAX_STEPS),
        )
        self.report("relaxation", RELAX_STEPS, RELAX_STEPS)
        return relaxed


def _a_snapshot(plan: SamplingPlan) -> int:
    """How many undisturbed fragments come from a snapshot."""
    return max(1, int(FRAGMENT_SHARE * plan.calls) // SNAPSHOTS)


def _require_its_charge(atoms: Atoms, found: int) -> None:
    """Require that fragments, whose charges follow from their bonds, add up to the system's."""
    said = int(atoms.info.get("charge", 0))
    if said not in (0, found):
        raise UserError(
            f"structure {atoms.info.get('system')!r} has a charge of {said:+d} e, but the formal "
            f"charges of its fragments add up to {found:+d} e: correct the header, or label it "
            "whole with --fragment-radius-A 0."
        )
