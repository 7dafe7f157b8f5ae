"""Alanine dipeptide in water under OpenMM: SO3LR every 3.5 fs, its student every 1.75 fs.

python inputs/openmm/alanine_dipeptide.py
"""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

from mts_driver.interfaces.openmm import add_forces

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
HYDROGEN_MASS = 4 * unit.dalton

pdb = app.PDBFile(str(Path(__file__).with_name("alanine_dipeptide.pdb")))
system = openmm.System()
for atom in pdb.topology.atoms():
    system.addParticle(atom.element.mass)
for pair in pdb.topology.bonds():  # heavy hydrogens, as `hydrogenMass` of ForceField makes them
    light, heavy = sorted(pair, key=lambda atom: atom.element.atomic_number)
    if light.element is app.element.hydrogen:
        moved = HYDROGEN_MASS - light.element.mass
        system.setParticleMass(light.index, HYDROGEN_MASS)
        system.setParticleMass(heavy.index, system.getParticleMass(heavy.index) - moved)
system.addForce(openmm.CMMotionRemover())

forces = add_forces(system, pdb.topology, teacher="so3lr", student="general")
integrator = openmm.MTSLangevinIntegrator(
    300 * unit.kelvin, 1 / unit.picosecond, 3.5 * unit.femtosecond, forces.groups(2)
)
simulation = app.Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
simulation.reporters.append(
    app.StateDataReporter(
        sys.stdout, 5, step=True, potentialEnergy=True, temperature=True, speed=True
    )
)
simulation.reporters.append(app.DCDReporter("alanine_dipeptide.dcd", 5))
simulation.step(STEPS)
print(f"max |ΔF| {forces.max_force_difference_eV_A:.2f} eV/Å, clipped {forces.clip_events}")
