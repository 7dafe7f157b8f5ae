"""The numbers that every run ends with."""

import math
from collections.abc import Sequence
from typing import Any

from mts_driver.runs.input.read import RunInput
from mts_driver.runs.measured.single_step_timing import TIMESTEP_FS

_FS_PER_NS, _S_PER_DAY = 1e6, 86400.0


def summarise(run: RunInput, end: dict[str, Any]) -> dict[str, Any]:
    """Turn the engine's last event into ``summary.json``.

    Parameters
    ----------
    run : RunInput
        Names teacher and student.
    end : dict
        The measurements of `RunMonitor.results`, with the baseline, and ``ended_by``: what has
        ended the run before all steps were done.

    Returns
    -------
    dict
        Values that a run cannot give are None, with the reason under ``<key>_reason``. Calls
        include the first structure's and leave out the baseline's; times are those of the
        stepping loop, without start-up.
    """
    steps, wall = end["steps"], end["wall_s"]
    speed = steps * end["timestep_fs"] / _FS_PER_NS / wall * _S_PER_DAY if wall > 0 else 0.0
    found: dict[str, Any] = {
        "completed": end["done"],
        "ended_by": None if end["done"] else end["ended_by"],
        "systems": end["systems"],
        "natoms": end["natoms"],
        "nbeads": end["nbeads"],
        "first_step": end["first_step"],
        "steps": steps,
        "total_steps": end["total_steps"],
        "outer_timestep_fs": round(end["timestep_fs"], 9),
        "n_inner": math.prod(end["nmts"]),
        "wall_s": wall,
        "ns_per_day": speed,
    }
    if end["natoms"] is None:
        found["natoms_reason"] = "the systems have different numbers of atoms"
    found |= _calls("teacher", run.teachers, end) | _calls("student", run.students, end)
    found |= _overhead(run, end)
    found |= {
        key: end[key]
        for key in ("clip_events", "max_force_difference_eV_A", "conserved_drift_meV_atom_ps")
    }
    found |= _holes(end)
    found["hole_events"] = end["hole_events"]
    found["conserved_drift"] = end["conserved_drift_meV_atom_ps"]
    found |= _speedup(run, end, speed)
    for key in ("temperatures_K", "temperatures_second_half_K"):
        found[key] = end[key]
    if end["temperatures_K"] is None:
        found["temperatures_K_reason"] = (
            "no atom moves but with the centre of mass, or there is no thermostat step of "
            "splitting='respa-baoab'"
        )
    return found


def _calls(role: str, names: Sequence[str], end: dict[str, Any]) -> dict[str, Any]:
    """Sum up calls of all teachers, or of all students, where each of them is counted."""
    if not names or not all(name in end["calls"] for name in names):
        return {
            f"{role}_calls": None,
            f"{role}_ms": None,
            f"{role}_reason": f"mts run has not started a driver that is the {role} alone: one "
            "that is started by hand, or a member of an <ffcommittee>, is not counted"
            if names
            else f"no force field has the {role}'s mts_weights "
            f"({'[1, 0]' if role == 'teacher' else '[-1, 1]'})",
        }
    calls, loop_calls, model_s = (
        sum(end[key][name] for name in names) for key in ("calls", "loop_calls", "model_s")
    )
    return {
        f"{role}_calls": calls,
        # calls within a recorded step on a device take no time of their own: it is the teacher's
        f"{role}_ms": 1e3 * model_s / loop_calls if loop_calls and model_s else None,
    }


def _holes(end: dict[str, Any]) -> dict[str, Any]:
    found = {key: end[key] for key in ("holes", "hard_frames", "hole_threshold_eV_A")}
    if end["holes"] is None:
        found["holes_reason"] = "the input has no teacher [1, 0] and student [-1, 1] to compare"
    return found


def _overhead(run: RunInput, end: dict[str, Any]) -> dict[str, Any]:
    launched = {driver.name for driver in run.drivers}
    in_models = sum(end["model_s"].values())
    reason = ""
    if len(launched) < len(run.addresses):
        reason = "some drivers were started by hand, so that their time is not known"
    elif not 0 < in_models <= end["wall_s"]:
        reason = "no steps, or models that ran side by side"
    if reason:
        return {"overhead_fraction": None, "overhead_fraction_reason": reason}
    return {"overhead_fraction": 1.0 - in_models / end["wall_s"]}


def _speedup(run: RunInput, end: dict[str, Any], speed: float) -> dict[str, Any]:
    seconds, reason = end["baseline_s"], end["baseline_reason"]
    if not (run.teachers and run.students):
        seconds, reason = None, "the input has no teacher [1, 0] and student [-1, 1]"
    if seconds is None:
        return {
            "speedup_vs_single_step": None,
            "speedup_vs_single_step_reason": reason or "not measured",
        }
    single = TIMESTEP_FS / _FS_PER_NS / seconds * _S_PER_DAY
    return {
        "single_step_ms": 1e3 * seconds,
        "speedup_vs_single_step": speed / single,
        # a careful user runs single steps of 2 fs with repartitioned masses, or of 4 fs with bonds
        # to hydrogen held as well, at the same cost
        "speedup_vs_single_step_2fs_hmr": speed / single / 2,
        "speedup_vs_single_step_4fs_constrained": speed / single / 4,
    }
