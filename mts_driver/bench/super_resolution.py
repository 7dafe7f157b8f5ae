"""Frames within gaps of nine molecules, by splines, networks and bridges: how far they are off."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from mts_driver.analysis.vdos import DensityOfStates, density_of_states
from mts_driver.bench.nine_molecules import SMILES, file_of
from mts_driver.bench.table import cpu_name, version_of
from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.load import load_potential
from mts_driver.progress import Progress
from mts_driver.super_resolution.compare import errors
from mts_driver.super_resolution.dense import Found, dense
from mts_driver.super_resolution.files.md17 import made_of
from mts_driver.super_resolution.files.stored import Stored, read_stored
from mts_driver.super_resolution.fillers import Filler, filler
from mts_driver.super_resolution.frames import Frames, Gaps, Piece, gaps
from mts_driver.super_resolution.networks.recurrences import NETWORKS
from mts_driver.super_resolution.train import train
from mts_driver.super_resolution.ways.bridge import Bridged
from mts_driver.super_resolution.ways.splines import SPLINES

ONE_WAY = " one-way"
CALLS = {"student": 0, "student 1 call": 1, "student 3 calls": 3}
MODELS = (*SPLINES, *(k + w for k in NETWORKS for w in ("", ONE_WAY)), "general", *CALLS)
UPDATES = 2000
"""Of a network for gaps of 10 frames; for others as many steps through gaps."""
STUDENT_UPDATES_EACH = 6
"""Updates of a student for one of a network."""
STUDENT_GAP = 20
"""Frames from one that a student is trained on to the next."""
TEST_SHARE = 0.2
ENERGY_FRAMES = 100
SEGMENT_FS = 900.0
ROWS = "rows.json"


def measure(
    folder: Path,
    *,
    molecules: Sequence[str] = (),
    models: Sequence[str] = MODELS,
    gaps: Sequence[int] = (5, 10, 20, 40, 80),
    updates: int | None = None,
    report: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Train and fill; rows and models are kept in the folder, and not made twice.

    Parameters
    ----------
    folder : Path
        With trajectories of ``mts superres molecules`` at constant energy.
    molecules : sequence of str
        By default those that are there.
    updates : int, optional
        Of a network for gaps of 10 frames; of others in proportion.

    Raises
    ------
    UserError
        If a molecule or model is not known, or its trajectories are not there.
    """
    for name in models:
        if name not in MODELS:
            raise UserError(f"model={name!r} is not known: use {', '.join(MODELS)}.")
    there = [name for name in SMILES if file_of(folder, name, "nve", 1).exists()]
    chosen = list(molecules) or there
    for name in chosen:
        if name not in there:
            raise UserError(
                f"'{folder}' has no trajectory of {name}: make it with `mts superres molecules`."
            )
    if least := [gap for gap in gaps if gap < 2]:
        raise UserError(f"gaps={least[0]}: give 2 frames or more.")
    if not chosen:
        raise UserError(f"'{folder}' has no trajectories: make them with `mts superres molecules`.")
    count = updates or UPDATES
    kept = _Kept(folder / ROWS)
    todo = [(molecule, gap, model) for molecule in chosen for gap in gaps for model in models]
    for k, (molecule, gap, model) in enumerate(todo):
        if not kept.has(molecule, gap, model, count):
            runs = _runs(folder, molecule)
            tell = _telling(report, f"{molecule}, {gap} frames, {model}", k, len(todo))
            kept.add(_row(folder, runs, molecule, gap, model, count, tell))
    about = {name: version_of(name) for name in ("mts-driver", "torch", "so3krates-torch")}
    rows = [kept.get(*one, count) for one in todo]
    return {
        "environment": {"cpu": cpu_name(), "threads": torch.get_num_threads(), **about},
        "rows": rows,
    }


