"""Labels for all systems of a distillation, within their share of its time."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from mts_driver.distillation.big_systems import FragmentSampler
from mts_driver.distillation.droplets import droplets
from mts_driver.distillation.measure import milliseconds
from mts_driver.distillation.plan import SamplingPlan
from mts_driver.distillation.sampling import Report, Sampler
from mts_driver.distillation.teachers import Labeller
from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.fast_student import Student
from mts_driver.potentials.student import StudentModel

if TYPE_CHECKING:
    from mts_driver.distillation.distill import Settings

SAMPLING_SHARE = 0.4
"""Share of the time budget that goes into labels, the rest into training."""
BESIDE_TEACHER = 1.3
"""Time of a label over that of its teacher call."""
FEWEST_CALLS = 60
WHOLE_ATOMS = 2000
"""Larger systems are cut into fragments."""
FRAGMENT_RADIUS_A = 10.0
SETTLING_SHARE, MOST_SETTLING_STEPS = 0.1, 1000
"""Of the sampling time, for dynamics of the student before the first label, and at most 2 ps."""


def sample(
    systems: Sequence[Atoms],
    settings: "Settings",
    labeller: Labeller,
    base: StudentModel | None,
    work: Path,
    student: str,
    report: Report,
) -> float:
    """Label frames of every system until its share of the time is spent, as planned at first.

    Returns the time that all sessions have spent on it for ``student``, s: another one that is made
    from the same labels has all its time for the training.

    Raises
    ------
    UserError
        If a system has to be cut into fragments and there is no student ``base`` to run it.
    """
    # the first run's plan is kept, so that a resumed one does not start new stages
    plan_file = work / "plan.json"
    plan: dict[str, Any] = {"calls": {}, "sampling_s": {}}
    if plan_file.exists():
        plan = read_json(
            plan_file, keys=("calls", "sampling_s"), remedy="give another --work folder."
        )
    planned, spent = plan["calls"], plan["sampling_s"]
    queue = list(systems)
    # fragments are centred on solutes as it is
    whole = [] if base is None else [a for a in systems if not _fragment_radius_A(a, settings)]
    parts = len(systems) + len(droplets(whole))
    share_s = SAMPLING_SHARE * settings.minutes * 60 / parts
    for number, atoms in enumerate(queue):  # which grows by droplets
        name, started = str(atoms.info["system"]), time.monotonic()

        def tell(what: str, done: float, total: float, number: int = number) -> None:
            several = f", system {number + 1} of {parts}" if parts > 1 else ""
            report(what + several, done, total)

        radius_A = _fragment_radius_A(atoms, settings)
        sampler: Callable[..., Sampler] = Sampler
        runner = None
        if base is not None and not radius_A:
            runner = _runner(base, atoms)
            affordable = SETTLING_SHARE * share_s / (1e-3 * milliseconds(runner, atoms))
            sampler = partial(
                Sampler,
                runner=runner,
                settling_steps=min(int(affordable), MOST_SETTLING_STEPS),
            )
        if radius_A:
            runner = _runner(base, atoms)
            sampler = partial(
                FragmentSampler,
                student=runner,
                radius_A=radius_A,
                snapshots=work / f"{name}-snapshots.extxyz",
            )
        if name not in planned:
            planned[name] = _affordable(atoms, share_s, labeller, runner, radius_A)
            write_json(plan_file, plan)
        calls = SamplingPlan(temperature_K=settings.temperature_K, calls=planned[name])
        sampler(atoms, name, labeller, calls, seed=settings.seed, report=tell).run()
        if base is not None and not radius_A:
            settled = labeller.labels.of("equil", name)[-1:] or [atoms]
            queue += droplets(settled)
        spent[student] = spent.get(student, 0.0) + time.monotonic() - started
        write_json(plan_file, plan)
    return spent[student]


def _fragment_radius_A(atoms: Atoms, settings: "Settings") -> float:
    """Radius of the pieces that a system is cut into, Å; 0 if it is sampled as a whole."""
    if settings.fragment_radius_A is not None:
        return settings.fragment_radius_A
    return FRAGMENT_RADIUS_A if len(atoms) > WHOLE_ATOMS else 0.0


def _affordable(
    atoms: Atoms, seconds: float, labeller: Labeller, runner: Student | None, radius_A: float
) -> int:
    """How many labels fit into the time; snapshots of a system that is cut come off it first."""
    if not radius_A:
        first_s = 0.0
        label_ms = BESIDE_TEACHER * milliseconds(labeller.teacher(atoms), atoms)
    else:
        assert runner is not None
        first_s, label_ms = FragmentSampler.costs(atoms, radius_A, labeller, runner)
    return max(FEWEST_CALLS, int((seconds - first_s) * 1e3 / label_ms))


def _runner(base: StudentModel | None, atoms: Atoms) -> Student:
    if base is None:
        raise UserError(
            f"structure {atoms.info['system']!r} has {len(atoms)} atoms and is cut into fragments, "
            "whose snapshots come from a student: give one with --from, such as general."
        )
    return Student(base, atoms.numbers)
