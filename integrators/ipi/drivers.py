"""What drivers outside i-PI can do beside evaluating forces, and where an integrator has them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

Arrays = dict[str, np.ndarray]
Values = dict[str, Any]


@runtime_checkable
class TakesInnerSteps(Protocol):
    """A driver of the student that can take the inner steps between two slow kicks."""

    def propagate(self, values: Values, arrays: Arrays) -> Arrays:
        """Take them; see `mts_driver.drivers.propagator.Propagator.propagate`."""


@runtime_checkable
class TakesOuterSteps(Protocol):
    """One of the two ends, for teacher or student, of a driver that has both models."""

    @property
    def address(self) -> str:
        """The same for both ends of one driver."""

    def begin_run(self, values: Values, arrays: Arrays) -> Any:
        """Have whole outer steps taken, and go on; see `Propagator.run`."""

    def finish_run(self, running: Any) -> Arrays:
        """Wait for the steps."""

    def join(self, other: Any) -> None:
        """Ask through the connection of the other end."""

    def remember(self, pos: np.ndarray, cells: Any, *results: np.ndarray) -> Any:
        """Keep results of structures, which i-PI will ask for."""


def drivers(integrator) -> tuple[object, object]:
    """Return what evaluates the teacher and the student, where i-PI calls it itself."""
    forces = [f for f in integrator.forces.mforces if f.weight != 0]
    teacher = [f for f in forces if f.mts_weights[0] != 0 and not any(f.mts_weights[1:])]
    student = [f for f in forces if f.mts_weights[-1] != 0]

    def of(parts):
        """Return the driver of the only one: a sum of several models is i-PI's to make."""
        if len(parts) != 1 or parts[0].weight != 1 or max(parts[0].mts_weights) != 1:
            return None
        return getattr(getattr(parts[0], "ff", None), "driver", None)

    return of(teacher), of(student)
