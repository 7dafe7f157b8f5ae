"""The whole distillation: sample and label, train, measure. Every stage can be resumed."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers

from mts_driver import __version__
from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.label_file import LabelFile, as_read
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.report.write import write_report
from mts_driver.distillation.sampling.sample import sample
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.distillation.student_quality import drift_judge, force_rmse, report_on
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.trainer import Trainer, TrainingSet
from mts_driver.errors import UserError
from mts_driver.potentials.student.file import find_student, read_student, save_student
from mts_driver.potentials.student.model import StudentConfig, StudentModel, check_config
from mts_driver.potentials.student.potential import Student
from mts_driver.progress import Progress
from mts_driver.structures.tensors import cell_of

TIMES = ("student_ms", "teacher_ms", "sampling_s", "training_s", "compile_s", "wall_s")
"""What the report holds and the student does not: two that are alike are the same file."""
FEWEST_TRAINING_S = 20.0


def distill(
    systems: Sequence[Atoms],
    settings: DistillationSettings,
    *,
    output: Path,
    work: Path,
    command: str,
    report: Progress,
    extra: Sequence[Atoms] = (),
    json_file: Path | None = None,
    sampled: bool = False,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Make a student of ``settings.teacher`` for all ``systems`` and write it to ``output``.

    Parameters
    ----------
    systems : sequence of ase.Atoms
        Starting structures, each with a name in ``info['system']``.
    output : Path
        The student, ``*.safetensors``; the report goes beside it (``.json``, ``.png``, ``.html``).
    work : Path
        Folder for labels and checkpoints; what is there is continued.
    command : str
        What the user typed; kept with the student.
    report : callable
        ``report(what, done, total)`` for a progress bar.
    extra : sequence of ase.Atoms
        More frames to learn from, such as those of a run in which a student was wrong.
    json_file : Path, optional
        Another place for the report's numbers.
    sampled : bool
        Whether the labels are there, and only those of ``extra`` are missing.
    checkpoint : Path, optional
        Another place for that of the training.

    Returns
    -------
    dict
        The report, also stored in the student's header, but for the times.

    Raises
    ------
    UserError
        If the teacher does not know an element or fails on a frame of its own dynamics, a
        structure is unusable, or the student to start from does not fit.
    """
    _check_names(systems)
    model, fine_tuning = starting_model(systems, settings)
    work.mkdir(parents=True, exist_ok=True)
    labels = LabelFile(work / "labels.extxyz", teacher=settings.teacher)
    labels.require_same(systems)
    labeller = Labeller(settings.teacher, labels, device=settings.device)
    # a copy: a student takes the gradients off its model, and this one is trained later
    base = copy.deepcopy(model) if fine_tuning else None
    sampling_s = 0.0
    if not sampled:
        sampling_s = sample(systems, settings, labeller, base, work, output.stem, report)
    _label_extra(extra, labeller, report)

    trainer = Trainer(
        model,
        TrainingSet.from_labels(
            labels, model.config, without=settings.without, raise_solutes=fine_tuning
        ),
        checkpoint=checkpoint or training_file(work, output),
        budget=_training_budget(settings, sampling_s),
        seed=settings.seed,
        fine_tuning=fine_tuning,
    )
    total = trainer.budget.total
    judge = drift_judge(labels, labeller, settings, report, trainer.budget)
    report("first step, which compiles kernels on a new machine", 0.0, total)

    def tell(spent: float, force_loss: float, stiffness_loss: float) -> None:
        of = "" if settings.updates is None else f", update {spent:.0f} of {settings.updates}"
        report(f"training{of}, loss {force_loss + stiffness_loss:.4f}", spent, total)

    model = trainer.run(tell, judge)
    set_offsets(model, labels)
    facts = {
        "labels": {k: len(labels.of(k)) for k in sorted({a.info["kind"] for a in labels.frames})},
        "failed_labels": labeller.failed,
        "training_steps": trainer.steps,
        "drift_during_training_meV_atom_ps": [
            [share, value if math.isfinite(value) else None] for share, value in trainer.judged
        ],
        "sampling_s": sampling_s,
        "training_s": trainer.elapsed_s,
        "compile_s": trainer.compile_s,
        "wall_s": sampling_s + trainer.compile_s + trainer.elapsed_s,
        "settings": asdict(settings),
        "command": command,
        "mts_driver": __version__,
    }
    if base is not None:
        facts["force_rmse_before_eV_A"] = force_rmse(base, labels)
    result = report_on(model, labels, labeller, settings, facts, title=output.stem, report=report)
    save_student(model, output, {k: v for k, v in result.summary().items() if k not in TIMES})
    return write_report(result, output, json_file=json_file)


