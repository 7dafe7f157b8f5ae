"""What `refine` is asked for, checked before the work."""

import math
from dataclasses import dataclass
from typing import Any

from integrators.bath import Bath
from mts_driver.errors import UserError

METHODS = ("reversible", "reweighting")
METRICS = ("parameters", "ensemble")
STUDENT: dict[str, Any] = {
    "method": "reweighting",
    "metric": "ensemble",
    "learning_rate": 0.9,
    "updates": 12,
    "picoseconds": 8.0,
    "settle_ps": 0.5,
    "replicas": 8,
    "friction_per_ps": 5.0,
    "blocks": 2,
}
"""A network is refined by long averages and few updates; the rest as of classical models."""
REFERENCES = ("rdf", "bonds", "spectrum")
"""What a teacher's trajectory can be compared in."""


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """Trajectories and updates of a refinement.

    Attributes
    ----------
    timestep_fs : float
        Of the model alone; no hydrogen mass repartitioning.
    temperature_K, friction_per_ps : float
        Of the Langevin thermostat.
    picoseconds, settle_ps : float
        Of the trajectory of an update, and before it.
    sample_fs : float
        Between snapshots of averages.
    follow_fs : float
        Between snapshots where something in time is observed.
    lag_fs : float
        Longest lag of a spectrum.
    window_fs : tuple of two float
        Lags from which D is read.
    replicas : int
        Trajectories side by side; of at least two, noise adds nothing to the loss on average.
    updates : int
        Of the parameters.
    metric : str
        What the length of an update is measured by: ``parameters``, their sizes, or ``ensemble``,
        the change of the energies of states in kT.
    learning_rate : float
        Length of an update.
    decay, longest_gradient
        See `mts_driver.refinement.fit.FitSettings`.
    method : str
        ``reversible`` or ``reweighting``.
    truncation_fs : float or None
        How long before a snapshot parameters are held responsible; None: from the start.
    growth_bound : float or None
        See `integrators.reversible.gradient`.
    blocks : int
        Trajectories that the model is judged by, before and after, and that a teacher is run for.
    seed : int
        Of velocities and noise.
    """

    timestep_fs: float = 1.0
    temperature_K: float = 300.0
    friction_per_ps: float = 1.0
    picoseconds: float = 1.0
    settle_ps: float = 0.1
    sample_fs: float = 100.0
    follow_fs: float = 2.0
    lag_fs: float = 300.0
    window_fs: tuple[float, float] = (300.0, 1000.0)
    replicas: int = 2
    updates: int = 50
    metric: str = "parameters"
    learning_rate: float = 0.02
    decay: float = 0.3
    longest_gradient: float = 2.0
    method: str = "reversible"
    truncation_fs: float | None = None
    growth_bound: float | None = None
    blocks: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("timestep_fs", "temperature_K", "picoseconds", "sample_fs", "follow_fs"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"{name}={value}: it must be positive.")
        for name in ("friction_per_ps", "settle_ps"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name}={value}: it must be zero or positive.")
        for name, least in (("replicas", 1), ("updates", 1), ("blocks", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: give at least {least}.")
        if self.method not in METHODS:
            raise UserError(f"method={self.method!r}: use {' or '.join(METHODS)}.")
        if self.metric not in METRICS:
            raise UserError(f"metric={self.metric!r}: use {' or '.join(METRICS)}.")
        for name in ("truncation_fs", "growth_bound"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name}={value}: it must be positive.")
        low, high = self.window_fs
        if not 0 <= low < high:
            raise UserError(f"window_fs={low:g},{high:g}: the second must be the longer lag.")

    @classmethod
    def for_model(cls, model: str, **given: Any) -> "RefineSettings":
        """Return what suits a classical model or a student, and what is given instead."""
        suited = {} if model.startswith("classical:") else STUDENT
        return cls(**{**suited, **given})

    @property
    def bath(self) -> Bath:
        """The thermostat."""
        return Bath.from_temperature(
            temperature_K=self.temperature_K, friction_per_ps=self.friction_per_ps
        )

    def steps_of(self, time_fs: float) -> int:
        """Return how many time steps a time is, at least one."""
        return max(1, round(time_fs / self.timestep_fs))

    def snapshots(self, *, in_time: bool) -> tuple[int, tuple[int, ...], int]:
        """Return the steps of a trajectory, its snapshots, and how averages thin these out.

        Raises
        ------
        UserError
            If a trajectory has no snapshot.
        """
        steps, sample = self.steps_of(1000.0 * self.picoseconds), self.steps_of(self.sample_fs)
        if sample > steps:
            raise UserError(
                f"sample_fs={self.sample_fs:g}: there is no snapshot within "
                f"picoseconds={self.picoseconds:g}."
            )
        if not in_time:
            return steps, tuple(range(steps % sample or sample, steps + 1, sample)), 1
        follow = min(self.steps_of(self.follow_fs), sample)
        return steps, tuple(range(steps % follow, steps + 1, follow)), max(1, sample // follow)
