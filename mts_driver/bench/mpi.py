"""Atoms shared out among ranks: the same call on one process, and on several of one thread each.

Every variant is one driver under mpiexec, as `mts serve --mpi`, along a trajectory of 1 fs a frame.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.bench.boxes import back_and_forth
from mts_driver.bench.calls import FEWEST_CALLS, MOST_CALLS, UNTIMED_CALLS, memory_MB
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.kernels import Box, make_boxes, student_label
from mts_driver.bench.rounds import median_of, ratio, spread
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.runs.driver_process import mpiexec

DEFAULTS: dict[str, Any] = {"atoms": (5184, 12288), "ranks": (1, 2)}
COLUMNS: Columns = {
    "model": ("model", ""),
    "atoms": ("atoms", "d"),
    "ranks": ("ranks", "d"),
    "threads each": ("threads", "d"),
    "ms": ("ms", ".2f"),
    "min": ("ms_min", ".2f"),
    "max": ("ms_max", ".2f"),
    "× one rank": ("times_one_rank", ".2f"),
    "MB a rank": ("peak_MB", ".0f"),
    "of one rank": ("share_of_memory", ".2f"),
    "µeV/Å off": ("difference_ueV_A", ".1f"),
}


def measure(settings: BenchSettings) -> Result:
    """Time teacher and student on all numbers of ranks, and one process with as many threads."""
    most = max(settings.ranks)
    variants = [(ranks, 1) for ranks in sorted({1, *settings.ranks})]
    variants += [(1, most)] if most > 1 else []
    models = {"teacher": settings.teacher, student_label(settings.student): settings.student}
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        boxes = make_boxes(settings, Path(folder))
        cases = [(label, box, *v) for label in models for box in boxes for v in variants]
        runs: dict[Any, list[dict[str, Any]]] = {case: [] for case in cases}
        for k in range(1, settings.rounds + 1):
            for case in cases:
                label, box, ranks, threads = case
                what = f"{label}, {box.atoms} atoms, {ranks} ranks of {threads} threads"
                settings.report(f"round {k} of {settings.rounds}: {what}")
                runs[case].append(_time(models[label], box, ranks, threads, settings.seconds))
    rows = [_row(case, found, runs) for case, found in runs.items()]
    about = environment(settings) | {"atoms": None, "threads": None}  # which stand in the rows
    return Result("mpi", about, rows, [])


def _time(model: str, box: Box, ranks: int, threads: int, seconds: float) -> dict[str, Any]:
    under = mpiexec("bench", str(ranks)) if ranks > 1 else []
    found: dict[str, Any] = call_fresh(
        time_on_ranks,
        threads=threads,
        under=tuple(under),
        model=model,
        trajectory=str(box.trajectory),
        seconds=seconds,
    )
    return found


def _row(case: Any, found: list[dict[str, Any]], runs: dict[Any, Any]) -> dict[str, Any]:
    label, box, ranks, threads = case
    alone = runs[label, box, 1, 1]
    row = {"model": label, "atoms": box.atoms, "ranks": ranks, "threads": threads}
    row |= spread("ms", [one["ms"] for one in found])
    row["peak_MB"] = max(one["peak_MB"] for one in found)
    row["times_one_rank"] = ratio(median_of(alone, "ms"), row["ms"])
    row["share_of_memory"] = ratio(row["peak_MB"], max(one["peak_MB"] for one in alone))
    forces, reference = (np.array(one[0]["forces"]) for one in (found, alone))
    row["difference_ueV_A"] = 1e6 * float(np.abs(forces - reference).max())
    return row


def time_on_ranks(*, model: str, trajectory: str, seconds: float) -> dict[str, Any] | None:
    """Evaluate a model along a trajectory on all ranks.

    Parameters
    ----------
    model : str
        Specification as `load_potential` takes it.
    trajectory : str
        File of `mts_driver.bench.boxes.write_trajectory`.
    seconds : float
        How long to go on, between 3 and 300 calls.

    Returns
    -------
    dict or None
        On the first rank: ``ms`` (mean), ``peak_MB`` (of the rank with most), ``forces`` on the
        first frame (eV/Å).

    Raises
    ------
    UserError
        If the model cannot be loaded.
    """
    from mts_driver.drivers.mpi import MpiRanks, Team, all_end_together

    data = np.load(trajectory)
    frames, cells = data["frames"], data["cell"][None]
    ranks = MpiRanks()
    with all_end_together(ranks):
        team = Team(ranks)
        potential: Any = team.load(model, data["numbers"].tolist())
        before_MB = memory_MB("cpu", reset=True)
        elapsed, forces = 0.0, np.zeros(0)
        if ranks.rank:
            team.follow()
        else:
            forces = potential.evaluate(frames[:1], cells)[1][0]
            calls = -UNTIMED_CALLS
            for k in back_and_forth(len(frames)):
                start = time.perf_counter()
                potential.evaluate(frames[k : k + 1], cells)
                calls += 1
                if calls > 0:
                    elapsed += time.perf_counter() - start
                if calls >= FEWEST_CALLS and (elapsed > seconds or calls >= MOST_CALLS):
                    break
            team.end()
        peaks = np.zeros(ranks.size)
        peaks[ranks.rank] = memory_MB("cpu") - before_MB
        ranks.add_up(peaks)
    if ranks.rank:
        return None
    return {"ms": 1e3 * elapsed / calls, "peak_MB": peaks.max(), "forces": forces.tolist()}
