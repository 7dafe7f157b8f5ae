"""The models alone: what a call costs, how it grows with the system, and the memory it takes.

Every model meets every size in a process of its own, along a trajectory of 1 fs a frame, so that
neighbour lists are kept and rebuilt as in dynamics. A time is the mean over a stretch of calls,
rebuilding included; the spread is over the rounds.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.bench import roofline
from mts_driver.bench.boxes import box_of, write_trajectory
from mts_driver.bench.calculators import packaged_spec
from mts_driver.bench.calls import time_calls
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.rounds import median_of, ratio, spread
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.errors import UserError
from mts_driver.potentials.backends import file_and_options
from mts_driver.potentials.student.file import find_student, read_student
from mts_driver.potentials.student.model import StudentConfig

FRAMES = 100
PATIENCE_S = 300.0
"""How long a model may take to start; compiling kernels on a new machine takes a minute."""
DEFAULTS: dict[str, Any] = {"atoms": (192, 648, 1536, 5184, 12288)}
COLUMNS: Columns = {
    "model": ("model", ""),
    "atoms": ("atoms", "d"),
    "ms": ("ms", ".2f"),
    "min": ("ms_min", ".2f"),
    "max": ("ms_max", ".2f"),
    "µs/atom": ("us_per_atom", ".2f"),
    "× fast teacher": ("times_fast_teacher", ".2f"),
    "peak MB": ("peak_MB", ".1f"),
    "GFlop/s": ("gflop_s", ".1f"),
    "of the roof": ("share_of_roof", ".0%"),
}


@dataclass(frozen=True)
class Box:
    """A system of one size and its file of frames."""

    atoms: int
    trajectory: Path


@dataclass(frozen=True)
class Model:
    """A line of the table: what it is called and what `time_calls` loads."""

    label: str
    spec: str


def measure(settings: BenchSettings) -> Result:
    """Time all models at all sizes, in turn."""
    models = models_of(settings)
    configs = {student_label(spec): _config(spec) for spec in settings.students}
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        boxes = make_boxes(settings, Path(folder))
        rows, peak = _time_all(models, boxes, settings)
        for row in rows:
            if row["model"] in configs and row["ms"] is not None:
                (box,) = [box for box in boxes if box.atoms == row["atoms"]]
                row |= _roofline(configs[row["model"]], box, row["ms"], peak)
    teacher = {row["atoms"]: row["ms"] for row in rows if row["model"] == "teacher"}
    for row in rows:
        row["times_fast_teacher"] = ratio(teacher[row["atoms"]], row["ms"])
    slopes = ", ".join(f"{model} {x:.2f}" for model, x in exponents(rows).items())
    notes = [f"{r['model']}, {r['atoms']} atoms: {r['left_out']}" for r in rows if r["left_out"]]
    notes += [f"time ~ atoms^x, x: {slopes}"] if slopes else []
    notes.append(
        f"the machine: {peak['gflop_s']:.0f} GFlop/s (float32 matrix products), "
        f"{peak['gb_s']:.1f} GB/s (copying)"
    )
    peaks = {f"peak_{key}": value for key, value in peak.items()}
    about = environment(settings) | peaks | {"atoms": None}  # which stand in the rows
    return Result("kernels", about, rows, notes)


def models_of(settings: BenchSettings) -> list[Model]:
    """Return what is measured, the packaged teacher first.

    Raises
    ------
    UserError
        If two students have the same name.
    """
    models = [Model("teacher", settings.teacher)]
    if settings.teacher == "so3lr":
        packaged = Model("teacher, packaged ASE calculator", packaged_spec(settings.device))
        models.insert(0, packaged)
    if settings.device == "cpu":  # elsewhere the student is plain torch anyway
        file = settings.student.partition(":")[2]
        models.append(Model(f"{student_label(settings.student)}, plain torch", f"eager:{file}"))
    models += [Model(student_label(student), student) for student in settings.students]
    labels = [model.label for model in models]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"--student: two are called {label!r}: rename one of the files.")
    return models


def student_label(spec: str) -> str:
    """Return what the table calls a student."""
    return f"student {Path(spec.partition(':')[2]).stem}"


def make_boxes(settings: BenchSettings, folder: Path) -> list[Box]:
    """Boxes of the sizes that were asked for, or the nearest that repeating gives."""
    boxes: dict[int, Box] = {}
    for wanted in sorted(settings.atoms):
        atoms = box_of(settings.structures, wanted)
        if len(atoms) not in boxes:
            settings.report(f"{FRAMES} frames of {len(atoms)} atoms")
            box = Box(len(atoms), folder / f"{len(atoms)}.npz")
            write_trajectory(box.trajectory, atoms, settings.student, frames=FRAMES)
            boxes[box.atoms] = box
    return list(boxes.values())


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log time against log atoms of every model measured at two sizes or more."""
    found = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model and row["ms"]]
        if len(of_model) > 1:
            atoms, ms = ([row[key] for row in of_model] for key in ("atoms", "ms"))
            found[model] = float(np.polyfit(np.log(atoms), np.log(ms), 1)[0])
    return found


