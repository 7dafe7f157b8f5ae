"""The i-PI input that ``mts prepare`` writes: plain i-PI XML, meant to be read and edited."""

import hashlib
import math
import re
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from mts_driver.drivers.ipi_socket.transport import UNIX_PREFIX
from mts_driver.runs.input.settings import RunSettings
from mts_driver.thermostats import CUTOFF_PER_CM, high_pass_noise
from mts_driver.units import KCAL_MOL_EV, LIGHT_CM_FS

CLIP_EV_A = 150.0 * KCAL_MOL_EV
"""Bound on |F_teacher − F_student| of an atom (Cattin et al.)."""

PISTON_FS = 1000.0
"""Time constant of the barostat, and of the thermostat of its own."""

_SIMULATION = """\
<!-- {comment}
     Run it with `mts run input.xml`. -->
<simulation verbosity='low' threading='False' safe_stride='{often}'>
  <output prefix='simulation'>
    <properties filename='out' stride='{often}'> [ step, time{{picosecond}}, \
conserved{{electronvolt}}, potential{{electronvolt}}, {kinetic}{{electronvolt}}, \
temperature{{kelvin}}{volume} ] </properties>
    <trajectory filename='pos' stride='{stride}' format='xyz' cell_units='angstrom'{bead}> \
positions{{angstrom}} </trajectory>{store}
    <checkpoint filename='checkpoint' stride='{checkpoint_stride}' overwrite='True'/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> {seed} </seed> </prng>
{sockets}
{systems}{exchange}
</simulation>
"""

_STORE = """
    <!-- for `mts superres apply`: the frames in between -->
    <trajectory filename='superres_positions' stride='1' format='ase' cell_units='ase'> \
positions{ase} </trajectory>
    <trajectory filename='superres_velocities' stride='1' format='xyz'> velocities </trajectory>
    <trajectory filename='superres_forces' stride='1' format='xyz'> forces </trajectory>"""

_SOCKET = """\
  <ffsocket name='{name}' mode='{mode}' pbc='False'>
    <address> {address} </address>
    <latency> 1e-4 </latency>
    <timeout> 600 </timeout>{batch}
    <parameters> {{ model: {model}, device: {device}{periodic} }} </parameters>
  </ffsocket>"""

_ZMQ = """\
  <!-- {note} -->
  <ffdirect name='{name}' pbc='False'>
    <pes> custom </pes> <pes_path> {file} </pes_path>{batch}
    <parameters> {{ address: ipc://{address}, model: {model}, device: {device}{periodic} }} \
</parameters>
  </ffdirect>"""
_INNER_NOTE = "takes the inner steps in the student's driver: one message an outer step"
_OUTER_NOTE = "one driver holds both models, and takes whole outer steps"
ZMQ_FILE = "ipi_zmq.py"
ZMQ_TEXT = """\
\"\"\"What the <ffdirect> of input.xml loads: it asks the student's driver over ZeroMQ.\"\"\"

from mts_driver.drivers.zmq.ipi_pes import __DRIVER_CLASS__, __DRIVER_NAME__, ZmqPES

__all__ = ["ZmqPES", "__DRIVER_CLASS__", "__DRIVER_NAME__"]
"""

VELOCITIES_FILE = "velocities.xyz"

_SYSTEM = """\
  <system{prefix}>
    <initialize nbeads='{beads}'>
      <!-- cell, elements, masses{masses_note} and positions -->
      <file mode='ase'> start.extxyz </file>
      {velocities}
    </initialize>
    <forces>
{forces}
    </forces>
    <ensemble> <temperature units='kelvin'> {temperature:g} </temperature>{pressure} </ensemble>
    <motion mode='dynamics'>{held}
      <dynamics mode='{ensemble}' splitting='respa-baoab'>
        <timestep units='femtosecond'> {outer_fs:g} </timestep>
        <nmts> {nmts} </nmts>
        <force_clip units='ev/ang'> {clip:.4f} </force_clip>{on_hole}\
{hydrogen_friction}{constrain}{device_steps}
        {thermostat}{barostat}
      </dynamics>
    </motion>
  </system>"""

