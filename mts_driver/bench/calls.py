"""One model alone, in a process of its own: the time of its calls and the memory they take."""

import contextlib
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from integrators.state import Potential
from mts_driver.bench.boxes import back_and_forth
from mts_driver.bench.eager import EagerStudent
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.processes import free_memory_MB
from mts_driver.structures.files import read_structure
from mts_driver.structures.tensors import cell_of

FEWEST_CALLS, MOST_CALLS = 3, 300
UNTIMED_CALLS = 2
WARM_UP_ATOMS = 96
BEAD_SPREAD_A = 0.05
"""Standard deviation of the beads of a ring polymer about their mean, as of hydrogens."""


def time_calls(
    *,
    model: str,
    trajectory: str,
    seconds: float,
    device: str = "cpu",
    beads: int = 1,
    batched: bool = True,
) -> dict[str, Any]:
    """Evaluate a model along a trajectory, so that its neighbour lists work as in dynamics.

    Parameters
    ----------
    model : str
        Specification as `load_potential` takes it, or ``eager:FILE``, a student in plain torch.
    trajectory : str
        File of `write_trajectory`.
    seconds : float
        How long to go on, between 3 and 300 calls.
    beads : int
        Replicas of every frame, the beads of a ring polymer.
    batched : bool
        Whether one call evaluates all beads; otherwise each has one of its own.

    Returns
    -------
    dict
        ``ms`` for all beads of a frame (mean), ``calls`` (frames) and ``peak_MB``, the memory that
        the calls took beyond that of a process that has the model loaded (Linux; otherwise 0).

    Raises
    ------
    UserError
        If the model cannot be loaded or needs more memory than there is.
    """
    data = np.load(trajectory)
    numbers, cell = data["numbers"].tolist(), torch.from_numpy(data["cell"])
    frames = torch.from_numpy(data["frames"])
    spread = np.random.default_rng(1).normal(0.0, BEAD_SPREAD_A, (beads, len(numbers), 3))
    offsets = torch.from_numpy(spread) if beads > 1 else torch.zeros(1, 1, 3)
    few = load_model(model, numbers[:WARM_UP_ATOMS], device)
    few(frames[0, :WARM_UP_ATOMS], cell)  # loads all code, which is no memory of the calls
    potential = load_model(model, numbers, device)
    if device == "cpu":
        _leave_memory_to_others()
    before_MB = memory_MB(device, reset=True)
    elapsed, calls = 0.0, -UNTIMED_CALLS
    for k in back_and_forth(len(frames)):
        x = frames[k] + offsets
        start = time.perf_counter()
        try:
            if batched:
                potential(x if beads > 1 else x[0], cell)
            else:
                for bead in x:
                    potential(bead, cell)
        except (MemoryError, RuntimeError) as error:
            raise UserError(_why(error)) from error
        calls += 1
        if calls > 0:
            elapsed += time.perf_counter() - start
        if calls >= FEWEST_CALLS and (elapsed > seconds or calls >= MOST_CALLS):
            break
    peak_MB = memory_MB(device) - before_MB
    return {"ms": 1e3 * elapsed / calls, "calls": calls, "peak_MB": peak_MB}


def load_model(spec: str, numbers: Sequence[int], device: str) -> Potential:
    """Load a potential, or a student in plain torch where the specification is ``eager:FILE``."""
    kind, _, file = spec.partition(":")
    return (
        EagerStudent(file, numbers)
        if kind == "eager"
        else load_potential(spec, numbers, device=device)
    )


def forces_of(*, model: str, structure: str, device: str) -> list[list[float]]:
    """Evaluate a model on a structure file; forces (N, 3), eV/Å."""
    atoms = read_structure(structure)
    potential = load_model(model, atoms.numbers.tolist(), device)
    found = potential(torch.tensor(atoms.positions), cell_of(atoms)).forces.detach()
    return found.cpu().double().tolist()


def _leave_memory_to_others() -> None:
    """Have large allocations fail where the machine would otherwise run out of memory."""
    if sys.platform == "linux":
        free_kB = 1024 * (free_memory_MB() or 0.0)
        limit = int(1024 * (_proc("self/status", "VmData") + 0.9 * free_kB))
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _why(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, MemoryError) or "alloc" in text[0] or "out of memory" in text[0]:
        return "needs more memory than is free"
    return f"{type(error).__name__}: {text[0]}"


def memory_MB(device: str, *, reset: bool = False) -> float:
    """Peak memory; with ``reset`` the memory in use now, from which on peaks count."""
    if device.startswith("cuda"):
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform != "linux":
        return 0.0
    if reset:
        with contextlib.suppress(OSError):  # without it, the peak while loading counts too
            Path("/proc/self/clear_refs").write_text("5")
        return _proc("self/status", "VmRSS") * 1024 / 1e6
    return _proc("self/status", "VmHWM") * 1024 / 1e6


def _proc(file: str, key: str) -> float:
    lines = (Path("/proc") / file).read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))
