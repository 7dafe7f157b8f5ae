"""How much a distillation may cost: minutes on the clock, or steps, which any machine repeats."""

import math
from dataclasses import dataclass

from mts_driver.errors import UserError

FEWEST_MINUTES = 0.5


def check_budget(minutes: float | None, updates: int | None, frames: int | None) -> None:
    """Require minutes, or updates and frames.

    Raises
    ------
    UserError
        If there are both or neither, a half of the second, or a number that is out of bounds.
    """
    if (updates is None) != (frames is None):
        given, missing = ("--updates", "--frames") if frames is None else ("--frames", "--updates")
        raise UserError(
            f"{given} is given without {missing}: the one is the budget of training, the other "
            "that of sampling; give both, or --minutes."
        )
    if minutes is not None and updates is not None:
        raise UserError(
            f"--minutes {minutes:g} and --updates {updates} are two budgets for the same thing: "
            "give --minutes, or --updates and --frames."
        )
    if minutes is None and updates is None:
        raise UserError("there is no budget: give --minutes, or --updates and --frames.")
    if minutes is not None and not FEWEST_MINUTES <= minutes < math.inf:
        raise UserError(f"--minutes {minutes:g}: give a number from {FEWEST_MINUTES:g} up.")
    for name, value in (("--updates", updates), ("--frames", frames)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: give at least 1.")


@dataclass(frozen=True, kw_only=True)
class TrainingBudget:
    """How long to train; one of both.

    Attributes
    ----------
    seconds : float, optional
        Wall-clock time.
    updates : int, optional
        Steps of the optimiser.
    """

    seconds: float | None = None
    updates: int | None = None

    @property
    def total(self) -> float:
        """What there is to spend, s or updates."""
        return float(self.updates if self.updates is not None else self.seconds or 0.0)

    def spent(self, elapsed_s: float, updates: int) -> float:
        """Return how much of `total` a training has used."""
        return float(updates) if self.updates is not None else elapsed_s

    def share(self, elapsed_s: float, updates: int) -> float:
        """Return the same as a share, 0 to 1."""
        return min(1.0, self.spent(elapsed_s, updates) / self.total)