_THERMAL = "<velocities mode='thermal' units='kelvin'> {temperature:g} </velocities>"
_KEPT = f"<velocities mode='xyz'> {VELOCITIES_FILE} </velocities>"

_HELD = """
      <fixcom> False </fixcom>
      <fixatoms> [ {atoms} ] </fixatoms>"""

_HYDROGEN_FRICTION = """
        <hydrogen_friction units='inverseps'> {friction:g} </hydrogen_friction>"""

CONSTRAINTS_FILE = "constraints.txt"
_CONSTRAIN = f"""
        <constrain> {CONSTRAINTS_FILE} </constrain>"""

_WHITE = """<thermostat mode='{mode}'>
          <tau units='femtosecond'> {tau_fs:g} </tau>
        </thermostat>"""
_COLOURED = """\
<!-- friction of {low:g}/ps on slow motion, {high:g}/ps more on motion above {cutoff:g}/cm -->
        <thermostat mode='gle'>
          <A shape='({size}, {size})' units='inversecm'>
            [ {matrix} ]
          </A>
        </thermostat>"""

_BAROSTAT = """
        <barostat mode='isotropic'>
          <tau units='femtosecond'> {tau_fs:g} </tau>
          <thermostat mode='langevin'> <tau units='femtosecond'> {tau_fs:g} </tau> </thermostat>
        </barostat>"""

_TWO_LEVELS = """\
      <!-- level 0: teacher - student, once per outer step; level 1: student, {n_inner} times -->
      <force forcefield='teacher'> <mts_weights> [ 1, 0 ] </mts_weights> </force>
      <force forcefield='student'> <mts_weights> [ -1, 1 ] </mts_weights> </force>"""
_CONTRACTED = """\
      <!-- level 0: teacher - student, once per outer step on {few} of {beads} beads (ring-polymer
           contraction); level 1: student, {n_inner} times on all -->
      <force forcefield='teacher' nbeads='{few}'> <mts_weights> [ 1, 0 ] </mts_weights> </force>
      <force forcefield='student' nbeads='{few}'> <mts_weights> [ -1, 0 ] </mts_weights> </force>
      <force forcefield='student'> <mts_weights> [ 0, 1 ] </mts_weights> </force>"""
_ONE_LEVEL = """\
      <force forcefield='teacher'> <mts_weights> [ 1 ] </mts_weights> </force>"""

_EXCHANGE = """
  <!-- files follow a replica through its temperatures; `i-pi-remdsort input.xml` sorts them -->
  <smotion mode='remd'>
    <remd> <stride> {stride} </stride> </remd>
  </smotion>"""
EXCHANGE_STRIDE = 10
"""Outer steps between two attempts on average."""


def socket_name(folder: Path, role: str) -> str:
    """Return a socket address that is short, readable and different for every folder."""
    folder = folder.resolve()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name)[:24]
    return f"{readable}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}-{role}"


def input_xml(protocol: RunSettings, folder: Path) -> str:
    """Return the text of ``input.xml`` for a folder."""
    comment = f"RESPA-BAOAB: {protocol.teacher} every {protocol.outer_fs:g} fs"
    if protocol.student:
        comment += f", {protocol.student} every {protocol.inner_fs:g} fs"
    temperatures = (protocol.temperature_K, *protocol.exchange_K)
    # RESTART goes back to the state of the newest outputs, so that none is repeated
    every = 1 if protocol.store_for_superres else protocol.stride
    often = max(n for n in range(1, 6) if every % n == 0)
    quantum = protocol.beads > 1
    return _SIMULATION.format(
        comment=comment.replace("--", "- -"),
        stride=protocol.stride,
        often=often,
        kinetic="kinetic_cv" if quantum else "kinetic_md",
        volume="" if protocol.pressure_bar is None else ", volume{angstrom3}, pressure_cv{bar}",
        bead=" bead='0'" if quantum else "",
        store=_STORE if protocol.store_for_superres else "",
        checkpoint_stride=min(200, protocol.steps),
        steps=protocol.steps,
        seed=protocol.seed,
        sockets=_sockets(protocol, folder),
        systems="\n".join(_system(protocol, k, kelvin) for k, kelvin in enumerate(temperatures)),
        exchange=_EXCHANGE.format(stride=EXCHANGE_STRIDE) if protocol.exchange_K else "",
    )


