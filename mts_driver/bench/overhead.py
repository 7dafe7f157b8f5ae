"""What lies between the models: the share of a run that is spent outside them, by transport."""

from collections.abc import Callable
from typing import Any

from ase import Atoms

from mts_driver.bench.speedup import Variant, environment, time_in_turn

TRANSPORTS = {
    "torch engine, one process": "none",
    "i-PI, inner loop in the driver (zmq)": "zmq",
    "i-PI, shared memory": "shm",
    "i-PI, unix sockets": "unix",
}


def measure(
    atoms: Atoms,
    *,
    teacher: str,
    student: str,
    outer_fs: float,
    rounds: int,
    seconds: float,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Time the same run with every transport, in turn.

    Returns
    -------
    dict
        ``name``, ``environment`` and ``rows``, those of `time_in_turn`.
    """
    todo = [
        Variant(label, teacher, student, outer_fs, 4.0, mode) for label, mode in TRANSPORTS.items()
    ]
    rows = time_in_turn(atoms, todo, rounds=rounds, seconds=seconds, report=report)
    for row in rows:
        outer_steps_a_ps = 1e3 / outer_fs
        spent = row["overhead_fraction"] * row["s_per_ps"] / outer_steps_a_ps
        row["overhead_ms_an_outer_step"] = 1e3 * spent
    return {"name": "overhead", "environment": environment(atoms), "rows": rows}
