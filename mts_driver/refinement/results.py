"""How far off a model was and is, in numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mts_driver.refinement.averages import Averages
from mts_driver.refinement.goals.goal import Goal


def summary(goals: Sequence[Goal], before: Averages, after: Averages) -> dict[str, dict[str, Any]]:
    """Return, for every goal, how far off the model was and is: root mean square, or the number."""
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
    off = (mean - goal.target).square().mean().sqrt().item()
    if goal.observable.labels:
        return {"off": off, **dict(zip(goal.observable.labels, mean.tolist(), strict=True))}
    if goal.observable.x is not None:
        return {"off": off}
    return {"value": float(mean), "off": off, "target": float(goal.target)}
