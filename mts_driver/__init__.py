"""Multiple time-step molecular dynamics with a teacher potential and its distilled student.

The names in ``__all__`` are the public interface, see `mts_driver.api`; everything else may change.
They are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mts_driver.api import (
        CheckResult,
        DistillationResult,
        Holes,
        PreparedRun,
        Report,
        ResonanceResult,
        RunResult,
        SimulationResult,
        Timings,
        UserError,
        check,
        distill,
        load_potential,
        prepare,
        report,
        resonance,
        run,
        simulate,
    )

__version__ = "0.1.0"

_HOMES = {
    "CheckResult": "validation.check_student",
    "DistillationResult": "distillation.make_student",
    "Holes": "simulation.simulate.result",
    "PreparedRun": "runs.prepare",
    "Report": "analysis.report",
    "ResonanceResult": "validation.resonance.resonance",
    "RunResult": "runs.run",
    "SimulationResult": "simulation.simulate.result",
    "Timings": "simulation.simulate.result",
    "UserError": "errors",
    "check": "validation.check_student",
    "distill": "distillation.make_student",
    "load_potential": "potentials.load",
    "prepare": "runs.prepare",
    "report": "super_resolution.report",
    "resonance": "validation.resonance.resonance",
    "run": "runs.run",
    "simulate": "simulation.simulate.run",
}
"""Where each is made; loading one does not load the others."""

__all__ = [
    "CheckResult",
    "DistillationResult",
    "Holes",
    "PreparedRun",
    "Report",
    "ResonanceResult",
    "RunResult",
    "SimulationResult",
    "Timings",
    "UserError",
    "check",
    "distill",
    "load_potential",
    "prepare",
    "report",
    "resonance",
    "run",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
