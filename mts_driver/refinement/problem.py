"""What is fitted, along which trajectories, and what a method finds out about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from integrators import engine
from integrators.bath import Bath
from integrators.levels import Levels
from integrators.reversible import Loss, Snapshots
from integrators.splitting import Splitting
from integrators.state import MDState
from integrators.walk import run_and_keep


@dataclass(frozen=True, eq=False)
class Problem:
    """Trajectories, a loss of them, and the parameters that it is to be lowered by.

    Attributes
    ----------
    levels, splitting, timestep_fs, bath
        As `integrators.engine.run` takes them.
    parameters : mapping of str to Tensor
        Leaves that require gradients, by their names.
    loss : callable
        Of `integrators.reversible.Snapshots`.
    steps : int
        Outer steps of a trajectory.
    snapshots : tuple of int
        Outer steps at which the loss sees it.
    settle_steps : int
        Outer steps before it, which no loss sees and no gradient goes through.
    """

    levels: Levels
    splitting: Splitting
    parameters: Mapping[str, Tensor]
    loss: Loss
    steps: int
    snapshots: tuple[int, ...]
    timestep_fs: float
    bath: Bath | None = None
    settle_steps: int = 0

    @property
    def dynamics(self) -> dict[str, Any]:
        """Step and bath, as `engine.run` and `gradient` call them."""
        return {"timestep": self.timestep_fs, "bath": self.bath}

    def seed_of(self, seed: int) -> int | None:
        """Return the seed, or None where there is no noise."""
        return seed if self.splitting.has_ou else None

    def settled(self, start: MDState, seed: int) -> MDState:
        """Run ``settle_steps`` from a start; the noise goes on with the state's step.

        Forces that a state brings may be those of other parameters, and are forgotten.
        """
        last = engine.run(
            *(replace(start, evaluations={}), self.levels, self.splitting),
            steps=self.settle_steps,
            seed=self.seed_of(seed),
            **self.dynamics,
        )
        return replace(last, evaluations={})

    def trajectory(self, start: MDState, seed: int) -> tuple[Snapshots, MDState]:
        """Run, and return the states that the loss sees, and the last one."""
        last, states = run_and_keep(
            *(start, self.levels, self.splitting, self.snapshots),
            steps=self.steps,
            seed=self.seed_of(seed),
            **self.dynamics,
        )
        return Snapshots.of(states, self.snapshots, self.timestep_fs), last


def moving_parts(state: MDState) -> dict[str, Any]:
    """Return what a file keeps of a state, for `continued`."""
    return {"positions": state.positions, "velocities": state.velocities, "step": state.step}


def continued(start: MDState, kept: Mapping[str, Any]) -> MDState:
    """Return a start moved to what `moving_parts` kept."""
    moving = {name: kept[name] for name in moving_parts(start)}
    return replace(start, evaluations={}, **moving)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A loss and its gradient, by whatever method.

    Attributes
    ----------
    loss : float
        Its value.
    gradients : mapping of str to Tensor
        By every parameter.
    end : MDState
        Where the next trajectory may start.
    steps_run : int
        Outer steps, forwards and backwards, that were run for it.
    seen : Snapshots
        What the loss saw, detached; weighted where states were.
    told : mapping of str to float
        What the method says about itself, such as ``return_error_A`` or ``effective_share``.
    """

    loss: float
    gradients: Mapping[str, Tensor]
    end: MDState
    steps_run: int
    seen: Snapshots
    told: Mapping[str, float] = field(default_factory=dict)


class Method(Protocol):
    """A way to a gradient; those with a memory are objects."""

    def __call__(self, problem: Problem, start: MDState, seed: int) -> Estimate:
        """Estimate the loss and its gradient from a start, with the noise of ``seed``."""
        ...


class Steps(Protocol):
    """What to do about a gradient."""

    def __call__(
        self, problem: Problem, found: Estimate, rate: float
    ) -> tuple[Mapping[str, Tensor], float]:
        """Return what to add to each parameter, and the length of the gradient.

        ``rate`` is the length of a step, in the object's own measure.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a file keeps."""
        ...

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from what a file kept."""
        ...
