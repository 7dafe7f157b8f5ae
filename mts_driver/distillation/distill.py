"""The whole distillation: relax, sample and label, train, report. Every stage can be resumed."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from mts_driver import __version__
from mts_driver.distillation.labels import LabelFile
from mts_driver.distillation.report import Evaluated, draw, milliseconds_per_call
from mts_driver.distillation.sampling import Sampler, SamplingPlan
from mts_driver.distillation.train import Trainer, TrainingSet
from mts_driver.potentials import load_potential
from mts_driver.potentials.fast_student import Student
from mts_driver.potentials.student import StudentConfig, StudentModel
from mts_driver.potentials.student_file import save_student
from mts_driver.relax import relax

SAMPLING_SHARE = 0.35
"""Share of the time budget that goes into labels, the rest into training."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``mts distill`` was asked for; kept with the student.

    Attributes
    ----------
    structure : str
        The file that the atoms came from.
    teacher : str
        Specification for `load_potential`.
    minutes : float
        Wall-clock budget.
    temperature_K : float
        Target temperature.
    channels, hidden : int
        Size of the student.
    seed : int
        Of everything random.
    device : str
        Torch device for the teacher and the training.
    """

    structure: str
    teacher: str
    minutes: float
    temperature_K: float
    channels: int
    hidden: int
    seed: int
    device: str


def distill(
    atoms: Atoms,
    settings: Settings,
    *,
    output: Path,
    work: Path,
    command: str,
    report: Callable[[str, float, float], None],
) -> dict[str, Any]:
    """Make a student of ``settings.teacher`` for ``atoms`` and write it to ``output``.

    Parameters
    ----------
    atoms : ase.Atoms
        Starting structure.
    output : Path
        The student, ``*.safetensors``; the report goes beside it (``.json``, ``.png``).
    work : Path
        Folder for labels and checkpoints; what is there is continued.
    command : str
        What the user typed; kept with the student.
    report : callable
        ``report(what, done, total)`` for a progress bar.

    Returns
    -------
    dict
        The report, also stored in the student's header.

    Raises
    ------
    UserError
        If the teacher does not know an element or fails on a frame.
    """
    started = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    teacher = load_potential(settings.teacher, atoms.numbers, device=settings.device)
    labels = LabelFile(work / "labels.extxyz", teacher=settings.teacher)

    if not labels.frames:
        atoms, _ = relax(atoms, teacher, report=lambda k, f: report("relaxation", k, 200))
        report("relaxation", 200, 200)
    teacher_ms = milliseconds_per_call(teacher, atoms)
    # the first run's plan is kept, so that a resumed one does not start new stages
    plan_file = work / "calls.txt"
    if not plan_file.exists():
        calls = int(SAMPLING_SHARE * settings.minutes * 60e3 / (1.3 * teacher_ms))
        plan_file.write_text(f"{max(200, calls)}\n")
    plan = SamplingPlan(temperature_K=settings.temperature_K, calls=int(plan_file.read_text()))
    Sampler(atoms, teacher, labels, plan, seed=settings.seed, report=report).run()
    sampled = time.monotonic()

    config = StudentConfig(
        elements=tuple(chemical_symbols[z] for z in np.unique(atoms.numbers)),
        channels=settings.channels,
        hidden=settings.hidden,
    )
    torch.manual_seed(settings.seed)
    trainer = Trainer(
        StudentModel(config),
        TrainingSet.from_labels(labels, config),
        checkpoint=work / "training.pt",
        budget_s=max(20.0, settings.minutes * 60 - (sampled - started)),
        seed=settings.seed,
    )
    model = trainer.run(lambda s, f, k: report(f"training, loss {f + k:.4f}", s, trainer.budget_s))
    set_offsets(model, labels)

    student = Student(model, atoms.numbers)
    test = Evaluated.on_test_set(student, labels, config)
    summary = {
        **test.summary(),
        "student_ms": milliseconds_per_call(student, atoms),
        "teacher_ms": teacher_ms,
        "atoms": len(atoms),
        "labels": {k: len(labels.of(k)) for k in sorted({a.info["kind"] for a in labels.frames})},
        "training_steps": trainer.steps,
        "wall_s": time.monotonic() - started,
        "settings": asdict(settings),
        "command": command,
        "mts_driver": __version__,
    }
    save_student(model, output, summary)
    draw(test, summary, output.with_suffix(".png"), title=f"{output.stem}: {settings.teacher}")
    return summary


def set_offsets(model: StudentModel, labels: LabelFile) -> None:
    """Set the free-atom energies of the model, so that energies are near the teacher's."""
    frames = labels.of("md")
    elements = model.config.elements
    counts = [[f.get_chemical_symbols().count(e) for e in elements] for f in frames]
    energies = np.array([f.info["teacher_energy"] for f in frames])
    student = Student(model, frames[0].numbers)
    cell = torch.tensor(np.array(frames[0].cell) * frames[0].pbc[:, None])
    bare = [float(student(torch.tensor(f.positions), cell).energy) for f in frames]
    solution, *_ = np.linalg.lstsq(np.array(counts, float), energies - bare, rcond=None)
    model.offset += torch.tensor(solution)
