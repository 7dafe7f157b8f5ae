"""Gradients through trajectories: how exact, how reversible, how dear, and what they find.

Every measurement is made in a process of its own, so that its peak memory is its own.
"""

import tempfile
from pathlib import Path
from typing import Any

from ase.io import write

from mts_driver.bench import gradient_runs as runs
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.gradient_systems import SYSTEMS
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.errors import UserError

DEFAULTS: dict[str, Any] = {"steps": 10_000}
EXACT_STEPS = {"harmonic": 300, "Lennard-Jones": 200, "water": 100, "student": 100}
"""Short of where chaos has multiplied rounding by more than a hundred."""
RETURN_STEPS = 1000
PRECISIONS = (("float64", RETURN_STEPS), ("float32", RETURN_STEPS), ("float32", None))
"""Types of numbers, and after how many steps the way back starts anew; None: as is found."""
LENGTHS = (10, 100, 1_000, 10_000, 100_000)
MOST_MB = 8_000.0
"""Of autograd; a trajectory ten times as long is not tried beyond a tenth of it."""
COLUMNS: Columns = {
    "what": ("what", ""),
    "system": ("system", ""),
    "ensemble": ("ensemble", ""),
    "method": ("method", ""),
    "steps": ("steps", "d"),
    "updates": ("updates", "d"),
    "off": ("relative_error", ".1e"),
    "returns to (Å)": ("return_error_A", ".1e"),
    "anchor every": ("anchor_every", "d"),
    "s": ("seconds", ".2f"),
    "× forward": ("times_forward", ".2f"),
    "peak MB": ("peak_MB", ".0f"),
    "steps to 1 %": ("to_1_percent_steps", "d"),
    "s to 1 %": ("to_1_percent_s", ".0f"),
    "effective share": ("effective_share", ".2f"),
}
"""× forward: whole gradient, both ways, over the run without one."""


def measure(settings: BenchSettings) -> Result:
    """Measure exactness, reversibility, memory and time against length, and recovery."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        structure = str(Path(folder) / "start.extxyz")
        write(structure, settings.structure)

        def ask(what: str, function: Any, **arguments: Any) -> list[dict[str, Any]]:
            label = ", ".join(str(value) for value in arguments.values() if value is not None)
            settings.report(f"{what}: {label}")
            try:
                found = call_fresh(
                    function, threads=settings.threads, structure=structure, **arguments
                )
            except UserError as error:
                notes.append(f"{what}, {label}: {error}")
                return []
            new = [{"what": what, **row} for row in (found if isinstance(found, list) else [found])]
            rows.extend(new)
            return new

        for system in SYSTEMS:
            for ensemble in ("NVE", "NVT"):
                steps = min(EXACT_STEPS[system], settings.steps or 10_000)
                ask("exact", runs.exactness, system=system, ensemble=ensemble, steps=steps)
        for dtype, anchor_every in PRECISIONS:
            for ensemble in ("NVE", "NVT"):
                more: dict[str, Any] = {
                    "dtype": dtype,
                    "anchor_every": anchor_every,
                    "steps": RETURN_STEPS,
                }
                ask("returns", runs.reversibility, system="water", ensemble=ensemble, **more)
        for method in ("reversible", "autograd"):
            for steps in LENGTHS:
                if steps > (settings.steps or 0):
                    break
                found = ask("length", runs.length, method=method, steps=steps)
                if not found or (method == "autograd" and found[0]["peak_MB"] > 0.1 * MOST_MB):
                    break
        for off in (0.2, -0.2):
            for method in ("reversible", "reweighting"):
                more = {"method": method, "updates": 200, "picoseconds": 1.0}
                ask("recovery", runs.recovery, off=off, **more)
    about = environment(settings) | {"atoms": None}
    return Result("gradients", about, rows, notes)
