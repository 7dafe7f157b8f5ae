"""How far off a model was and is, in numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mts_driver.refinement.averages import Averages
from mts_driver.refinement.goals.goal import Goal


def summary(goals: Sequence[Goal], before: Averages, after: Averages) -> dict[str, dict[str, Any]]:
    """Return, for every goal, how far off the model was and is, in its unit and in errors.

    A loss counts errors: those of the target, and what `Goal` adds to them.
    """
    return {
        goal.observable.name: {
            "unit": goal.observable.unit,
            "source": goal.source,
            **{
                when: _off(goal, found.mean[goal.observable.name])
                for when, found in (("before", before), ("after", after))
            },
            "target_error": float(goal.error.square().mean().sqrt()),
        }
        for goal in goals
    }


def _off(goal: Goal, mean: Tensor) -> Mapping[str, float]:
    root_mean_square = (mean - goal.target).square().mean().sqrt().item()
    found = {"off": root_mean_square, "off_in_errors": goal.off(mean)}
    if goal.observable.labels:
        return {**found, **dict(zip(goal.observable.labels, mean.tolist(), strict=True))}
    if goal.observable.x is not None:
        return found
    return {"value": float(mean), **found, "target": float(goal.target)}
