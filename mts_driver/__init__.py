"""Multiple time-step molecular dynamics with a teacher potential and its distilled student.

The names in ``__all__`` are the public interface, each described where it is defined; everything
else may change. They are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mts_driver.api import (
        SimulationResult,
        load_potential,
        simulate,
    )

__version__ = "0.1.0"

__all__ = [
    "SimulationResult",
    "UserError",
    "load_potential",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("mts_driver.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
