"""Builds small i-PI inputs on analytic potentials, and runs them."""

from pathlib import Path

import numpy as np
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_internal

HERE = Path(__file__).parent
PES = HERE / "quartic_pes.py"
FS = unit_to_internal("time", "femtosecond", 1.0)

XYZ = """6
# CELL(abcABC): 20 20 20 90 90 90 positions{atomic_unit} cell{atomic_unit}
O 0.10 0.20 0.30
H 0.55 -0.25 0.35
H -0.50 -0.20 0.15
O -0.15 0.30 -0.40
H 0.45 0.10 -0.60
H -0.05 0.50 0.25
"""

LANGEVIN = "<thermostat mode='langevin'><tau units='femtosecond'>40</tau></thermostat>"
PILE = "<thermostat mode='pile_l'><tau units='femtosecond'>40</tau></thermostat>"
BAROSTAT = f"<barostat mode='isotropic'><tau units='femtosecond'>200</tau>{LANGEVIN}</barostat>"
# after Raiteri, Gale and Bussi, who measure strain from a cell that is given
REFERENCE_CELL = BAROSTAT.replace("isotropic", "anisotropic").replace(
    "</barostat>", "<h0> [20, 0, 0, 0, 20, 0, 0, 0, 20] </h0></barostat>"
)
# two additional momenta, coupled to damp between 1/(20 fs) and 1/(5 fs)
GLE = """<thermostat mode='gle'><A shape='(3,3)'>
  [ 1e-3, 2e-3, 0.0, -2e-3, 4e-3, 1e-3, 0.0, -1e-3, 8e-3 ]</A></thermostat>"""
# the same for each of four normal modes
NM_GLE = (
    GLE.replace("'gle'", "'nm_gle'")
    .replace("(3,3)", "(4,3,3)")
    .replace(
        "[ 1e-3, 2e-3, 0.0, -2e-3, 4e-3, 1e-3, 0.0, -1e-3, 8e-3 ]",
        "[" + ", ".join(["1e-3, 2e-3, 0.0, -2e-3, 4e-3, 1e-3, 0.0, -1e-3, 8e-3"] * 4) + "]",
    )
)
# five distances in two clusters of three atoms, the first of which is rigid
HELD = f"<constrain> {HERE / 'held.txt'} </constrain>"
TWO_LEVELS = (("teacher", "[1, 0]"), ("student", "[-1, 1]"))
ONE_LEVEL = (("teacher", "[1]"),)


def forcefield(name, parameters, pes=PES):
    """An <ffdirect> on an analytic potential."""
    return (
        f"<ffdirect name='{name}'><pes>custom</pes><pes_path>{pes}</pes_path>"
        f"<parameters>{{{parameters}}}</parameters></ffdirect>"
    )


def simulation_xml(
    folder,
    *,
    splitting="respa-baoab",
    mode="nvt",
    nmts="[1, 4]",
    weights=TWO_LEVELS,
    dynamics=LANGEVIN,
    beads=1,
    fixcom=False,
    timestep_fs=1.0,
    temperature_K=300,
    steps=20,
    output="",
    extra_ff="",
    teacher="k: 0.10, q: 0.02",
    student="k: 0.09",
    fixatoms="",
    xyz=XYZ,
    pes=PES,
    nbeads=None,
    bias="",
    seed=31,
    verbosity="quiet",
):
    """Text of an input; writes the structure into ``folder``. ``nbeads`` is one number a force."""
    (folder / "start.xyz").write_text(xyz)
    on_beads = nbeads or [""] * len(weights)
    forces = "".join(
        f"<force forcefield='{name}'{on}><mts_weights>{w}</mts_weights></force>"
        for (name, w), on in zip(
            weights, [f" nbeads='{b}'" if b else "" for b in on_beads], strict=True
        )
    )
    return f"""
<simulation verbosity='{verbosity}' floatformat='%25.16e'>
  <output prefix='out'>{output}</output>
  <total_steps>{steps}</total_steps>
  <prng><seed>{seed}</seed></prng>
  {extra_ff}
  {forcefield("teacher", teacher, pes)}
  {forcefield("student", student, pes)}
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz'>{folder}/start.xyz</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces>{forces}</forces>
    <ensemble><temperature units='kelvin'>{temperature_K}</temperature>
      <pressure units='bar'>1</pressure>
      <stress units='bar'>[1, 0, 0, 0, 1, 0, 0, 0, 1]</stress>{bias}</ensemble>
    <motion mode='dynamics'>
      <fixcom>{fixcom}</fixcom>{fixatoms}
      <dynamics mode='{mode}' splitting='{splitting}'>
        <nmts>{nmts}</nmts>
        <timestep units='femtosecond'>{timestep_fs}</timestep>
        {dynamics}
      </dynamics>
    </motion>
  </system>
</simulation>"""


def advance(simulation, steps):
    """Positions and momenta of all beads after so many outer steps."""
    for _ in range(steps):
        simulation.syslist[0].motion.step()
    beads = simulation.syslist[0].beads
    return np.array(dstrip(beads.q)), np.array(dstrip(beads.p))