class _Kept:
    """Rows in a file, each written when it is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        if path.exists():
            self._rows = read_json(path, keys=("rows",), remedy="remove it.")["rows"]

    def has(self, *key: Any) -> bool:
        return any(self._key(row) == key for row in self._rows)

    def get(self, *key: Any) -> dict[str, Any]:
        return next(row for row in self._rows if self._key(row) == key)

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        write_json(self._path, {"rows": self._rows})

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["molecule"], row["gap"], row["model"], row["budget"]


def _telling(report: Progress, what: str, done: int, total: int) -> Progress:
    def tell(stage: str, part: float, whole: float) -> None:
        report(f"rows, {what}: {stage}", done + part / max(whole, 1e-9), total)

    return tell


def _runs(folder: Path, molecule: str) -> list[Path]:
    found = list[Path]()
    while (path := file_of(folder, molecule, "nve", len(found) + 1)).exists():
        found.append(path)
    return found


def _row(
    folder: Path,
    paths: Sequence[Path],
    molecule: str,
    gap: int,
    model: str,
    updates: int,
    report: Progress,
) -> dict[str, Any]:
    runs = [read_stored(path) for path in paths]
    parts = [run.frames.split(TEST_SHARE)[1] for run in runs]
    name, cost = _model(folder, paths, runs, molecule, gap, model, updates, report)
    calls = CALLS.get(model, 0)
    teacher = (made_of(paths[0]) or {}).get("teacher", "so3lr")
    fill = filler(name, runs[0], teacher=teacher if calls else None, teacher_calls=calls)
    report("filling", 0.0, 1.0)
    found, truth, seconds = _filled(fill, parts, gap)
    true, own = (_density(parts, gap, inside) for inside in (truth, found))
    peaks = true.peaks_cm()
    shifts = [float(np.abs(own.peaks_cm() - peak).min()) for peak in peaks]
    frames = sum(a.shape[0] * a.shape[1] for a in found)
    return {
        "molecule": molecule,
        "gap": gap,
        "model": model,
        "budget": updates,
        **asdict(errors(found, truth)),
        "ms_a_frame": 1e3 * seconds / frames,
        "spectrum_overlap": true.overlap(own),
        "largest_peak_shift_cm": max(shifts),
        "energy_error_meV_atom": _energy_error(runs[0], teacher, found[0], truth[0]),
        **cost,
    }


def _model(
    folder: Path,
    paths: Sequence[Path],
    runs: Sequence[Stored],
    molecule: str,
    gap: int,
    model: str,
    updates: int,
    report: Progress,
) -> tuple[str, dict[str, Any]]:
    """Return what a filler is made of, trained if it is not there."""
    if model in SPLINES or model == "general":
        return model, {}
    kind, one_way = model.removesuffix(ONE_WAY), model.endswith(ONE_WAY)
    if model in CALLS:
        kind, apart, count = "student", STUDENT_GAP, STUDENT_UPDATES_EACH * updates
        file = folder / f"{molecule}-student-{count}.safetensors"
    else:
        apart, count = gap, max(1, round(10 * updates / gap))
        way = "one-way" if one_way else "both-ways"
        file = folder / f"{molecule}-{kind}-{way}-{gap}-{count}.safetensors"
    cost: dict[str, Any] = {"updates": count}
    if not file.exists():
        made = train(
            paths,
            file,
            model=kind,
            gap_fs=apart * runs[0].frames.timestep_fs,
            both_ways=not one_way,
            test_share=TEST_SHARE,
            updates=count,
            report=report,
        )
        cost |= {"training_s": made.cost["training_s"]}
    return f"student:{file}" if model in CALLS else str(file), cost


def _filled(
    fill: Filler, parts: Sequence[Frames], gap: int
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    found, truth = list[np.ndarray](), list[np.ndarray]()
    seconds = 0.0
    for k, frames in enumerate(parts):
        between, inside = gaps(frames, gap)
        if k == 0:  # kernels are compiled at the first call
            fill(between.part(0, 2), gap)
        began = time.perf_counter()
        found.append(fill(between, gap).positions_A)
        seconds += time.perf_counter() - began
        truth.append(inside)
    return found, truth, seconds


def _density(parts: Sequence[Frames], gap: int, inside: Sequence[np.ndarray]) -> DensityOfStates:
    """Return that of stored frames and those within the gaps, of each part (gap - 1, G, N, 3)."""
    velocities = list[np.ndarray]()
    for frames, positions in zip(parts, inside, strict=True):
        coarse = frames.part(0, len(frames), gap)
        pieces = dense(
            coarse,
            _known(positions),
            every_fs=frames.timestep_fs,
            leave_out=True,
            found=Found(),
        )
        velocities += _without_gaps(pieces)
    return density_of_states(
        velocities,
        parts[0].inertia,
        interval_fs=parts[0].timestep_fs,
        longest_fs=SEGMENT_FS,
    )


def _known(positions: np.ndarray) -> Filler:
    """Return what fills gaps with frames that are there already."""

    def filled(gaps: Gaps, steps: int) -> Bridged:
        nothing = np.zeros(gaps.left[0].shape[:2])
        return Bridged(positions[:, gaps.first], nothing, nothing)

    return filled


def _without_gaps(pieces: Iterable[Piece]) -> list[np.ndarray]:
    """Velocities of each stretch without an open gap."""
    runs = list[list[np.ndarray]]()
    for piece in pieces:
        if piece.begins:
            runs.append([])
        assert piece.velocities_A_fs is not None
        runs[-1].append(piece.velocities_A_fs)
    return [np.concatenate(run) for run in runs]


def _energy_error(run: Stored, teacher: str, found: np.ndarray, truth: np.ndarray) -> float:
    """Mean error of the teacher's energy, meV an atom, of frames spread over all."""
    flat = [a.swapaxes(0, 1).reshape(-1, *a.shape[2:]) for a in (found, truth)]
    count = min(ENERGY_FRAMES, len(flat[0]))
    some = np.random.default_rng(1).choice(len(flat[0]), count, replace=False)
    potential = load_potential(teacher, run.frames.numbers.tolist(), dtype="float64")
    cell = torch.zeros(3, 3, dtype=torch.float64)
    with torch.no_grad():
        energies = [potential(torch.from_numpy(a[some]), cell).energy.numpy() for a in flat]
    return float(1e3 * np.abs(energies[0] - energies[1]).mean() / len(run.frames.numbers))


COLUMNS: dict[str, tuple[str, str]] = {
    "molecule": ("molecule", ""),
    "gap": ("gap", "d"),
    "model": ("model", ""),
    "mean (Å)": ("mean_error_A", ".1e"),
    "worst (Å)": ("worst_error_A", ".1e"),
    "coordinate (Å)": ("mean_coordinate_error_A", ".1e"),
    "ms a frame": ("ms_a_frame", ".2f"),
    "overlap": ("spectrum_overlap", ".4f"),
    "peak off (1/cm)": ("largest_peak_shift_cm", ".1f"),
    "energy (meV/atom)": ("energy_error_meV_atom", ".2g"),
}


def shown(result: dict[str, Any]) -> Table:
    """Return the rows as a table."""
    table = Table(title=f"super-resolution: {result['environment']['cpu']}")
    for title, (_, form) in COLUMNS.items():
        table.add_column(title, justify="right" if form else "left")
    for row in result["rows"]:
        table.add_row(*[format(row[key], form) for key, form in COLUMNS.values()])
    return table
