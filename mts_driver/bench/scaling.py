"""Weak scaling, counted: what ranks tell each other as the system grows with them.

Processes may share cores, since only a single one is timed. From the counts follows a model of many
ranks on a large system, whose assumptions are printed with it.
"""

import math
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from integrators.noise import CounterNoise
from mts_driver.bench.boxes import box_of
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.kernels import student_label
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.errors import UserError
from mts_driver.potentials.load import load_potential
from mts_driver.potentials.ranks.exchange import Ints, Ranks
from mts_driver.potentials.ranks.potential import SharedPotential
from mts_driver.runs.driver_process import mpiexec

DEFAULTS: dict[str, Any] = {
    "atoms": (648,),
    "ranks": (1, 2, 4, 8),
    "model_atoms": 1_000_000,
    "model_ranks": 64,
    "rank_speed": 50.0,
    "link_GB_s": 25.0,
    "latency_us": 10.0,
}
COLUMNS: Columns = {
    "model": ("model", ""),
    "ranks": ("ranks", "d"),
    "atoms": ("atoms", "d"),
    "most of a rank": ("own_most", "d"),
    "ms": ("ms", ".1f"),
    "MB sent, mean": ("sent_MB", ".3f"),
    "most": ("sent_most_MB", ".3f"),
    "messages": ("messages", ".0f"),
    "MB added up": ("added_MB", ".3f"),
    "efficiency": ("efficiency", ".2f"),
}
CALLS, NOISE_ATOMS = 5, 200_000
NEIGHBOURS, SUMS = 26, 6
"""Of a brick, and over all ranks in a call: what is stale or has moved, charges, momenta."""
WORTH = 1.2
"""A doubling of ranks that gains less does not pay."""


def measure(settings: BenchSettings) -> Result:
    """Count for all numbers of ranks, and model the large system."""
    models = {"teacher": settings.teacher, student_label(settings.student): settings.student}
    per_rank = settings.atoms[0]
    rows, notes = [], [_assumptions(settings)]
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        for label, spec in models.items():
            counted = []
            for ranks in sorted({1, *settings.ranks}):
                settings.report(f"{label}, {per_rank * ranks} atoms on {ranks} ranks")
                box = box_of(settings.structures, per_rank * ranks)
                file = Path(folder) / f"{len(box)}.npz"
                np.savez(file, numbers=box.numbers, cell=box.cell.array, x=box.positions)
                under = tuple(mpiexec("bench", str(ranks))) if ranks > 1 else ()
                found = call_fresh(count, threads=1, under=under, model=spec, structure=str(file))
                counted.append({"model": label, "ranks": ranks, "atoms": len(box), **found})
            rows += counted
            # the thermostat is in the inner steps
            modelled = _modelled(counted, settings, noisy=spec == settings.student)
            rows += modelled
            notes.append(_verdict(label, modelled))
    return Result("scaling", environment(settings) | {"atoms": None}, rows, notes)


def count(*, model: str, structure: str) -> dict[str, Any] | None:
    """Evaluate a structure on all ranks, and count what they tell each other in one call.

    Each rank gives the atoms that it moves, as in whole outer steps.

    Parameters
    ----------
    model : str
        Specification as `load_potential` takes it.
    structure : str
        File with ``numbers``, ``cell`` and ``x``, Å.

    Returns
    -------
    dict or None
        On the first rank: ``own_most`` (atoms), ``sent_MB`` and ``sent_most_MB`` (of a rank),
        ``messages``, ``added_MB``; on a single one ``ms`` of a call, and ``noise_ms``, for all
        atoms and one step of the thermostat.

    Raises
    ------
    UserError
        If the model cannot be evaluated where each rank has its own atoms.
    """
    from mts_driver.drivers.mpi import MpiRanks, all_end_together

    data = np.load(structure)
    ranks = MpiRanks()
    with all_end_together(ranks):
        counted = Counted(ranks)
        potential: Any = load_potential(model, data["numbers"].tolist(), ranks=counted)
        if not isinstance(potential, SharedPotential):
            raise UserError(f"{model} does not take steps on ranks: give so3lr or a student.")
        whole, cells = data["x"][None], data["cell"][None]
        x = whole[:, potential.share_out(whole, cells)]
        potential.evaluate_own(x, cells)  # the first time
        counted.reset()
        potential.evaluate_own(x, cells)
        most, total = np.zeros((ranks.size, 2)), np.zeros(2)
        total[:] = most[ranks.rank] = counted.sent_B, counted.messages
        added_MB = counted.added_B / 1e6
        ranks.add_up(most)
        ranks.add_up(total)
        times_ms = []
        for _ in range(CALLS if ranks.size == 1 else 0):
            start = time.perf_counter()
            potential.evaluate_own(x, cells)
            times_ms.append(1e3 * (time.perf_counter() - start))
        many = (NOISE_ATOMS, 3), np.arange(NOISE_ATOMS)
        CounterNoise(1).of_atoms(0, 0, *many)  # the first time
        start = time.perf_counter()
        CounterNoise(1).of_atoms(0, 1, *many)
        noise_ms = 1e3 * (time.perf_counter() - start) * whole.shape[1] / NOISE_ATOMS
    if ranks.rank:
        return None
    return {
        "own_most": math.ceil(whole.shape[1] / ranks.size),
        "ms": float(np.median(times_ms)) if times_ms else None,
        "noise_ms": noise_ms if times_ms else None,
        "sent_MB": total[0] / ranks.size / 1e6,
        "sent_most_MB": most[:, 0].max() / 1e6,
        "messages": total[1] / ranks.size,
        "added_MB": added_MB,
    }


