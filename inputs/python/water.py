"""64 water molecules with SO3LR every 6 fs and its student every 1 fs, in this process."""

from ase.io import read

import mts_driver as mts

atoms = read("inputs/water64/start.extxyz")
run = mts.simulate(
    atoms,
    teacher="so3lr",
    student="water",
    outer_fs=6,
    inner_fs=1,
    temperature_K=300,
    friction_per_ps=1,
    hydrogen_mass_Da=4,
    steps=200,
    seed=1,
    trajectory="water.extxyz",
    stride=5,
)
print(run.temperatures_K, run.ns_per_day)
