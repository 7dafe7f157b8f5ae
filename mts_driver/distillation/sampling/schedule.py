"""How many teacher calls go where."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

TRAIN_SHARE, TEST_SHARE = 0.76, 0.2
"""First and last part of the dynamics at the target temperature; what lies between is not used."""


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Teacher calls for one system.

    Attributes
    ----------
    temperature_K : float
        Target temperature; hot frames come from 1.5 and 2.2 times as much.
    calls : int
        Teacher calls in all, about.
    every : int
        Steps of 2 fs between two kept frames.
    """

    temperature_K: float
    calls: int
    every: int = 5

    @property
    def stretched(self) -> int:
        """Frames with bonds much shorter and longer than in equilibrium."""
        return max(4, self.calls // 12)

    @property
    def shaken(self) -> int:
        """Frames with random displacements of all atoms."""
        return max(4, self.calls // 25)

    @property
    def contacts(self) -> int:
        """Frames with molecules pushed into one another."""
        return max(4, self.calls // 15)

    @property
    def contact_tests(self) -> int:
        """The same from test frames."""
        return max(2, self.contacts // 6)

    @property
    def stiff_pairs(self) -> int:
        """Pairs of frames for the force constants along bonds."""
        return max(4, self.calls // 12)

    @property
    def stiff_test_pairs(self) -> int:
        """The same from test frames."""
        return max(2, self.stiff_pairs // 6)

    @property
    def displaced(self) -> int:
        """Labels of frames that are displaced from those of dynamics."""
        tests = self.contact_tests + 2 * self.stiff_test_pairs
        return self._displaced_to_train_on + tests

    @property
    def _displaced_to_train_on(self) -> int:
        return self.stretched + self.shaken + self.contacts + 2 * self.stiff_pairs

    @property
    def dynamics(self) -> int:
        """Labels of frames of dynamics."""
        stages = (self.equilibration_steps, self.md_steps, self.hot_steps, self.hot_steps)
        return sum(steps // self.every for steps in stages)

    @property
    def md_steps(self) -> int:
        """Steps of dynamics at the target temperature, equilibration apart."""
        return max(50, (self.calls - self._displaced_to_train_on) * 5 // 10)

    @property
    def hot_steps(self) -> int:
        """Steps at each of the two higher temperatures."""
        return self.md_steps // 4

    @property
    def equilibration_steps(self) -> int:
        """Steps before the dynamics at the target temperature counts as equilibrated."""
        return self.md_steps // 2


def calls_for(frames: int, count: Callable[[SamplingPlan], int], temperature_K: float) -> int:
    """Return how many calls a plan may have to make so many labels, as ``count(plan)`` counts."""
    plans = range(1, 4 * frames)  # of two or three calls one becomes a label

    def labels(calls: int) -> int:
        return count(SamplingPlan(temperature_K=temperature_K, calls=calls))

    return plans[max(0, bisect_right(plans, frames, key=labels) - 1)]


def block(share: float) -> str:
    """Which part of the data a frame belongs to, after this ``share`` of the dynamics."""
    if share <= TRAIN_SHARE:
        return "train"
    return "test" if share > 1 - TEST_SHARE else "gap"
