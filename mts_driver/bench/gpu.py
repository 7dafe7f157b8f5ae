"""Models and steps where everything stays on a device: what a user of a GPU gets.

A student is asked for forces, as in an inner step, and a teacher for energies and virials as well.
Lists are apart: what it takes to make all of both models anew, in every other outer step or so.
Runs on the CPU device as well, whose times mean nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from integrators.device.model import DeviceModel
from integrators.device.recorded import Recorded
from mts_driver.bench.boxes import box_of
from mts_driver.bench.distilling import measure_distillation
from mts_driver.bench.ipi_runs import TEMPERATURE_K
from mts_driver.bench.roofline import (
    attainable_gflop_s,
    machine_peak,
    neighbors_within,
    student_work,
)
from mts_driver.bench.rounds import in_turn, ratio, speed
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.backends import is_on_device
from mts_driver.simulation.simulate.run import simulate
from mts_driver.structures.held_bonds import held_pairs
from mts_driver.structures.tensors import cell_of
from mts_driver.time_steps import HELD_INNER_FS, inner_fs_near

DEFAULTS: dict[str, Any] = {
    "atoms": (192, 648, 5184, 20736, 49152),
    "beads": (1, 2, 4, 8, 16, 32),
    "outer_fs": (6.0, 10.0),
    "inner_fs": 1.0,
    "constrained_outer_fs": (12.0,),
    "constrained_inner_fs": HELD_INNER_FS,
    "steps": None,
}
COLUMNS: Columns = {
    "": ("label", ""),
    "atoms": ("atoms", "d"),
    "beads": ("beads", "d"),
    "teacher ms": ("teacher_ms", ".3f"),
    "student ms": ("student_ms", ".3f"),
    "student × teacher": ("ratio", ".1f"),
    "lists ms": ("lists_ms", ".3f"),
    "student, ns an atom": ("student_ns_an_atom", ".1f"),
    "teacher GFlop/s": ("teacher_gflop_s", ".0f"),
    "student GFlop/s": ("student_gflop_s", ".0f"),
    "of its roof": ("student_of_roof", ".0%"),
    "a bead / one alone": ("of_one_alone", ".2f"),
    "peak MB": ("peak_MB", ".0f"),
    "s per ps": ("s_per_ps", ".3f"),
    "min": ("s_per_ps_min", ".3f"),
    "max": ("s_per_ps_max", ".3f"),
    "ns/day": ("ns_per_day", ".2f"),
    "× 1 fs": ("times_1fs", ".2f"),
    "× 2 fs": ("times_2fs", ".2f"),
    "× 4 fs, held": ("times_4fs", ".2f"),
    "outside the models": ("overhead_fraction", ".1%"),
    "labels a second": ("labels_per_s", ".1f"),
    "updates a second, on the CPU": ("updates_per_s", ".1f"),
}
RECORDED_AFTER = 4
"""Steps of a run, which are left out: after two of them all is recorded; and as many more as are
timed, in which lists find how much room they need."""
IN_A_ROW = 10
"""Calls for which the host waits together, as in a step."""
SHARE = 0.1
"""Of ``seconds`` for every number of the models alone, of which there are many."""


@dataclass(frozen=True)
class Way:
    """A way of running the structure."""

    label: str
    options: dict[str, Any]
    n_inner: int


def measure(settings: BenchSettings) -> Result:
    """Time the models alone by size and number of beads, whole outer steps, and a distillation."""
    peak = machine_peak(seconds=SHARE * settings.seconds, device=settings.device)
    rows, notes = [], list[str]()
    for part in (_sizes, _beads):
        found, said = part(settings, peak)
        rows += found
        notes += said
    alone = next((row for row in rows if row["label"] == "beads"), None)
    if alone is None:
        raise UserError("\n".join(notes))
    try:
        rows += _steps(settings, alone, notes)
    except UserError as error:
        notes.append(f"no whole steps: {error}")
    settings.report("distillation")
    rows.append(measure_distillation(settings, seconds=settings.seconds))
    if not settings.device.startswith("cuda"):
        notes.append("on the CPU device, which proves the numbers and not the speed")
    notes.append(
        f"matrix products in float32 reach {peak['gflop_s']:.0f} GFlop/s, copies "
        f"{peak['gb_s']:.0f} GB/s; the roof of the student is the lower of both for its arithmetic "
        "and bytes; of the teacher matrix products alone are counted"
    )
    return Result("gpu", environment(settings) | {"atoms": None}, rows, notes)


def on_device(spec: str) -> str:
    """Return the specification of the same model for a device.

    Raises
    ------
    UserError
        If it is none of ours.
    """
    if spec.partition("?")[0] != "so3lr" and not spec.startswith("student:"):
        raise UserError(f"{spec} has no kernels for a device: use so3lr, and students.")
    return spec if "backend=" in spec else f"{spec}{'&' if '?' in spec else '?'}backend=device"


def time_call(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the median time of a call that waits for nothing, ms; calls follow each other."""
    times, in_a_row = list[float](), IN_A_ROW if device.type == "cuda" else 1
    for _ in range(3):
        call()
    _wait(device)
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < 10_000):
        start = time.perf_counter()
        for _ in range(in_a_row):
            call()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start) / in_a_row)
    return float(np.median(times))


