"""Oxygen in water, whose diffusion is fitted: what takes time, and no reweighting can reach.

python inputs/python/fit_oxygen.py FOLDER, from the root of the repository. D is to be 2.0e-9 m²/s.
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from ase.io import read, write

from mts_driver.potentials.classical.file import write_model
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.water import flexible_water
from mts_driver.refinement.refine import refine
from mts_driver.refinement.settings import RefineSettings

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)

# four of 64 molecules, as far from each other as can be, become O2
water = read("inputs/water64/start.extxyz")
oxygens = water.positions[::3]
chosen = [0]
while len(chosen) < 4:
    _, apart = get_distances(oxygens, oxygens[chosen], cell=water.cell, pbc=True)
    chosen.append(int(apart.min(1).argmax()))
kept = [k for k in range(len(water)) if k // 3 not in chosen]
mixture = Atoms(water.numbers[kept], water.positions[kept], cell=water.cell, pbc=True)
directions = np.random.default_rng(0).normal(size=(4, 3))
for middle, along in zip(oxygens[chosen], directions, strict=True):
    half = 0.605 * along / np.linalg.norm(along)
    mixture += Atoms("O2", [middle - half, middle + half])
write(folder / "start.extxyz", mixture)

tables = flexible_water("SPC/Fw", cutoff_A=6.0, oxygen=True)
write_model(MolecularForceField(tables, mixture.numbers.tolist()), folder / "start.json")
found = refine(
    f"classical:{folder}/start.json",
    folder / "start.extxyz",
    output=folder / "fitted",
    diffusion=[("O2", 2.0)],
    train=["epsilon_eV.O2", "sigma_A.O2"],
    # displacements over 250 fs, each blamed on the forces of its last 200 fs: longer ones have
    # gradients that are nothing but noise
    settings=RefineSettings(
        temperature_K=298.0,
        picoseconds=4.0,
        replicas=4,
        follow_fs=250.0,
        sample_fs=250.0,
        window_fs=(250.0, 1000.0),
        truncation_fs=200.0,
        learning_rate=0.03,
        updates=14,
        blocks=6,
    ),
    report=lambda stage, done, total: print(stage, done, "of", total),
)
print(found.results["observables"])