def training_file(work: Path, output: Path) -> Path:
    """Return the checkpoint of the training: several students can share a folder of labels."""
    return work / f"{output.stem}-training.pt"


def _training_budget(settings: DistillationSettings, sampling_s: float) -> TrainingBudget:
    if settings.minutes is None:
        return TrainingBudget(updates=settings.updates)
    return TrainingBudget(seconds=max(FEWEST_TRAINING_S, settings.minutes * 60 - sampling_s))


def _check_names(systems: Sequence[Atoms]) -> None:
    """Require names that are still different in the file of labels."""
    names = [as_read(str(atoms.info["system"])) for atoms in systems]
    for name, atoms in zip(names, systems, strict=True):
        if names.count(name) > 1:
            raise UserError(
                f"{names.count(name)} systems have the name {str(atoms.info['system'])!r}: rename "
                "their files, or give their frames names of their own (info 'system')."
            )


def starting_model(
    systems: Sequence[Atoms], settings: DistillationSettings
) -> tuple[StudentModel, bool]:
    """Return the student to train, and whether it has been trained before."""
    torch.manual_seed(settings.seed)
    elements = {symbol for atoms in systems for symbol in atoms.get_chemical_symbols()}
    if settings.base is not None:
        model, _ = read_student(find_student(settings.base))
        if unknown := sorted(elements - set(model.config.elements)):
            raise UserError(
                f"--from {settings.base}: this student knows {', '.join(model.config.elements)}, "
                f"but the structure holds {', '.join(unknown)}: start from another student, or "
                "from none."
            )
        for name, value in _asked_size(settings).items():
            if value != (own := getattr(model.config, name)):
                raise UserError(
                    f"{name}={value:g}: the student to start from, {settings.base}, has {own:g}, "
                    "and keeps it. Leave the option away, or start from none."
                )
        if settings.direct and not model.config.direct:
            raise UserError(
                f"--direct: the student to start from, {settings.base}, has forces from an energy, "
                "and keeps them. Leave the option away, or start from none."
            )
        return model.to(getattr(torch, settings.dtype)), True
    config = StudentConfig(
        elements=tuple(sorted(elements, key=lambda symbol: atomic_numbers[symbol])),
        direct=settings.direct,
        **_asked_size(settings),
    )
    check_config(config)
    return StudentModel(config).to(getattr(torch, settings.dtype)), False


def _asked_size(settings: DistillationSettings) -> dict[str, Any]:
    names = "cutoff_A", "channels", "messages", "hidden"
    asked = {name: getattr(settings, name) for name in names}
    return {name: value for name, value in asked.items() if value is not None}


def _label_extra(extra: Sequence[Atoms], labeller: Labeller, report: Progress) -> None:
    """Add frames of runs to the labels, with the forces that they carry or new ones."""
    known = labeller.labels.of(Kind.HOLE)
    for k, atoms in enumerate(extra):
        if not any(_is_label_of(label, atoms) for label in known):
            info = {"kind": Kind.HOLE, "split": "train", "system": atoms.info["system"]}
            labeller.label(atoms, **info, origin=atoms.info["origin"])
        report("frames of the run", k + 1, len(extra))


def _is_label_of(label: Atoms, frame: Atoms) -> bool:
    """Tell whether a frame of a run has this label; another student's run can have its number."""
    same = label.info.get("origin") == frame.info["origin"]
    same = same and label.info["system"] == as_read(str(frame.info["system"]))
    same = same and len(label) == len(frame)
    return same and np.allclose(label.positions, frame.positions, rtol=0, atol=1e-6)


def set_offsets(model: StudentModel, labels: LabelFile) -> None:
    """Set the free-atom energies of the model, so that energies are near the teacher's."""
    frames, elements = labels.of(Kind.MD)[::5], model.config.elements
    counts = [[f.get_chemical_symbols().count(e) for e in elements] for f in frames]
    model.offset.zero_()
    students: dict[bytes, Student] = {}
    missing = []
    for f in frames:
        student = students.setdefault(f.numbers.tobytes(), Student(model, f.numbers))
        bare = student(torch.tensor(f.positions), cell_of(f)).energy
        missing.append(f.info["teacher_energy"] - float(bare))
    solution, *_ = np.linalg.lstsq(np.array(counts, float), np.array(missing), rcond=None)
    model.offset += torch.tensor(solution)