class Counted:
    """Ranks, and what this one has told others since `reset`."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks, self.rank, self.size = ranks, ranks.rank, ranks.size
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.sent_B = self.messages = self.added_B = 0

    def add_up(self, array: np.ndarray) -> None:
        """Add up over all ranks; see `Ranks`."""
        self.added_B += array.nbytes
        self._ranks.add_up(array)

    def swap(self, rows: np.ndarray, sent: Ints, received: Ints) -> np.ndarray:
        """Send rows to others; see `Ranks`."""
        self.sent_B += rows.nbytes
        self.messages += int(np.count_nonzero(sent))
        return self._ranks.swap(rows, sent, received)


@dataclass(frozen=True)
class _Law:
    """Time of a call on P ranks, from what was counted on few."""

    ms_an_atom: float
    noise_ms_an_atom: float
    sent_B: float
    of_atoms: float
    swaps: float
    settings: BenchSettings

    def ms(self, ranks: int) -> float:
        s = self.settings
        own = s.model_atoms / ranks
        work = own * self.ms_an_atom / s.rank_speed
        work += own * self.noise_ms_an_atom / s.rank_speed
        if ranks == 1:
            return work
        # halos grow as the surface of a brick
        told = self.sent_B * (own / self.of_atoms) ** (2 / 3) / s.link_GB_s / 1e6
        sums = SUMS * 2 * math.log2(ranks)
        return work + told + (self.swaps * NEIGHBOURS + sums) * s.latency_us / 1e3


def _modelled(
    counted: list[dict[str, Any]], settings: BenchSettings, *, noisy: bool
) -> list[dict[str, Any]]:
    """Rows of the model: powers of two of ranks, up to those asked for."""
    one, last = counted[0], counted[-1]
    peers = max(last["ranks"] - 1, 1)
    law = _Law(
        one["ms"] / one["atoms"],
        one["noise_ms"] / one["atoms"] if noisy else 0.0,
        1e6 * last["sent_MB"],
        last["own_most"],
        last["messages"] / peers,
        settings,
    )
    alone = law.ms(1)
    return [
        {
            "model": f"{one['model']}, model",
            "ranks": ranks,
            "atoms": settings.model_atoms,
            "own_most": math.ceil(settings.model_atoms / ranks),
            "ms": law.ms(ranks),
            "efficiency": alone / ranks / law.ms(ranks),
        }
        for ranks in (2**k for k in range(int(math.log2(settings.model_ranks)) + 1))
    ]


def _verdict(label: str, modelled: list[dict[str, Any]]) -> str:
    """Say from where on more ranks do not pay."""
    last = modelled[-1]
    for few, many in pairwise(modelled):
        if few["ms"] < WORTH * many["ms"]:
            return (
                f"{label}: beyond {few['ranks']} ranks more do not pay for {few['atoms']} atoms: "
                f"{many['ranks']} would be {few['ms'] / many['ms']:.2f} times as fast"
            )
    return (
        f"{label}: {last['ranks']} ranks pay for {last['atoms']} atoms, with an efficiency of "
        f"{last['efficiency']:.0%}"
    )


def _assumptions(s: BenchSettings) -> str:
    return (
        f"the model, of whole outer steps: a rank is {s.rank_speed:g} times as fast as this one, "
        f"has {NEIGHBOURS} neighbours, a link of {s.link_GB_s:g} GB/s and a latency of "
        f"{s.latency_us:g} µs; {SUMS} sums over all a call; halos grow as the surface of bricks, "
        "which is more than they do; each rank draws the noise of its atoms in every call of the "
        "student"
    )