def _sockets(protocol: RunSettings, folder: Path) -> str:
    models = (
        ("teacher", protocol.teacher, protocol.slow_beads),
        ("student", protocol.student, protocol.beads),
    )
    zmq, both = protocol.mode == "zmq", protocol.device_steps > 0
    # an <ffdirect> waits for whole batches, of all beads and of the contracted ones
    whole = math.gcd(protocol.beads, protocol.slow_beads)
    return "\n".join(
        _ZMQ.format(
            name=role,
            note=_OUTER_NOTE if both else _INNER_NOTE,
            file=ZMQ_FILE,
            address=UNIX_PREFIX + socket_name(folder, "both" if both else role),
            batch=f"\n    <batch_size> {whole} </batch_size>" if whole > 1 else "",
            model=escape(spec),
            device=protocol.device,
            periodic="" if protocol.periodic else ", periodic: no",
        )
        if zmq and (both or role == "student")
        else _SOCKET.format(
            name=role,
            mode="unix" if zmq else protocol.mode,
            address=socket_name(folder, role),
            batch=f"\n    <batch_size> {beads} </batch_size>" if beads > 1 else "",
            model=escape(spec),
            device=protocol.device,
            periodic="" if protocol.periodic else ", periodic: no",
        )
        for role, spec, beads in models
        if spec is not None
    )


def _system(protocol: RunSettings, number: int, temperature_K: float) -> str:
    mass, friction = protocol.hydrogen_mass, protocol.hydrogen_friction_per_ps
    pressure = protocol.pressure_bar
    forces = _ONE_LEVEL
    if protocol.student:
        forces = _TWO_LEVELS if protocol.slow_beads == protocol.beads else _CONTRACTED
    return _SYSTEM.format(
        prefix=f" prefix='replica{number}'" if protocol.exchange_K else "",
        beads=protocol.beads,
        masses_note=f" (hydrogens {mass:g} Da)" if mass else "",
        temperature=temperature_K,
        velocities=_KEPT
        if protocol.keep_velocities
        else _THERMAL.format(temperature=temperature_K),
        held=_HELD.format(atoms=", ".join(map(str, protocol.held))) if protocol.held else "",
        forces=forces.format(
            n_inner=protocol.n_inner, few=protocol.slow_beads, beads=protocol.beads
        ),
        pressure="" if pressure is None else f" <pressure units='bar'> {pressure:g} </pressure>",
        ensemble="nvt" if pressure is None else "npt",
        outer_fs=protocol.outer_fs,
        nmts=f"[ 1, {protocol.n_inner} ]" if protocol.student else "[ 1 ]",
        clip=CLIP_EV_A,
        on_hole=""
        if protocol.on_hole == "log"
        else f"\n        <on_hole> {protocol.on_hole} </on_hole>",
        hydrogen_friction="" if friction is None else _HYDROGEN_FRICTION.format(friction=friction),
        device_steps=f"\n        <device_steps> {protocol.device_steps} </device_steps>"
        if protocol.device_steps
        else "",
        constrain=_CONSTRAIN if protocol.constrained else "",
        thermostat=_thermostat(protocol),
        barostat="" if pressure is None else _BAROSTAT.format(tau_fs=PISTON_FS),
    )


def _thermostat(protocol: RunSettings) -> str:
    if not protocol.high_pass:
        return _WHITE.format(mode=protocol.thermostat, tau_fs=1000.0 / protocol.friction_per_ps)
    both = protocol.friction_per_ps, protocol.high_friction_per_ps
    per_fs = np.array(high_pass_noise(*both).drift_matrix)
    matrix = per_fs / (2.0 * math.pi * LIGHT_CM_FS)
    return _COLOURED.format(
        low=protocol.friction_per_ps,
        high=protocol.high_friction_per_ps,
        cutoff=CUTOFF_PER_CM,
        size=len(matrix),
        matrix=", ".join(repr(float(value)) for value in matrix.ravel()),
    )
