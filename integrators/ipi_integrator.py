"""The executor of splittings inside i-PI: walks the same data as ``engine.step``.

Registered by :mod:`integrators.ipi_plugin`. One kick of level ``l`` is i-PI's ``pstep(l)``, a drift
is ``qcstep()`` and ``nm.free_qstep()``, a thermostat step is ``tstep()``, so that path integrals,
barostats and constraints are i-PI's own.
"""

from __future__ import annotations

import numpy as np
from ipi.engine.barostats import BaroBZP, BaroMTK, BaroRGB, Barostat
from ipi.engine.motion.dynamics import (
    Dynamics,
    NPTIntegrator,
    NSTIntegrator,
    NVEIntegrator,
    NVTIntegrator,
)
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_internal

from integrators.ipi_monitor import Monitor
from integrators.splitting import FAST, OU, SLOW, Drift, Kick, Splitting, baoab, respa_baoab

SPLITTING = "respa-baoab"
"""The value of ``splitting=`` in ``<dynamics>``."""

DEFAULT_CLIP = 6.5046 * unit_to_internal("force", "ev/ang", 1.0)
"""150 kcal/mol/Å in i-PI's units."""

_WEIGHTS = (("teacher", (1.0, 0.0)), ("student", (-1.0, 1.0)))
_WEIGHTS_REMEDY = (
    "the teacher's <force> needs <mts_weights> [1, 0] </mts_weights> and the student's "
    "<mts_weights> [-1, 1] </mts_weights>, so that level 0 is teacher - student, level 1 the "
    "student, and their sum the teacher"
)


def splitting_for(nmts: np.ndarray) -> Splitting:
    """Return the splitting that ``<nmts>`` asks for.

    Raises
    ------
    ValueError
        If ``nmts`` is neither ``[1]`` nor ``[1, n]``.
    """
    counts = [int(n) for n in nmts]
    if counts[0] != 1 or len(counts) > 2 or min(counts) < 1:
        raise ValueError(
            f"<nmts> is {counts}; splitting='{SPLITTING}' takes [1, n], the slow level once and "
            "the fast level n times per outer step, or [1] for a single level"
        )
    return baoab() if len(counts) == 1 else respa_baoab(counts[1])


class RespaMixin(NVEIntegrator):
    """Overrides the order of i-PI's sub-steps, bounds the slow force, and measures at O."""

    force_clip: float
    monitor: Monitor

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
        self._level = {FAST: 0} if len(splitting.levels) == 1 else {SLOW: 0, FAST: 1}
        # i-PI's nve has no thermostat step; the other ensembles keep the one of the splitting
        self._operations = tuple(splitting if hasattr(self, "tstep") else splitting.without_ou())
        self._check_barostat()
        if len(self._level) == 2:
            self._check_weights()
        self._check_timesteps()
        self._seen_first_force = False
        self.monitor = Monitor(self.beads, self.nm, fixcom=self.fixcom, fixed_dof=self.fixatoms_dof)

    def _check_barostat(self) -> None:
        # i-PI's stochastic cell rescaling needs the total force, so the teacher, at each inner step
        if type(self.barostat) not in (Barostat, BaroBZP, BaroMTK, BaroRGB):
            raise ValueError(
                f"barostat {type(self.barostat).__name__} calls the teacher at every inner step "
                f"under splitting='{SPLITTING}'; use <barostat mode='isotropic'>, 'anisotropic' or "
                "'flexible' (a Langevin barostat), or the splitting 'baoab'"
            )

    def _check_weights(self) -> None:
        found = {ff.ffield: tuple(float(w) for w in ff.mts_weights) for ff in self.forces.mforces}
        total = np.zeros(2)
        for ff in self.forces.mforces:
            weights = np.asarray(ff.mts_weights, dtype=float)
            if any(np.array_equal(weights, allowed) for _, allowed in _WEIGHTS):
                total += ff.weight * weights
            else:
                raise ValueError(f"mts_weights of the forces are {found}; {_WEIGHTS_REMEDY}")
        if not np.allclose(total, (0.0, 1.0), rtol=0, atol=1e-12):
            raise ValueError(
                f"the mts_weights {found} (times the weight of each <force>) add up to "
                f"{total.tolist()}, not to [0, 1]; {_WEIGHTS_REMEDY}"
            )

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
        if level == 0 and len(self._level) == 2:
            self._bound_slow_kick()

    def _bound_slow_kick(self) -> None:
        """Take back what the kick just applied beyond the bound, and record what was seen."""
        forces = dstrip(self.forces.mts_forces[0].f)
        norms = np.linalg.norm(forces.reshape(-1, 3), axis=1)
        clipped = norms > self.force_clip if self.force_clip > 0 else np.zeros(norms.shape, bool)
        # each force kicks twice, at the end of a step and at the start of the next: count it once
        self._slow_kicks += 1
        if self._slow_kicks == 2 or not self._seen_first_force:
            self.monitor.record_force_difference(norms, int(clipped.sum()))
            self._seen_first_force = True
        if clipped.any():
            scale = np.zeros(norms.shape)
            scale[clipped] = 1.0 - self.force_clip / norms[clipped]
            excess = (forces.reshape(-1, 3) * scale[:, None]).reshape(forces.shape)
            if len(self.fixatoms_dof) > 0:
                excess[:, ~self.activeatoms_mask] = 0.0
            self.beads.p[:] -= excess * self.pdt[0]

    def step(self, step=None) -> None:
        """Advance one outer step, applying the splitting from left to right."""
        self._slow_kicks = 0
        for op in self._operations:
            match op:
                case Kick(level=level):
                    self.pstep(self._level[level])
                    self.pconstraints()
                case Drift():
                    self.qcstep()
                    self.nm.free_qstep()
                case OU():
                    self.tstep()
                    self.pconstraints()
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
        self, timestep, mode="nve", splitting="obabo", force_clip=DEFAULT_CLIP, **options
    ) -> None:
        super().__init__(timestep, mode=mode, splitting=splitting, **options)
        self.force_clip = force_clip
        if splitting == SPLITTING:
            if mode not in _INTEGRATORS:
                raise ValueError(
                    f"<dynamics mode='{mode}'> cannot use splitting='{SPLITTING}'; "
                    f"it works with {', '.join(_INTEGRATORS)}"
                )
            self.integrator = _INTEGRATORS[mode]()

    def bind(self, ens, beads, nm, cell, bforce, prng, omaker) -> None:
        """Bind to the simulation; say what is wrong where i-PI only says that something is."""
        levels = bforce.nmtslevels
        if self.splitting == SPLITTING and len(self.nmts) != levels:
            counts = [int(n) for n in self.nmts]
            raise ValueError(
                f"<nmts> {counts} has {len(counts)} level(s), the <mts_weights> of the forces have "
                f"{levels}; for two levels write <nmts> [1, n] </nmts>, and {_WEIGHTS_REMEDY}"
            )
        super().bind(ens, beads, nm, cell, bforce, prng, omaker)
