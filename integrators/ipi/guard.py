"""The safety net of a run: what happens when the student is wrong, or hydrogens heat up."""

from __future__ import annotations

from ipi.utils.messages import verbosity, warning
from ipi.utils.softexit import softexit
from ipi.utils.units import unit_to_internal

from integrators.degrees_of_freedom import hottest_by_chance

ACTIONS = ("log", "stop", "shorten")
HOLE_EV_A = 3.0
"""|F_teacher - F_student| of an atom; trajectories die at 2.5 to 5.4 eV/Å, good students stay below
1."""
MOST_LINES = 20
"""Events that are logged one by one."""


class Guard:
    """Looks at every outer step and acts on the first sign that the run goes wrong.

    Signs are a force difference above the threshold, and hydrogens (all atoms, if there are none)
    whose temperature at O is far above the target in two outer steps in a row: by half, and by more
    than the canonical distribution ever shows, which for few hydrogens is a lot.

    Parameters
    ----------
    action : str
        ``log``; ``stop``, leaving RESTART; or ``shorten``: from now on two, three, ... outer steps
        in the time of one, with inner steps as they were, so that outputs stay equally spaced.
    threshold : float
        Of the force difference, internal units.

    Attributes
    ----------
    threshold_eV_A : float
        The same, eV/Å.
    events : list of dict
        ``step``, ``reason``, ``action`` and ``outer_steps``, those in one time step from then on.
    stopped : str
        Why the run is to stop before its next step, when outputs of this one are written.
    """

    def __init__(self, action: str, threshold: float) -> None:
        if action not in ACTIONS:
            raise ValueError(f"<on_hole> is {action!r}; use {', '.join(ACTIONS)}")
        if not threshold > 0:
            raise ValueError(f"<hole_threshold> is {threshold:g}; give a positive force")
        self.action = action
        self.events: list[dict] = []
        self.threshold_eV_A = threshold / unit_to_internal("force", "ev/ang", 1.0)
        self.stopped = ""
        self._hot = 0

    def before_step(self) -> None:
        """End the run if it is to stop."""
        if self.stopped:
            softexit.trigger(status="restartable", message=self.stopped)

    def look(self, step: int, integrator) -> None:
        """See the end of an outer step, 1 for the first."""
        monitor = integrator.monitor
        # written so that a NaN is a hole
        if not monitor.latest_difference_eV_A <= self.threshold_eV_A:
            where = f"|F_T-F_S| of {monitor.latest_difference_eV_A:.2f} eV/Å"
            self.trip(step, f"{where}, more than {self.threshold_eV_A:g}", integrator)
        if not monitor.latest_K:
            return
        name = "H" if "H" in monitor.latest_K else "all"
        target = float(integrator.ensemble.temp) / unit_to_internal("temperature", "kelvin", 1.0)
        bound = target * (0.5 + hottest_by_chance(monitor.degrees_of_freedom(name)))
        found = monitor.latest_K[name]
        self._hot = 0 if found <= bound else self._hot + 1
        if self._hot >= 2:
            self._hot = 0
            who = "hydrogens" if name == "H" else "the atoms"
            self.trip(step, f"{who} at {found:.0f} K, where {target:.0f} K are wanted", integrator)

    def trip(self, step: int, reason: str, integrator) -> None:
        """Act on a sign; a second one of the same step is left alone."""
        if self.events and self.events[-1]["step"] == step:
            return
        outer_steps = int(integrator.nmts[0])
        said = "logged"
        if self.action == "shorten":
            outer_steps = integrator.shorten()
            said = f"{outer_steps} outer steps in the time of one from now on"
        if self.action == "stop":
            self.stopped = f"step {step}: {reason}"
            said = "the run stops, as <on_hole> asks"
        self.events.append(
            {"step": step, "reason": reason, "action": self.action, "outer_steps": outer_steps}
        )
        if len(self.events) <= MOST_LINES:
            warning(f" @RESPA: step {step}: {reason}: {said}", verbosity.low)
