"""Registers ``<dynamics splitting='respa-baoab'>`` and its tags with an installed i-PI.

i-PI has no entry points, so :func:`register` replaces two of its input classes (see
`integrators.ipi.replacements`); inputs that do not ask for the new splitting run i-PI's own code.
Three ways lead here:

- ``mts run input.xml``, or any script that calls ``register()`` before it loads an input;
- ``python -m integrators.ipi.plugin input.xml``, i-PI's command with the splitting registered;
- an unmodified ``i-pi input.xml``, if the input has an ``<ffdirect>`` with the custom potential
  ``register.py`` before its ``<system>`` (see there).
"""

from __future__ import annotations

import runpy
import shutil
import sys
import sysconfig
from copy import copy

import ipi
import ipi.inputs.motion.dynamics as native_input
from ipi.utils.inputvalue import InputValue
from ipi.utils.units import unit_to_internal

from integrators.ipi.checks import SPLITTING
from integrators.ipi.guard import ACTIONS
from integrators.ipi.integrator import (
    DEFAULT_CLIP,
    DEFAULT_THRESHOLD,
    RespaDynamics,
    RespaMixin,
)
from integrators.ipi.monitor import Monitor
from integrators.ipi.replacements import (
    count_held_degrees,
    leave_mpi_in_order,
    offer_splitting,
    offer_unit,
)
from integrators.ipi.versions import is_supported, requirement

INVERSE_PS = "inverseps"
"""Unit of frictions in an input, named as i-PI's inversecm is."""


def check_version(version: str) -> None:
    """Refuse versions of i-PI whose internals are not known to be the same.

    Raises
    ------
    RuntimeError
        If ``version`` is none of `integrators.ipi.versions`.
    """
    if not is_supported(version):
        raise RuntimeError(
            f"i-PI {version} is not supported by splitting='{SPLITTING}', which replaces internals "
            f"of other versions; install one of these: pip install '{requirement()}'"
        )


class InputRespaDynamics(native_input.InputDynamics):
    """i-PI's ``<dynamics>`` with tags for what a teacher and a student need beside it."""

    fields = copy(native_input.InputDynamics.fields)
    fields["force_clip"] = (
        InputValue,
        {
            "dtype": float,
            "default": DEFAULT_CLIP,
            "dimension": "force",
            "help": f"For splitting='{SPLITTING}': bound on the slow force, teacher - student, on "
            "each atom, e.g. with units='ev/ang'. Longer forces are scaled back to it. The default "
            "is 150 kcal/mol/angstrom (6.5046 ev/ang); 0 means no bound.",
        },
    )
    fields["hydrogen_friction"] = (
        InputValue,
        {
            "dtype": float,
            "default": 0.0,
            "dimension": "frequency",
            "help": f"For splitting='{SPLITTING}': friction of hydrogens, e.g. 20 with "
            f"units='{INVERSE_PS}', where that of other atoms is 1/tau. The default, 0, means as "
            "other atoms.",
        },
    )

    fields["on_hole"] = (
        InputValue,
        {
            "dtype": str,
            "default": "log",
            "options": list(ACTIONS),
            "help": f"For splitting='{SPLITTING}': what to do when teacher and student differ by "
            "more than <hole_threshold> on an atom, or hydrogens get far too hot: 'log', 'stop', "
            "or 'shorten' the outer step from there on.",
        },
    )
    fields["hole_threshold"] = (
        InputValue,
        {
            "dtype": float,
            "default": DEFAULT_THRESHOLD,
            "dimension": "force",
            "help": f"For splitting='{SPLITTING}': see <on_hole>. The default is 3 ev/ang.",
        },
    )

    fields["device_steps"] = (
        InputValue,
        {
            "dtype": int,
            "default": 0,
            "help": f"For splitting='{SPLITTING}': outer steps that a ZeroMQ driver with both "
            "models takes at a time, see `mts serve --student`. The default, 0, leaves them here.",
        },
    )

    fields["constrain"] = (
        InputValue,
        {
            "dtype": str,
            "default": "",
            "help": f"For splitting='{SPLITTING}': file of distances that are held, two atoms "
            "(counted from 0) and angstroms a line, e.g. all bonds to hydrogen. The default is "
            "none.",
        },
    )

    def store(self, dyn) -> None:
        """Take the data of a dynamics object, for checkpoints."""
        if dyn == {}:
            return
        super().store(dyn)
        self.force_clip.store(dyn.force_clip)
        self.hydrogen_friction.store(dyn.hydrogen_friction)
        self.on_hole.store(dyn.on_hole)
        self.hole_threshold.store(dyn.hole_threshold)
        self.device_steps.store(dyn.device_steps)
        self.constrain.store(dyn.constrain)


def register() -> None:
    """Make the splitting available to every i-PI input loaded from now on; harmless if repeated.

    Raises
    ------
    RuntimeError
        If the installed i-PI is not a supported version.
    """
    check_version(ipi.__version__)
    offer_splitting(SPLITTING, RespaDynamics, InputRespaDynamics)
    leave_mpi_in_order()
    count_held_degrees(_lost_degrees)
    offer_unit("frequency", INVERSE_PS, 1.0 / unit_to_internal("time", "picosecond", 1.0))


def _lost_degrees(motion):
    """Return the degrees of freedom that atoms (N,) have lost to distances that are held."""
    held = getattr(getattr(motion, "integrator", None), "held", None)
    return None if held is None else held.lost_degrees


def integrators(simulation) -> list[RespaMixin]:
    """Return the RESPA integrators of a bound i-PI ``Simulation``, in the order of its systems.

    Systems without one are left out; several motions (``<motion mode='multi'>``) give several.
    """
    found = []
    for system in simulation.syslist:
        for motion in getattr(system.motion, "mlist", [system.motion]):
            integrator = getattr(motion, "integrator", None)
            if isinstance(integrator, RespaMixin):
                found.append(integrator)
    return found


def monitors(simulation) -> list[Monitor]:
    """Return the monitors of `integrators`."""
    return [integrator.monitor for integrator in integrators(simulation)]


def main() -> None:
    """Run i-PI's own command with the splitting registered."""
    register()
    command = shutil.which("i-pi", path=sysconfig.get_path("scripts")) or shutil.which("i-pi")
    if command is None:
        sys.exit("the command i-pi is not on the PATH; activate the environment that holds i-PI")
    sys.argv[0] = command
    runpy.run_path(command, run_name="__main__")


if __name__ == "__main__":
    main()