def _time_lists(model: DeviceModel, x: torch.Tensor, seconds: float) -> float:
    """Return the time in which all lists of a model are made anew, ms."""

    def build() -> None:
        model.renew()
        model.rebuild(x)

    call = Recorded(build, model.device) if model.lists_recordable else build
    return time_call(call, model.device, seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matrix_flops(model: DeviceModel, x: torch.Tensor, cells: torch.Tensor) -> int:
    """Count the operations of matrix products in a call."""
    with FlopCounterMode(display=False) as counter:
        model.evaluate(x, cells)
    return int(counter.get_total_flops())


def _both(
    settings: BenchSettings, atoms: Any, replicas: int, peak: dict[str, float]
) -> dict[str, Any]:
    """Time teacher and student on copies of a box."""
    numbers = atoms.numbers.tolist()
    moves = np.random.default_rng(2).normal(0.0, 0.02, (replicas, *atoms.positions.shape))
    device = torch.device(settings.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found: dict[str, Any] = {"atoms": len(atoms), "beads": replicas}
    for role, spec in (("teacher", settings.teacher), ("student", settings.student)):
        model: Any = load_potential(on_device(spec), numbers, device=settings.device)
        assert is_on_device(model)
        x = torch.tensor(atoms.positions + moves, device=device)
        cells = cell_of(atoms).double().to(device).expand(replicas, 3, 3).contiguous()
        model.update(x, cells)
        ask = partial(model.forces if role == "student" else model.evaluate, x, cells)
        call = Recorded(ask, device)
        found[f"{role}_ms"] = time_call(call, device, SHARE * settings.seconds)
        found["lists_ms"] = found.get("lists_ms", 0.0) + _time_lists(
            model, x, SHARE * settings.seconds
        )
        if role == "teacher":
            found["teacher_gflop_s"] = 1e-6 * _matrix_flops(model, x, cells) / found["teacher_ms"]
        else:
            config = model.model.config
            near = neighbors_within(atoms.positions, np.array(atoms.cell), config.cutoff_A)
            work = student_work(config, atoms=replicas * len(atoms), neighbors=replicas * near)
            found["student_gflop_s"] = 1e-6 * work.flops / found["student_ms"]
            roof = attainable_gflop_s(work, peak)
            found["student_of_roof"] = found["student_gflop_s"] / roof
        del model, ask, call
    found["ratio"] = ratio(found["teacher_ms"], found["student_ms"])
    found["student_ns_an_atom"] = 1e6 * found["student_ms"] / len(atoms) / replicas
    if device.type == "cuda":
        found["peak_MB"] = torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.empty_cache()
    return found


def _tried(
    settings: BenchSettings, label: str, todo: list[tuple[Any, int]], peak: dict[str, float]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Time boxes and replicas until one does not fit."""
    rows, notes = [], list[str]()
    for atoms, replicas in todo:
        settings.report(f"{label}: {replicas} × {len(atoms)} atoms")
        try:
            rows.append({"label": label, **_both(settings, atoms, replicas, peak)})
        except (UserError, torch.OutOfMemoryError) as error:
            reason = str(error).split("\n")[0]
            notes.append(f"{label}: {replicas} × {len(atoms)} atoms and more left out: {reason}")
            break
    return rows, notes


def _sizes(
    settings: BenchSettings, peak: dict[str, float]
) -> tuple[list[dict[str, Any]], list[str]]:
    boxes = {len(b): b for b in (box_of(settings.structures, n) for n in sorted(settings.atoms))}
    return _tried(settings, "size", [(box, 1) for box in boxes.values()], peak)


def _beads(
    settings: BenchSettings, peak: dict[str, float]
) -> tuple[list[dict[str, Any]], list[str]]:
    numbers = sorted({1, *settings.beads})
    rows, notes = _tried(settings, "beads", [(settings.structure, n) for n in numbers], peak)
    for row in rows:
        both, alone = (r["teacher_ms"] + r["student_ms"] for r in (row, rows[0]))
        row["of_one_alone"] = both / row["beads"] / alone
    return rows, notes


def ways(settings: BenchSettings) -> list[Way]:
    """Return single steps of a user without us, and ours."""
    pairs = held_pairs(settings.structure)
    lengths = {
        kind: float(np.mean([settings.structure.get_distance(i, j, mic=True) for i, j in found]))
        for kind, found in pairs.items()
    }
    held: dict[str, Any] = {"constrain_hydrogens": True, "bond_lengths_A": lengths}
    single: dict[str, Any] = {"student": "none", "thermostat": "langevin"}
    found = [
        Way("single steps, 1 fs", {**single, "outer_fs": 1.0, "hydrogen_mass_Da": 0.0}, 1),
        Way("single steps, 2 fs, heavy hydrogens", {**single, "outer_fs": 2.0}, 1),
        Way("single steps, 4 fs, held bonds", {**single, "outer_fs": 4.0, **held}, 1),
    ]
    inner_fs = settings.inner_fs
    for outer_fs in settings.outer_fs:
        n = round(outer_fs / inner_fs)
        options = {"outer_fs": outer_fs, "inner_fs": inner_fs}
        found.append(Way(f"MTS, {outer_fs:g}/{inner_fs:g} fs", options, n))
    for outer_fs in settings.constrained_outer_fs:
        inner_fs = inner_fs_near(settings.constrained_inner_fs, outer_fs)
        options = {"outer_fs": outer_fs, "inner_fs": inner_fs, **held}
        label = f"MTS, {outer_fs:g}/{inner_fs:g} fs, held bonds"
        found.append(Way(label, options, round(outer_fs / inner_fs)))
    return found


def _runner(settings: BenchSettings, way: Way) -> Callable[[int], dict[str, Any]]:
    def run(steps: int) -> dict[str, Any]:
        options = {"student": on_device(settings.student), **way.options}
        # a step is launched before the one before has come back: in the last, nothing is
        taken = RECORDED_AFTER + 2 * steps + 1
        try:
            found = simulate(
                settings.structure,
                teacher=on_device(settings.teacher),
                steps=taken,
                stride=taken,
                temperature_K=TEMPERATURE_K,
                device=settings.device,
                seed=1,
                progress=False,
                **options,
            )
        except RuntimeError as error:  # of the device; what was measured before is kept
            raise UserError(str(error).split("\n")[0]) from error
        return {"steps": steps, "wall_s": sum(found.timings.steps_s[-steps - 1 : -1])}

    return run


def _steps(
    settings: BenchSettings, alone: dict[str, Any], notes: list[str]
) -> list[dict[str, Any]]:
    """Time whole outer steps as `mts_driver.simulate` takes them."""
    todo = ways(settings)
    runs, left_out = in_turn({way.label: _runner(settings, way) for way in todo}, settings)
    notes += [f"{label}: {reason}" for label, reason in left_out.items()]
    rows = []
    for way in todo:
        outer_fs = way.options["outer_fs"]
        row = {
            "label": way.label,
            "atoms": len(settings.structure),
            **speed(runs[way.label], outer_fs),
        }
        if row["s_per_ps"] is not None:
            calls = 0 if way.options.get("student") == "none" else way.n_inner
            models_ms = alone["teacher_ms"] + calls * alone["student_ms"]
            row["overhead_fraction"] = 1.0 - models_ms / (row["s_per_ps"] * outer_fs)
        rows.append(row)
    for key, base in (("times_1fs", 0), ("times_2fs", 1), ("times_4fs", 2)):
        for row in rows:
            row[key] = ratio(rows[base]["s_per_ps"], row["s_per_ps"])
    return rows
