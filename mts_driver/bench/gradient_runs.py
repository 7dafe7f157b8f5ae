"""What `mts bench gradients` measures, each in a process of its own."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from integrators import engine
from integrators.levels import SingleLevel
from integrators.reversible import gradient
from integrators.state import MDState, initial_state
from mts_driver.bench.calls import memory_MB
from mts_driver.bench.gradient_systems import (
    ARGON,
    GradientSystem,
    argon,
    gradient_system,
    liquid,
)
from mts_driver.refinement.averages import averages
from mts_driver.refinement.fit import FitSettings, fit
from mts_driver.refinement.goals import choices
from mts_driver.refinement.goals.goal import Goal, Goals
from mts_driver.refinement.kept import Update
from mts_driver.refinement.methods.autograd import through_autograd
from mts_driver.refinement.methods.differences import Differences
from mts_driver.refinement.methods.reversible import Reversible
from mts_driver.refinement.methods.reweighting import Reweighting
from mts_driver.refinement.problem import Estimate, Method, Problem

SEED = 7
SETTLE_STEPS = 100
GROWTH_BOUND = 1e3


def exactness(*, system: str, ensemble: str, steps: int, structure: str) -> list[dict[str, Any]]:
    """Compare reversal and central differences with autograd through the whole trajectory."""
    of, problem = _problem(system, ensemble, structure, steps, (steps // 2, steps))
    forward = _forward_seconds(of, steps)
    ours, ours_s = _timed(Reversible(), problem, of.start)
    about = {"system": system, "ensemble": ensemble, "steps": steps}
    if system == "student":
        # its kernels carry no graph
        row = {
            "method": "reversible",
            "relative_error": _off_along(problem, of.start, ours),
            "seconds": ours_s,
            "times_forward": ours_s / forward,
            "return_error_A": ours.told["return_error_A"],
        }
        return [about | row]
    graph, graph_s = _timed(through_autograd, problem, of.start)
    # of the first parameter that is one number; a network's weights would take days
    single = next((n for n, p in of.parameters.items() if p.numel() == 1), None)
    rows: list[dict[str, Any]] = [
        {
            "method": "reversible",
            "relative_error": _off(ours, graph),
            "seconds": ours_s,
            "return_error_A": ours.told["return_error_A"],
        },
        {"method": "autograd", "seconds": graph_s},
    ]
    if single is not None:
        one = replace(problem, parameters={single: of.parameters[single]})
        slope, slope_s = _timed(Differences(), one, of.start)
        off = abs(slope.gradients[single] - ours.gradients[single]).item()
        scale = abs(ours.gradients[single]).item()
        rows.append(
            {
                "method": f"differences ({single})",
                "relative_error": off / scale,
                "seconds": slope_s,
            }
        )
    return [about | row | {"times_forward": row["seconds"] / forward} for row in rows]


def reversibility(
    *, system: str, ensemble: str, dtype: str, steps: int, structure: str, anchor_every: int | None
) -> dict[str, Any]:
    """Run forwards and back, and see how far from itself the trajectory returns."""
    of = _settled(gradient_system(system, ensemble=ensemble, structure=structure, dtype=dtype))
    forward = _forward_seconds(of, steps)
    begun = time.perf_counter()
    found = gradient(
        *(of.start, of.levels, of.splitting, of.problem(steps, (steps,)).loss, []),
        steps=steps,
        snapshots=(steps,),
        timestep=of.timestep_fs,
        bath=of.bath,
        seed=SEED if of.bath else None,
        anchor_every=anchor_every,
        growth_bound=GROWTH_BOUND,
    )
    seconds = time.perf_counter() - begun
    return {
        "system": f"{system}, {dtype}",
        "ensemble": ensemble,
        "method": "reversible",
        "steps": steps,
        "return_error_A": found.return_error_A,
        "anchor_every": found.anchor_every,
        "seconds": seconds,
        "times_forward": seconds / forward,
    }


def length(*, method: str, steps: int, structure: str) -> dict[str, Any]:
    """Take a gradient through a trajectory of some length; return time and peak memory."""
    of, problem = _problem("Lennard-Jones", "NVT", structure, steps, (steps,))
    forward = _forward_seconds(of, min(steps, 1000)) * max(steps / 1000, 1.0)
    how: Method = through_autograd
    if method == "reversible":
        how = Reversible(growth_bound=GROWTH_BOUND)
        how(of.problem(4, (4,)), of.start, SEED)
        how = Reversible(growth_bound=GROWTH_BOUND)
    before_MB = memory_MB("cpu", reset=True)
    _, seconds = _timed(how, problem, of.start)
    found = {
        "system": "Lennard-Jones",
        "ensemble": "NVT",
        "method": method,
        "steps": steps,
        "seconds": seconds,
        "times_forward": seconds / forward,
        "peak_MB": memory_MB("cpu") - before_MB,
    }
    if isinstance(how, Reversible):
        found["anchor_every"] = how.anchor_every
    return found


def recovery(
    *, method: str, off: float, updates: int, picoseconds: float, structure: str
) -> dict[str, Any]:
    """Fit epsilon and sigma of a liquid to its own g(r), from a start that is ``off`` wrong."""
    del structure
    atoms, replicas = argon(), 4
    r = torch.arange(2.5, 8.0, 0.05, dtype=torch.float64)
    g = choices.rdf(atoms.get_chemical_symbols(), "Ar", "Ar", r_A=r)
    true = liquid(atoms).requires_grad_(False)
    base = gradient_system("Lennard-Jones", ensemble="NVT", structure="")
    melted = replace(base.problem(1, (1,)), levels=SingleLevel(true), settle_steps=2000)
    start = melted.settled(_replicas(base.start, replicas), SEED)
    steps = round(1000.0 * picoseconds / base.timestep_fs)
    snapshots = tuple(range(20, steps + 1, 20))
    nothing = base.problem(steps, snapshots)
    exact = averages(
        replace(nothing, levels=SingleLevel(true)),
        [g],
        start,
        blocks=60,
        seed=SEED,
    )
    goal = Goal(g, exact.mean[g.name], exact.error[g.name], 0.02)
    model = liquid(atoms, off)
    problem = replace(
        nothing,
        levels=SingleLevel(model),
        parameters=dict(model.named_parameters()),
        loss=Goals([goal]),
        settle_steps=100,
    )
    how: Any = Reweighting() if method == "reweighting" else Reversible(100)
    begun, errors, smallest = time.perf_counter(), [], 1.0

    def keep(_: int, update: Update) -> None:
        nonlocal smallest
        smallest = min(smallest, update.told.get("effective_share", 1.0))
        worst = max(abs(update.averaged[n] / ARGON[n] - 1.0) for n in ARGON)
        errors.append((worst, time.perf_counter() - begun, update.steps_run))

    history, _ = fit(
        *(problem, how, start),
        FitSettings(updates=updates, learning_rate=0.03, decay=0.05, seed=SEED),
        on_update=keep,
    )
    reached = _reached([error for error, *_ in errors])
    return {
        "system": f"Lennard-Jones, start {100 * off:+.0f} %",
        "ensemble": "NVT",
        "method": method,
        "updates": len(history),
        "relative_error": errors[-1][0],
        "steps": sum(update.steps_run for update in history),
        "seconds": errors[-1][1],
        "to_1_percent_steps": None
        if reached is None
        else sum(steps for *_, steps in errors[: reached + 1]),
        "to_1_percent_s": None if reached is None else errors[reached][1],
        "effective_share": smallest if method == "reweighting" else None,
    }


def _reached(errors: list[float], within: float = 0.01) -> int | None:
    """From which update on all errors are within a bound."""
    if errors[-1] > within:
        return None
    outside = [k for k, error in enumerate(errors) if error > within]
    return outside[-1] + 1 if outside else 0


def _problem(
    system: str, ensemble: str, structure: str, steps: int, snapshots: tuple[int, ...]
) -> tuple[GradientSystem, Problem]:
    of = _settled(gradient_system(system, ensemble=ensemble, structure=structure))
    return of, of.problem(steps, snapshots)


def _settled(of: GradientSystem) -> GradientSystem:
    """Let the crystal melt a little, so that no two forces are the same by symmetry."""
    with torch.no_grad():
        problem = replace(of.problem(1, (1,)), settle_steps=SETTLE_STEPS)
        start = problem.settled(of.start, SEED)
    return replace(of, start=start)


def _forward_seconds(of: GradientSystem, steps: int) -> float:
    """Time of a run without gradients; the first steps, with their lists, are not counted."""
    more: dict[str, Any] = {
        "timestep": of.timestep_fs,
        "bath": of.bath,
        "seed": SEED if of.bath else None,
    }
    with torch.no_grad():
        engine.run(of.start, of.levels, of.splitting, steps=3, **more)
        begun = time.perf_counter()
        engine.run(of.start, of.levels, of.splitting, steps=steps, **more)
        return time.perf_counter() - begun


def _timed(
    method: Callable[[Problem, MDState, int], Estimate], problem: Problem, start: MDState
) -> tuple[Estimate, float]:
    begun = time.perf_counter()
    found = method(problem, start, SEED)
    return found, time.perf_counter() - begun


def _off(found: Estimate, exact: Estimate) -> float:
    """Norm of the difference of gradients over that of the exact one, the worst parameter's."""
    worst = 0.0
    for name, theirs in exact.gradients.items():
        scale = theirs.norm().item()
        if scale:
            worst = max(worst, (found.gradients[name] - theirs).norm().item() / scale)
    return worst if math.isfinite(worst) else math.inf


@torch.no_grad()
def _off_along(problem: Problem, start: MDState, found: Estimate, step: float = 1e-6) -> float:
    """Compare the length of a gradient with the slope of the loss along it, by differences."""
    length = math.sqrt(sum(float(g.square().sum()) for g in found.gradients.values()))
    losses, before = [], {name: p.clone() for name, p in problem.parameters.items()}
    for sign in (1.0, -1.0):
        for name, parameter in problem.parameters.items():
            parameter.copy_(before[name] + sign * step / length * found.gradients[name])
        losses.append(problem.loss(problem.trajectory(start, SEED)[0]).item())
    for name, parameter in problem.parameters.items():
        parameter.copy_(before[name])
    return abs((losses[0] - losses[1]) / (2.0 * step) / length - 1.0)


def _replicas(state: MDState, count: int) -> MDState:
    """Return the same atoms several times; their noise will differ."""
    positions = state.positions.expand(count, -1, -1).contiguous()
    velocities = state.velocities.expand(count, -1, -1).contiguous()
    return initial_state(positions, velocities, state.masses, state.cell)
