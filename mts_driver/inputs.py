"""The i-PI input that ``mts prepare`` writes: plain i-PI XML, meant to be read and edited."""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from mts_driver.errors import UserError
from mts_driver.units import KCAL_MOL_EV

CLIP_EV_A = 150.0 * KCAL_MOL_EV
"""Bound on |F_teacher − F_student| of an atom (Cattin et al.)."""

_TEMPLATE = """\
<!-- {comment}
     Run it with `mts run input.xml`. -->
<simulation verbosity='low' threading='False' safe_stride='{often}'>
  <output prefix='simulation'>
    <properties filename='out' stride='{often}'> [ step, time{{picosecond}}, \
conserved{{electronvolt}}, potential{{electronvolt}}, kinetic_md{{electronvolt}}, \
temperature{{kelvin}} ] </properties>
    <trajectory filename='pos' stride='{stride}' format='xyz' cell_units='angstrom'> \
positions{{angstrom}} </trajectory>
    <checkpoint filename='checkpoint' stride='{checkpoint_stride}' overwrite='True'/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> {seed} </seed> </prng>
{sockets}
  <system>
    <initialize nbeads='1'>
      <!-- cell, elements, masses{masses_note} and positions -->
      <file mode='ase'> start.extxyz </file>
      <velocities mode='thermal' units='kelvin'> {temperature:g} </velocities>
    </initialize>
    <forces>
{forces}
    </forces>
    <ensemble> <temperature units='kelvin'> {temperature:g} </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt' splitting='respa-baoab'>
        <timestep units='femtosecond'> {outer_fs:g} </timestep>
        <nmts> {nmts} </nmts>
        <force_clip units='ev/ang'> {clip:.4f} </force_clip>{hydrogen_friction}
        <thermostat mode='langevin'>
          <tau units='femtosecond'> {tau_fs:g} </tau>
        </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""

_TWO_LEVELS = """\
      <!-- level 0: teacher - student, once per outer step; level 1: student, {n_inner} times -->
      <force forcefield='teacher'> <mts_weights> [ 1, 0 ] </mts_weights> </force>
      <force forcefield='student'> <mts_weights> [ -1, 1 ] </mts_weights> </force>"""
_ONE_LEVEL = """\
      <force forcefield='teacher'> <mts_weights> [ 1 ] </mts_weights> </force>"""

_HYDROGEN_FRICTION = """
        <hydrogen_friction units='inverseps'> {friction:g} </hydrogen_friction>"""

_SOCKET = """\
  <ffsocket name='{name}' mode='{mode}' pbc='False'>
    <address> {address} </address>
    <latency> 1e-4 </latency>
    <timeout> 600 </timeout>
    <parameters> {{ model: {model}, device: {device} }} </parameters>
  </ffsocket>"""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The choices that an input is made of.

    Attributes
    ----------
    teacher, student : str
        Specifications of the potentials; no student (None) for single time steps.
    outer_fs, inner_fs : float
        Outer and inner time step, fs; the first is a multiple of the second.
    hydrogen_mass : float
        Da; 0 for the natural one. Only for the comment, the masses are in the start.
    temperature_K, friction_per_ps : float
        Of the Langevin thermostat, K and 1/ps.
    hydrogen_friction_per_ps : float or None
        The same for hydrogens; None: as all atoms.
    steps : int
        Outer steps.
    stride : int
        Outer steps between frames of the trajectory.
    seed : int
        Of velocities and thermostat.
    mode : str
        ``unix`` or ``shm``.
    device : str
        Of both potentials.
    """

    teacher: str
    student: str | None
    outer_fs: float
    inner_fs: float
    hydrogen_mass: float
    temperature_K: float
    friction_per_ps: float
    steps: int
    stride: int
    seed: int
    hydrogen_friction_per_ps: float | None = None
    mode: str = "unix"
    device: str = "cpu"

    def __post_init__(self) -> None:
        positive = {
            "--outer-fs": self.outer_fs,
            "--inner-fs": self.inner_fs,
            "--temperature-K": self.temperature_K,
            "--friction-per-ps": self.friction_per_ps,
        }
        for name, value in positive.items():
            if not value > 0:
                raise UserError(f"{name} is {value:g}: give a number above 0.")
        hydrogen = self.hydrogen_friction_per_ps
        if hydrogen is not None and not self.friction_per_ps <= hydrogen < math.inf:
            raise UserError(
                f"--hydrogen-friction-per-ps is {hydrogen:g}: give at least the "
                f"{self.friction_per_ps:g} of --friction-per-ps."
            )
        if abs(self.outer_fs / self.inner_fs - self.n_inner) > 1e-9 or self.n_inner < 1:
            raise UserError(
                f"--outer-fs {self.outer_fs:g} is no multiple of --inner-fs {self.inner_fs:g}: the "
                "outer step is made of whole inner steps."
            )
        if self.student is None and self.n_inner != 1:
            raise UserError(
                f"--student none with --outer-fs {self.outer_fs:g} and --inner-fs "
                f"{self.inner_fs:g}: without a student both time steps are the same."
            )
        for name, spec in (("--teacher", self.teacher), ("--student", self.student or "")):
            if "," in spec or "{" in spec:
                raise UserError(
                    f"{name} {spec!r} has a comma or brace, which i-PI's <parameters> cannot hold: "
                    "rename the file, or wrap the calculator in a function of your own."
                )

    @property
    def n_inner(self) -> int:
        """Inner steps per outer step."""
        return round(self.outer_fs / self.inner_fs)


def socket_name(folder: Path, role: str) -> str:
    """Return a socket address that is short, readable and different for every folder."""
    folder = folder.resolve()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name)[:24]
    return f"{readable}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}-{role}"


def input_xml(protocol: Protocol, folder: Path) -> str:
    """Return the text of ``input.xml`` for a folder."""
    sockets = [
        _SOCKET.format(
            name=role,
            mode=protocol.mode,
            address=socket_name(folder, role),
            model=escape(spec),
            device=protocol.device,
        )
        for role, spec in (("teacher", protocol.teacher), ("student", protocol.student))
        if spec is not None
    ]
    n_inner = protocol.n_inner
    comment = f"RESPA-BAOAB: {protocol.teacher} every {protocol.outer_fs:g} fs"
    comment += f", {protocol.student} every {protocol.inner_fs:g} fs" if protocol.student else ""
    mass = protocol.hydrogen_mass
    return _TEMPLATE.format(
        comment=comment.replace("--", "- -"),
        stride=protocol.stride,
        # RESTART goes back to the state of the newest outputs, so that none is repeated
        often=max(n for n in range(1, 6) if protocol.stride % n == 0),
        checkpoint_stride=min(200, protocol.steps),
        steps=protocol.steps,
        seed=protocol.seed,
        sockets="\n".join(sockets),
        masses_note=f" (hydrogens {mass:g} Da)" if mass else "",
        temperature=protocol.temperature_K,
        forces=_TWO_LEVELS.format(n_inner=n_inner) if protocol.student else _ONE_LEVEL,
        nmts=f"[ 1, {n_inner} ]" if protocol.student else "[ 1 ]",
        outer_fs=protocol.outer_fs,
        clip=CLIP_EV_A,
        hydrogen_friction=""
        if protocol.hydrogen_friction_per_ps is None
        else _HYDROGEN_FRICTION.format(friction=protocol.hydrogen_friction_per_ps),
        tau_fs=1000.0 / protocol.friction_per_ps,
    )
