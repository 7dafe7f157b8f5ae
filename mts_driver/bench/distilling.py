"""What a distillation gets done in a second: labels of the teacher, and updates of a student."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.bench.settings import BenchSettings
from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.trainer import Trainer, TrainingSet
from mts_driver.potentials.student.model import StudentConfig, StudentModel

COMPILED_AFTER, FEWEST_LABELS = 2, 4
"""Labels that are left out, and those that are timed at least."""
DISPLACEMENT_A = 0.05


def measure_distillation(settings: BenchSettings, *, seconds: float) -> dict[str, Any]:
    """Time labels of displaced copies of the structure, and updates of a new student on them.

    As `mts distill` makes both: the teacher on the device, the student on the CPU.
    """
    atoms, rng = settings.structure, np.random.default_rng(3)
    config = StudentConfig(elements=tuple(sorted(set(atoms.get_chemical_symbols()))))
    with tempfile.TemporaryDirectory() as folder:
        labels = LabelFile(Path(folder) / "labels.extxyz", teacher=settings.teacher)
        labeller = Labeller(settings.teacher, labels, device=settings.device)
        taken_s = list[float]()
        while len(taken_s) < COMPILED_AFTER + FEWEST_LABELS or (
            sum(taken_s[COMPILED_AFTER:]) < seconds
        ):
            frame = atoms.copy()
            frame.calc = None
            frame.positions += rng.normal(0.0, DISPLACEMENT_A, frame.positions.shape)
            start = time.perf_counter()
            labeller.label(frame, kind=Kind.MD, split="train", system="a")
            taken_s.append(time.perf_counter() - start)
        data = TrainingSet.from_labels(labels, config)
        budget, checkpoint = TrainingBudget(seconds=seconds), Path(folder) / "training.safetensors"
        trainer = Trainer(StudentModel(config), data, checkpoint=checkpoint, budget=budget, seed=1)
        trainer.run(lambda *_: None)
    return {
        "label": "distillation",
        "atoms": len(atoms),
        "labels_per_s": 1.0 / float(np.median(taken_s[COMPILED_AFTER:])),
        "updates_per_s": trainer.steps / trainer.elapsed_s,
    }
