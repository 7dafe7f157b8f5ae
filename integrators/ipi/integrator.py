"""The executor of splittings inside i-PI: walks the same data as ``engine.step``.

Registered by :mod:`integrators.ipi.plugin`. One kick of level ``l`` is i-PI's ``pstep(l)``, a drift
is ``qcstep()`` and ``nm.free_qstep()``, a thermostat step is ``tstep()``, so that path integrals,
barostats and constraints are i-PI's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from ipi.engine.motion.dynamics import (
    Dynamics,
    NPTIntegrator,
    NSTIntegrator,
    NVEIntegrator,
    NVTIntegrator,
)
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_internal

from integrators.ipi.checks import (
    SPLITTING,
    check_barostat,
    check_energies,
    check_levels,
    check_weights,
    splitting_for,
)
from integrators.ipi.friction import HydrogenFriction
from integrators.ipi.guard import HOLE_EV_A, Guard
from integrators.ipi.handover import Handover
from integrators.ipi.monitor import Monitor
from integrators.ipi.run_ahead import RunAhead
from integrators.splitting import OU, SLOW, Drift, Kick, Operation, Splitting

if TYPE_CHECKING:
    from integrators.ipi.constrained import HeldDistances

DEFAULT_CLIP = 6.5046 * unit_to_internal("force", "ev/ang", 1.0)
"""150 kcal/mol/Å in i-PI's units."""
DEFAULT_THRESHOLD = HOLE_EV_A * unit_to_internal("force", "ev/ang", 1.0)


