"""Variants measured side by side: all of them in turn, again and again."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns
from mts_driver.errors import UserError

FIRST_STEPS = 6
FEWEST_STEPS = 4
SPEED_COLUMNS: Columns = {
    "s per ps": ("s_per_ps", ".2f"),
    "min": ("s_per_ps_min", ".2f"),
    "max": ("s_per_ps_max", ".2f"),
    "ns/day": ("ns_per_day", ".3f"),
}
"""What `speed` fills."""
Run = Callable[[int], dict[str, Any]]
"""``run(steps)`` returns at least ``steps`` and ``wall_s``."""


def in_turn(
    todo: Mapping[str, Run], settings: BenchSettings
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Run everything in turn, ``settings.rounds`` times.

    A first round, whose times are not kept, warms the machine up and finds how many steps take
    ``settings.seconds``; there is none where ``settings.steps`` says it. What fails is left out of
    the next ones.

    Returns
    -------
    dict, dict
        Results of every run by label, and the reasons of those left out.

    Raises
    ------
    UserError
        If nothing could be run; the reason of the first.
    """
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in todo}
    steps = dict.fromkeys(todo, settings.steps or FIRST_STEPS)
    left_out: dict[str, str] = {}
    for k in range(0 if settings.steps is None else 1, settings.rounds + 1):
        for label, run in todo.items():
            if label in left_out:
                continue
            settings.report(f"round {k} of {settings.rounds}: {label}")
            try:
                found = run(steps[label])
            except UserError as error:
                left_out[label] = str(error)
                continue
            if k:
                runs[label].append(found)
            else:
                per_step = found["wall_s"] / found["steps"]
                steps[label] = max(FEWEST_STEPS, round(settings.seconds / per_step))
    if len(left_out) == len(todo):
        raise UserError(next(iter(left_out.values())))
    return runs, left_out


def speed(runs: Sequence[dict[str, Any]], timestep_fs: float) -> dict[str, Any]:
    """Seconds a picosecond (median, min, max) and ns/day of some runs; None without any."""
    if not runs:
        return dict.fromkeys(("s_per_ps", "s_per_ps_min", "s_per_ps_max", "ns_per_day"))
    seconds = [run["wall_s"] / (run["steps"] * timestep_fs / 1000.0) for run in runs]
    return {
        **spread("s_per_ps", seconds),
        "ns_per_day": 86.4 / statistics.median(seconds),
    }


def spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return ``name``, ``name_min`` and ``name_max``: median and extremes, None without values."""
    if not values:
        return dict.fromkeys((name, f"{name}_min", f"{name}_max"))
    return {
        name: statistics.median(values),
        f"{name}_min": min(values),
        f"{name}_max": max(values),
    }


def median_of(runs: Sequence[dict[str, Any]], key: str) -> float | None:
    """Median of one number over the runs that have it."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def ratio(a: float | None, b: float | None) -> float | None:
    """``a/b``, or None where one is missing."""
    return None if a is None or b is None else a / b
