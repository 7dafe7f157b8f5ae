"""What lies between the models: the share of a run that is spent outside them, by transport."""

from typing import Any

from mts_driver.bench.ipi_runs import Variant
from mts_driver.bench.rounds import SPEED_COLUMNS
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.speedup import time_variants
from mts_driver.bench.table import Columns, Result, environment

TRANSPORTS = {
    "torch engine, one process": "none",
    "i-PI, outer steps in the driver (zmq)": "device",
    "i-PI, inner loop in the driver (zmq)": "zmq",
    "i-PI, shared memory": "shm",
    "i-PI, unix sockets": "unix",
}
DEFAULTS: dict[str, Any] = {"outer_fs": (6.0,), "inner_fs": 1.0}
COLUMNS: Columns = {
    "variant": ("variant", ""),
    **SPEED_COLUMNS,
    "teacher ms": ("teacher_ms", ".1f"),
    "student ms": ("student_ms", ".2f"),
    "overhead": ("overhead_fraction", ".1%"),
    "ms an outer step": ("overhead_ms_an_outer_step", ".1f"),
}


def measure(settings: BenchSettings) -> Result:
    """Time the same run with every transport, in turn."""
    outer_fs = settings.the_outer_fs()
    todo = [
        Variant(
            label=label,
            teacher=settings.teacher,
            student=settings.student,
            outer_fs=outer_fs,
            inner_fs=settings.inner_fs,
            hydrogen_mass=4.0,
            mode=mode,
            device=settings.device,
            threads=settings.threads,
        )
        for label, mode in TRANSPORTS.items()
    ]
    todo[0].protocol(1)  # time steps that do not fit are reported before anything runs
    rows, notes = time_variants(todo, settings)
    for row in rows:
        row["overhead_ms_an_outer_step"] = (
            None
            if row["overhead_fraction"] is None
            else row["overhead_fraction"] * row["s_per_ps"] * outer_fs  # s/ps is ms/fs
        )
    return Result("overhead", environment(settings), rows, notes)