class RespaMixin(NVEIntegrator):
    """Overrides the order of i-PI's sub-steps, bounds the slow force, and measures at O."""

    force_clip: float
    hydrogen_friction: HydrogenFriction | None
    held: HeldDistances | None
    monitor: Monitor
    guard: Guard
    handover: Handover | None
    run_ahead: RunAhead | None

    def get_tdt(self):
        """Length of one thermostat step: one per inner step."""
        return self.dt / self.inmts

    def bind(self, motion) -> None:
        """Bind to the simulation, then check that the input means what the splitting says."""
        self.force_clip = motion.force_clip
        if not (np.isfinite(self.force_clip) and self.force_clip >= 0):
            raise ValueError(
                f"<force_clip> is {self.force_clip}; give a positive force, or 0 for no bound"
            )
        splitting = splitting_for(motion.nmts)
        super().bind(motion)
        self._level = {name: number for number, name in enumerate(splitting.levels)}
        self._follow(splitting)
        if len(self._level) > 1:
            check_weights(self.forces.mforces)
        self.guard = Guard(motion.on_hole, motion.hole_threshold)
        self.hydrogen_friction = self._own_bath_of_hydrogens(motion.hydrogen_friction)
        # imports what only inputs that ask for it need
        self.held = None
        if motion.constrain:
            from integrators.ipi.constrained import HeldDistances

            self.held = HeldDistances(self, motion.constrain)
        self._seen_first_force = False
        self.monitor = Monitor(
            *(self.beads, self.nm),
            fixcom=self.fixcom,
            fixed_dof=self.fixatoms_dof,
            lost_degrees=0.0 if self.held is None else self.held.lost_degrees,
        )
        self.run_ahead = RunAhead.of(self, motion.device_steps)
        self.handover = Handover.of(self)

    def _follow(self, splitting: Splitting) -> None:
        # i-PI's nve has no thermostat step; the other ensembles keep the one of the splitting
        self._operations = tuple(splitting if hasattr(self, "tstep") else splitting.without_ou())
        self._check_timesteps()

    def shorten(self) -> int:
        """Divide the time step into more outer steps if that can be done; return how many.

        Inner steps stay as they are, so that the next divisor of their number is taken. i-PI
        derives its sub-steps from ``nmts``, and writes it to RESTART.
        """
        outer, inner = int(self.nmts[0]), int(np.prod(self.nmts))
        if len(self.nmts) == 2 and outer < inner:
            outer = next(k for k in range(outer + 1, inner + 1) if inner % k == 0)
            self.nmts[:] = [outer, inner // outer]
            self._follow(splitting_for(self.nmts))
        return outer

    def _own_bath_of_hydrogens(self, friction: float) -> HydrogenFriction | None:
        if friction == 0:
            return None
        if not hasattr(self, "tstep"):
            raise ValueError("<hydrogen_friction> is for ensembles with a thermostat, not for nve")
        return HydrogenFriction(self, friction)

    def _check_timesteps(self) -> None:
        """Require i-PI's own sub-steps to be the weights of the splitting times dt."""
        for op in self._operations:
            match op:
                case Kick(level=level):
                    name, value = f"pdt[{self._level[level]}]", self.pdt[self._level[level]]
                case Drift():
                    name, value = "qdt", self.qdt
                case OU():
                    name, value = "tdt", self.tdt
            expected = float(op.weight) * self.dt
            if not np.isclose(value, expected, rtol=1e-12, atol=0):
                raise ValueError(
                    f"i-PI's {name} is {value}, but {op} of a step of {self.dt} takes {expected} "
                    "(atomic units); this version of i-PI cannot run the splitting"
                )

    def pstep(self, level: int = 0) -> None:
        """Kick with the forces of one level; those of teacher - student are bounded per atom."""
        super().pstep(level)
        if level == 0 and len(self._level) > 1:
            self._bound_slow_kick()
        elif level == 0:
            self.see_first_force()

    def _bound_slow_kick(self) -> None:
        """Take back what the kick just applied beyond the bound, and record what was seen."""
        forces = dstrip(self.forces.mts_forces[0].f)
        # each force kicks twice, at the end of a step and at the start of the next: count it once
        self._slow_kicks += 1
        if self._slow_kicks % 2 == 0:
            self.record_slow_force(forces)
        else:
            self.see_first_force()
        norms = np.linalg.norm(forces.reshape(-1, 3), axis=1)
        clipped = self._clipped(norms)
        if clipped.any():
            scale = np.zeros(norms.shape)
            scale[clipped] = 1.0 - self.force_clip / norms[clipped]
            excess = (forces.reshape(-1, 3) * scale[:, None]).reshape(forces.shape)
            if len(self.fixatoms_dof) > 0:
                excess[:, ~self.activeatoms_mask] = 0.0
            self.beads.p[:] -= excess * self.pdt[0]

    def _clipped(self, norms: np.ndarray) -> np.ndarray:
        return norms > self.force_clip if self.force_clip > 0 else np.zeros(norms.shape, bool)

    def record_slow_force(self, forces: np.ndarray) -> None:
        """Tell the monitor of teacher - student at the end of an outer step, any (..., 3)."""
        norms = np.linalg.norm(forces.reshape(-1, 3), axis=1)
        self.monitor.record_force_difference(norms, int(self._clipped(norms).sum()))

    def see_first_force(self) -> None:
        """Record a slow force that the first step begins with, once, and check the energies."""
        if not self._seen_first_force:
            self._seen_first_force = True
            if len(self._level) > 1:
                self.record_slow_force(dstrip(self.forces.mts_forces[0].f))
            check_energies(self.forces.mforces, self.enstype)

    def step(self, step=None) -> None:
        """Advance one outer step, applying the splitting from left to right."""
        if self.held is not None:
            self.held.begin_step()
        self.guard.before_step()
        self._slow_kicks = 0
        if self.run_ahead is None or not self.run_ahead.step():
            self._step()
        self.guard.look(1 if step is None else step + 1, self)

    def _step(self) -> None:
        for slow, operations in groupby(self._operations, self._is_slow):
            if slow or self.handover is None:
                self._apply(operations)
            else:
                self.handover.step(int(self.nmts[1]), self.dt / int(self.nmts[0]))

    @staticmethod
    def _is_slow(op: Operation) -> bool:
        return isinstance(op, Kick) and op.level == SLOW

    def _apply(self, operations: Iterable[Operation]) -> None:
        for op in operations:
            match op:
                case Kick(level=level):
                    self.pstep(self._level[level])
                    self.pconstraints()
                    if self.held is not None:
                        self.held.project()
                case Drift():
                    if self.held is not None:
                        self.held.before_drift()
                    self.qcstep()
                    self.nm.free_qstep()
                    if self.held is not None:
                        self.held.behind_drift(float(self.qdt))
                case OU():
                    if self.held is not None:
                        self.held.before_thermostat()
                    self.tstep()
                    if self.hydrogen_friction is not None:
                        self.hydrogen_friction.step()
                    self.pconstraints()
                    if self.held is not None:
                        self.ensemble.eens += self.held.project()
                    self.monitor.record_temperature()


class RespaNVEIntegrator(RespaMixin):
    """Constant energy and volume."""


class RespaNVTIntegrator(RespaMixin, NVTIntegrator):
    """Constant temperature and volume."""


class RespaNPTIntegrator(RespaMixin, NPTIntegrator):
    """Constant temperature and pressure."""


class RespaNSTIntegrator(RespaMixin, NSTIntegrator):
    """Constant temperature and stress."""


_INTEGRATORS = {
    "nve": RespaNVEIntegrator,
    "nvt": RespaNVTIntegrator,
    "npt": RespaNPTIntegrator,
    "nst": RespaNSTIntegrator,
}


class RespaDynamics(Dynamics):
    """i-PI's dynamics with one more splitting; with the native splittings it is i-PI's own."""

    def __init__(
        self,
        timestep,
        mode="nve",
        splitting="obabo",
        force_clip=DEFAULT_CLIP,
        hydrogen_friction=0.0,
        on_hole="log",
        hole_threshold=DEFAULT_THRESHOLD,
        device_steps=0,
        constrain="",
        **options,
    ) -> None:
        super().__init__(timestep, mode=mode, splitting=splitting, **options)
        self.force_clip = force_clip
        self.hydrogen_friction = hydrogen_friction
        self.on_hole, self.hole_threshold = on_hole, hole_threshold
        if device_steps < 0:
            raise ValueError(f"<device_steps> is {device_steps}; give 1 or more, or 0 for none")
        self.device_steps = device_steps
        self.constrain = constrain.strip()
        if self.constrain and splitting != SPLITTING:
            raise ValueError(f"<constrain> is for splitting='{SPLITTING}', not '{splitting}'")
        if splitting == SPLITTING:
            if mode not in _INTEGRATORS:
                raise ValueError(
                    f"<dynamics mode='{mode}'> cannot use splitting='{SPLITTING}'; "
                    f"it works with {', '.join(_INTEGRATORS)}"
                )
            check_barostat(self.barostat)
            self.integrator = _INTEGRATORS[mode]()

    def bind(self, ens, beads, nm, cell, bforce, prng, omaker) -> None:
        """Bind to the simulation; say what is wrong where i-PI only says that something is."""
        if self.splitting == SPLITTING:
            check_levels(self.nmts, bforce.nmtslevels)
        super().bind(ens, beads, nm, cell, bforce, prng, omaker)
