"""One run under real i-PI, through the launcher of ``mts run``."""

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from integrators.constraints import Distances
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.launcher import Launcher, load
from mts_driver.runs.run_folder import write_run_folder
from mts_driver.structures.masses import repartitioned_masses

TEMPERATURE_K, FRICTION_PER_PS = 300.0, 1.0
DEVICE_STEPS = 5
"""Outer steps a message where a driver takes whole ones."""
# written once, before the first step
_FORCES = "<trajectory filename='start' stride='1000000' bead='0'> forces{ev/ang} </trajectory>"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run the same system.

    Attributes
    ----------
    label : str
        What the table calls it.
    teacher : str
        Specification of the expensive model.
    student : str or None
        None for single time steps.
    outer_fs, inner_fs : float
        Time steps of teacher and student, fs; the same for single steps.
    hydrogen_mass : float
        Da; 0: natural.
    hydrogen_friction_per_ps : float or None
        None: 1/ps, as all atoms.
    high_pass : bool
        Whether the noise is coloured.
    constrain, rigid_water : bool
        Whether bonds to hydrogen are held, and the distance of both hydrogens of a water as well.
    beads : int
        Of the ring polymers.
    mode : str
        How i-PI talks to the drivers; ``device`` for zmq with whole outer steps in one driver, or
        ``none`` for both models in one process without i-PI.
    device : str
        Of both models.
    threads : int
        CPU threads of each model; 0 for all cores.
    ranks : int
        Processes of each model.
    stride : int or None
        Outer steps between frames and properties; None for no frame.
    seed : int
        Of velocities and thermostat.
    """

    label: str
    teacher: str
    student: str | None
    outer_fs: float
    inner_fs: float
    hydrogen_mass: float = 0.0
    hydrogen_friction_per_ps: float | None = None
    high_pass: bool = False
    constrain: bool = False
    rigid_water: bool = False
    beads: int = 1
    mode: str = "unix"
    device: str = "cpu"
    threads: int = 0
    ranks: int = 1
    stride: int | None = None
    seed: int = 1

    def protocol(self, steps: int) -> RunSettings:
        """Return the choices of ``mts prepare`` for so many outer steps.

        Raises
        ------
        UserError
            If they do not fit together.
        """
        return RunSettings(
            teacher=self.teacher,
            student=self.student,
            outer_fs=self.outer_fs,
            inner_fs=self.inner_fs,
            hydrogen_mass=self.hydrogen_mass,
            temperature_K=TEMPERATURE_K,
            friction_per_ps=FRICTION_PER_PS,
            hydrogen_friction_per_ps=self.hydrogen_friction_per_ps,
            steps=steps,
            # without frames there are properties every 5 steps
            stride=self.stride or 5 * -(-steps // 5),
            seed=self.seed,
            beads=self.beads,
            mode="zmq" if self.mode == "device" else self.mode,
            device=self.device,
            device_steps=DEVICE_STEPS if self.mode == "device" else 0,
            high_pass=self.high_pass,
            constrained=self.constrain,
        )


def write_input(
    folder: Path, atoms: Atoms, variant: Variant, steps: int, *, held: Distances | None = None
) -> Path:
    """Write ``input.xml`` and what it needs; the path of the first."""

    def edit(xml: str) -> str:
        end = " } </parameters>"
        if variant.threads:
            xml = xml.replace(end, f", threads: {variant.threads}{end}")
        if variant.ranks > 1:
            xml = xml.replace(end, f", ranks: {variant.ranks}{end}")
        # a checkpoint takes a third of an outer step, and would come more often than in a real run
        xml = re.sub(r"(<checkpoint[^>]* stride=)'\d+'", r"\1'1000000'", xml)
        return xml.replace("</output>", f"  {_FORCES}\n  </output>")

    masses = repartitioned_masses(atoms, variant.hydrogen_mass)
    return write_run_folder(folder, atoms, masses, variant.protocol(steps), held=held, edit=edit)


def run_under_ipi(
    atoms: Atoms,
    variant: Variant,
    steps: int,
    *,
    held: Distances | None = None,
    collect: Callable[[Path], dict[str, Any]] = lambda _: {},
) -> dict[str, Any]:
    """One run of one variant in a folder of its own.

    Where a driver takes several outer steps a message, whole messages are timed. A variant that
    holds bonds needs ``held``, and atoms with these distances (`HeldStart` has both). ``collect``
    looks into the folder before it is removed; what it returns is added.

    Returns
    -------
    dict
        The summary of the run, and ``start_forces`` (N, 3): all forces on the first structure (on
        the first bead), eV/Å.

    Raises
    ------
    UserError
        If the run fails.
    """
    if variant.mode == "device":
        steps += -steps % DEVICE_STEPS
    folder = Path(tempfile.mkdtemp(prefix="mts-bench-"))
    try:
        file = write_input(folder, atoms, variant, steps, held=held)
        summary = Launcher(load(file), baseline_steps=0).execute()
        return {**summary, "start_forces": _read_forces(folder), **collect(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_forces(folder: Path) -> np.ndarray:
    (file,) = folder.glob("simulation.start*.xyz")
    return np.loadtxt(file, skiprows=2, usecols=(1, 2, 3))
