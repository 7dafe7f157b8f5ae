"""Labels for all systems of a distillation, within their share of its budget."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.sampling.droplets import droplets
from mts_driver.distillation.sampling.fragment_sampler import FragmentSampler
from mts_driver.distillation.sampling.sampler import Sampler
from mts_driver.distillation.sampling.schedule import SamplingPlan, calls_for
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.distillation.state_file import file_name
from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import Student
from mts_driver.potentials.timing import milliseconds_per_call
from mts_driver.progress import Progress

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
    settings: DistillationSettings,
    labeller: Labeller,
    base: StudentModel | None,
    work: Path,
    student: str,
    report: Progress,
) -> float:
    """Label frames of every system until its share of the budget is spent, as planned at first.

    Returns the time that all sessions have spent on it for ``student``, s: another one that is made
    from the same labels has all its time for the training.

    Raises
    ------
    UserError
        If a system has to be cut into fragments and there is no student ``base`` to run it, the
        frames are too few for all systems, or the labels were planned for another number of them.
    """
    # the first run's plan is kept, so that a resumed one does not start new stages
    plan_file = work / "plan.json"
    plan = _plan(plan_file, settings)
    planned, spent = plan["calls"], plan["sampling_s"]
    queue = list(systems)
    # fragments are centred on solutes as it is
    whole = [] if base is None else [a for a in systems if not fragment_radius_A(a, settings)]
    parts = len(systems) + len(droplets(whole))
    _check_frames(systems, settings, parts)
    for number, atoms in enumerate(queue):  # which grows by droplets
        name, started = str(atoms.info["system"]), time.monotonic()

        def tell(what: str, done: float, total: float, number: int = number) -> None:
            several = f", system {number + 1} of {parts}" if parts > 1 else ""
            labels = len(labeller.labels.frames)
            of = "" if settings.frames is None else f", {labels} of {settings.frames} frames"
            report(what + several + of, done, total)

        radius_A = fragment_radius_A(atoms, settings)
        runner = _runner(base, atoms) if base is not None or radius_A else None
        sampler: Callable[..., Sampler | FragmentSampler] = Sampler
        if radius_A:
            assert runner is not None
            snapshots = work / f"{file_name(name)}-snapshots.extxyz"
            sampler = partial(
                FragmentSampler, student=runner, radius_A=radius_A, snapshots=snapshots
            )
        elif runner is not None:
            steps = _settling_steps(runner, atoms, settings, parts)
            sampler = partial(Sampler, runner=runner, settling_steps=steps)
        if name not in planned:
            planned[name] = _calls(atoms, settings, parts, labeller, runner, radius_A)
            write_json(plan_file, plan)
        calls = SamplingPlan(temperature_K=settings.temperature_K, calls=planned[name])
        sampler(atoms, name, labeller, calls, seed=settings.seed, report=tell).run()
        if base is not None and not radius_A:
            settled = labeller.labels.of(Kind.EQUIL, name)[-1:] or [atoms]
            queue += droplets(settled)
        spent[student] = spent.get(student, 0.0) + time.monotonic() - started
        write_json(plan_file, plan)
    return float(spent.get(student, 0.0))


def fragment_radius_A(atoms: Atoms, settings: DistillationSettings) -> float:
    """Return the radius of the pieces that a system is cut into, Å; 0: sampled as a whole."""
    if settings.fragment_radius_A is not None:
        return settings.fragment_radius_A
    return FRAGMENT_RADIUS_A if len(atoms) > WHOLE_ATOMS else 0.0


def _plan(file: Path, settings: DistillationSettings) -> dict[str, Any]:
    if not file.exists():
        return {"frames": settings.frames, "calls": {}, "sampling_s": {}}
    plan: dict[str, Any] = read_json(
        file, keys=("calls", "sampling_s"), remedy="give another --work folder."
    )
    frames = plan.get("frames")
    if settings.frames is not None and settings.frames != frames:
        was = "--minutes" if frames is None else f"--frames {frames}"
        raise UserError(
            f"--frames {settings.frames}: the labels in '{file.parent}' were planned with {was}, "
            "which decides what is held out: give the same, or another --work folder."
        )
    return plan


def _check_frames(systems: Sequence[Atoms], settings: DistillationSettings, parts: int) -> None:
    """Require enough frames for a test block of every system."""
    if settings.frames is None:
        return
    least = SamplingPlan(temperature_K=settings.temperature_K, calls=1)
    fewest = max(_sampler(fragment_radius_A(a, settings)).frames(least) for a in systems)
    if settings.frames < parts * fewest:
        each = f" for {parts} systems, droplets included" if parts > 1 else ""
        raise UserError(
            f"--frames {settings.frames} leaves none to be held out{each}: give at least "
            f"{parts * fewest}."
        )


def _sampler(radius_A: float) -> type[Sampler | FragmentSampler]:
    return FragmentSampler if radius_A else Sampler


def _calls(
    atoms: Atoms,
    settings: DistillationSettings,
    parts: int,
    labeller: Labeller,
    runner: Student | None,
    radius_A: float,
) -> int:
    """How many teacher calls one of so many systems gets."""
    if settings.frames is not None:
        count = _sampler(radius_A).frames
        return calls_for(settings.frames // parts, count, settings.temperature_K)
    # snapshots of a system that is cut come off its time first
    if not radius_A:
        first_s = 0.0
        label_ms = BESIDE_TEACHER * milliseconds_per_call(labeller.teacher(atoms), atoms)
    else:
        assert runner is not None
        first_s, label_ms = FragmentSampler.costs(atoms, radius_A, labeller, runner)
    seconds = _share_s(settings, parts) - first_s
    return max(FEWEST_CALLS, int(seconds * 1e3 / label_ms))


def _settling_steps(
    runner: Student, atoms: Atoms, settings: DistillationSettings, parts: int
) -> int:
    if settings.minutes is None:
        return MOST_SETTLING_STEPS
    call_s = 1e-3 * milliseconds_per_call(runner, atoms)
    affordable = SETTLING_SHARE * _share_s(settings, parts) / call_s
    return min(int(affordable), MOST_SETTLING_STEPS)


def _share_s(settings: DistillationSettings, parts: int) -> float:
    """Time for one of so many systems, s."""
    assert settings.minutes is not None
    return SAMPLING_SHARE * settings.minutes * 60 / parts


def _runner(base: StudentModel | None, atoms: Atoms) -> Student:
    if base is None:
        raise UserError(
            f"structure {atoms.info['system']!r} has {len(atoms)} atoms and is cut into fragments, "
            "whose snapshots come from a student: give one with --from, such as general."
        )
    return Student(base, atoms.numbers)