def _time_all(
    models: list[Model], boxes: list[Box], settings: BenchSettings
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return a row for every model and box, and the peaks of the machine."""
    cases = {(model.label, box.atoms): _Case(model, box) for model in models for box in boxes}
    peaks = []
    for k in range(1, settings.rounds + 1):
        where: dict[str, Any] = {"threads": settings.threads, "device": settings.device}
        peaks.append(call_fresh(roofline.machine_peak, seconds=1.0, **where))
        for smaller, box in zip([None, *boxes], boxes, strict=False):
            for model in models:
                case = cases[model.label, box.atoms]
                if k == 1 and smaller:
                    case.expect(cases[model.label, smaller.atoms], settings.seconds)
                settings.report(f"round {k} of {settings.rounds}: {model.label}, {box.atoms} atoms")
                case.time(settings)
    found = [case for case in cases.values() if case.runs]
    if not found:
        raise UserError(next(case.left_out for case in cases.values() if case.left_out))
    peak = {key: max(one[key] for one in peaks) for key in peaks[0]}
    return [case.row() for case in cases.values()], peak


class _Case:
    """One model at one size: its runs, or why there are none."""

    def __init__(self, model: Model, box: Box) -> None:
        self.model, self.box = model, box
        self.runs: list[dict[str, Any]] = []
        self.left_out: str | None = None

    def expect(self, smaller: "_Case", seconds: float) -> None:
        """Leave out what the next smaller box says would take too long."""
        if smaller.left_out:
            self.left_out = f"left out already with {smaller.box.atoms} atoms"
            return
        likely_s = 1e-3 * smaller.runs[0]["ms"] * self.box.atoms / smaller.box.atoms
        if likely_s > seconds:
            self.left_out = f"a call would take about {likely_s:.0f} s, --seconds is {seconds:g}"

    def time(self, settings: BenchSettings) -> None:
        """Add a run."""
        if self.left_out:
            return
        try:
            found = call_fresh(
                time_calls,
                threads=settings.threads,
                timeout_s=20 * settings.seconds + PATIENCE_S,
                model=self.model.spec,
                trajectory=str(self.box.trajectory),
                seconds=settings.seconds,
                device=settings.device,
            )
        except UserError as error:
            self.left_out = str(error)
        else:
            self.runs.append(found)

    def row(self) -> dict[str, Any]:
        """Return the line of the table, without the comparisons."""
        ms = spread("ms", [run["ms"] for run in self.runs])
        return {
            "model": self.model.label,
            "atoms": self.box.atoms,
            **ms,
            "us_per_atom": ratio(ms["ms"], 1e-3 * self.box.atoms),
            "peak_MB": median_of(self.runs, "peak_MB"),
            **dict.fromkeys(("gflop", "megabytes", "gflop_s", "share_of_roof")),
            "runs": len(self.runs),
            "left_out": self.left_out,
        }


def _config(student: str) -> StudentConfig:
    """Return the architecture of ``student:FILE``."""
    model, _ = read_student(find_student(file_and_options(student.partition(":")[2])[0]))
    return model.config


def _roofline(
    config: StudentConfig, box: Box, ms: float, peak: dict[str, float]
) -> dict[str, float]:
    """Return the arithmetic of a call, and how near it comes to what the machine can do."""
    data = np.load(box.trajectory)
    neighbors = roofline.neighbors_within(data["frames"][0], data["cell"], config.cutoff_A)
    work = roofline.student_work(config, atoms=box.atoms, neighbors=neighbors)
    gflop_s = 1e-6 * work.flops / ms
    return {
        "gflop": 1e-9 * work.flops,
        "megabytes": 1e-6 * work.bytes,
        "gflop_s": gflop_s,
        "share_of_roof": gflop_s / roofline.attainable_gflop_s(work, peak),
    }
