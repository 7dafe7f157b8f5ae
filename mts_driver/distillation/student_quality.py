"""What a student is worth: drift, force constants and stretched bonds on held-out frames."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.report.results import DistillationReport
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.trainer import CHECKS, Judge
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import Student
from mts_driver.potentials.timing import milliseconds_per_call
from mts_driver.progress import Progress
from mts_driver.time_steps import inner_fs_near
from mts_driver.validation.drift import Drift, nve_respa_drift
from mts_driver.validation.evaluation import Evaluated
from mts_driver.validation.force_constants import ForceConstants, bond_force_constants
from mts_driver.validation.stretch import StretchCurve, stretch_curves

OUTER_STEPS_FS = (4.0, 6.0, 8.0, 10.0)
SCAN_SEEDS = (1, 2, 3)
JUDGE_SEEDS, JUDGE_PS, JUDGE_SHARE = (1, 2), 0.3, 0.5
SCAN_SHARE, SCAN_PS = 0.25, (0.1, 2.0)
"""The drift scan takes this share of the time budget, and runs between so many picoseconds."""
SCAN_CALLS_A_FRAME = 1.0
"""The same where the budget is in steps: teacher calls for every label."""
FRAMES_FOR_CONSTANTS = 2
STRETCHED_SYSTEMS = 4


def drift_judge(
    labels: LabelFile,
    labeller: Labeller,
    settings: DistillationSettings,
    report: Progress,
    budget: TrainingBudget,
) -> Judge | None:
    """Return a function that measures |drift| at the target outer step from held-out frames.

    meV/atom/ps. None where there is no whole system to run, as with fragments, and where it would
    take more than half of the time of the training, or more calls than there are labels.
    """
    frames = _drift_frames(labels)
    if not frames:
        return None
    teacher = labeller.teacher(frames[0])
    calls = len(CHECKS) * len(JUDGE_SEEDS) * 1e3 * JUDGE_PS / settings.outer_fs
    if settings.frames is not None and calls > settings.frames:
        return None
    if (
        budget.seconds is not None
        and 1e-3 * calls * milliseconds_per_call(teacher, frames[0]) > JUDGE_SHARE * budget.seconds
    ):
        return None

    def judge(model: StudentModel) -> float:
        drift = nve_respa_drift(
            frames,
            teacher,
            Student(model, frames[0].numbers),
            outer_fs=settings.outer_fs,
            inner_fs=inner_fs_of(settings.outer_fs),
            picoseconds=JUDGE_PS,
            temperature_K=settings.temperature_K,
            seeds=JUDGE_SEEDS,
            report=lambda what, done, total: report("drift of the student", done, total),
        )
        return abs(drift.mean)

    return judge


def report_on(
    model: StudentModel,
    labels: LabelFile,
    labeller: Labeller,
    settings: DistillationSettings,
    facts: Mapping[str, Any],
    *,
    title: str,
    report: Progress,
) -> DistillationReport:
    """Measure the student, as it will run, on frames and systems that were held out."""

    def student_for(atoms: Atoms) -> Student:
        return Student(model, atoms.numbers)

    test = _held_out(labels)
    frames = _drift_frames(labels)
    largest = frames[0] if frames else max(test, key=len)
    teacher_ms = milliseconds_per_call(labeller.teacher(largest), largest, calls=12)
    drifts: dict[float, Drift] = {}
    if frames:
        outer_fs = sorted({*OUTER_STEPS_FS, settings.outer_fs})
        steps_a_ps = sum(1e3 / fs for fs in outer_fs) * len(SCAN_SEEDS)
        if settings.minutes is None:
            calls = SCAN_CALLS_A_FRAME * (settings.frames or 0)
        else:
            calls = SCAN_SHARE * settings.minutes * 60e3 / teacher_ms
        for outer in outer_fs:
            drifts[outer] = nve_respa_drift(
                frames,
                labeller.teacher(frames[0]),
                student_for(frames[0]),
                outer_fs=outer,
                inner_fs=inner_fs_of(outer),
                picoseconds=float(np.clip(calls / steps_a_ps, *SCAN_PS)),
                temperature_K=settings.temperature_K,
                seeds=SCAN_SEEDS,
                report=report,
            )
    constants, curves = [], dict[str, StretchCurve]()
    rng = np.random.default_rng(settings.seed)
    shown = one_of_each(test)
    for k, frame in enumerate(shown):
        pair = labeller.teacher(frame), student_for(frame)
        if k < STRETCHED_SYSTEMS:
            for curve in stretch_curves(frame, *pair):
                curves.setdefault(curve.bond, curve)
        more = 1 if len(shown) > 1 else FRAMES_FOR_CONSTANTS
        for other in [f for f in test if f.info["system"] == frame.info["system"]][-more:]:
            if len(other) == len(frame) and (other.numbers == frame.numbers).all():
                constants.append(bond_force_constants(other, *pair, rng=rng))
        report("bonds", k + 1, len(shown))
    return DistillationReport(
        title=f"{title}, a student of {settings.teacher}",
        forces=Evaluated.on_frames(test, student_for),
        contacts=Evaluated.on_frames(labels.of(Kind.CONTACTS_TEST), student_for),
        constants=ForceConstants.joined(constants),
        curves=list(curves.values()),
        drifts=drifts,
        student_ms=milliseconds_per_call(student_for(largest), largest, calls=12),
        teacher_ms=teacher_ms,
        facts={"atoms": len(largest), **facts},
    )


def force_rmse(model: StudentModel, labels: LabelFile) -> dict[str, float] | None:
    """Return the errors of another student on the same held-out frames, all and by element."""
    found = Evaluated.on_frames(_held_out(labels), lambda a: Student(model, a.numbers))
    errors: dict[str, float] | None = found.summary()["force_rmse_eV_A"]
    return errors


def _held_out(labels: LabelFile) -> list[Atoms]:
    return [a for a in labels.of(Kind.MD) if a.info["split"] == "test"]


def one_of_each(frames: Sequence[Atoms], most: int = 8) -> list[Atoms]:
    """Return the last frame of every system, at most so many systems, spread over all."""
    last = list({str(f.info["system"]): f for f in frames}.values())
    return last[:: math.ceil(len(last) / most)] if last else []


def _drift_frames(labels: LabelFile) -> list[Atoms]:
    """Held-out frames of the system that is run without a thermostat: the first periodic one."""
    whole = [
        f for f in labels.of(Kind.MD) if f.info["split"] == "test" and not f.has("force_weight")
    ]
    chosen = [f for f in whole if f.pbc.all()] or whole
    frames = [f for f in chosen if f.info["system"] == chosen[0].info["system"]]
    return frames[:: max(1, len(frames) // 3)]


def inner_fs_of(outer_fs: float) -> float:
    """Return the inner step of about 1 fs that fits a whole number of times into the outer one."""
    return inner_fs_near(1.0, outer_fs)
