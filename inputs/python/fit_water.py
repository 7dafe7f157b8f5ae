"""Three-site water, from TIP3P's numbers, fitted to measured g(r) and heat of vaporisation.

python inputs/python/fit_water.py SOPER.txt, from the root of the repository; SOPER.txt has columns
r, g_OO, error, g_OH, error, g_HH, error (Soper, ISRN Phys. Chem. 2013, 279463).
"""

import sys
from pathlib import Path

from ase.io import read

from mts_driver.potentials.classical.file import write_model
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.water import flexible_water
from mts_driver.refinement.refine import refine
from mts_driver.refinement.settings import RefineSettings

WATER = "inputs/water64/start.extxyz"
FORMS = {
    "lennard-jones": ["epsilon_eV.OW", "sigma_A.OW"],
    "soft-core": ["epsilon_eV.OW", "sigma_A.OW"],
    "double-exponential": ["epsilon_eV.OW", "r_min_A.OW"],
    "buckingham": ["A_eV.OW", "B_per_A.OW", "C_eV_A6.OW"],
}

# averages do not depend on friction, and gradients through a trajectory grow much less with it
settings = RefineSettings(
    temperature_K=298.0,
    friction_per_ps=20.0,
    picoseconds=0.5,
    sample_fs=20.0,
    replicas=4,
    updates=50,
    learning_rate=0.005,
    decay=0.2,
)
numbers = read(WATER).numbers.tolist()
for form, sizes in FORMS.items():
    folder = Path(f"water-{form}")
    folder.mkdir(exist_ok=True)
    start = folder / "start.json"
    tables = flexible_water("TIP3P", form=form, cutoff_A=6.0)
    write_model(MolecularForceField(tables, numbers), start)
    refine(
        f"classical:{start}",
        WATER,
        output=folder / "fitted",
        rdf_file=sys.argv[1],
        vaporisation_kJ_mol=46.9,
        train=["charge_e.HW", "bond_length_A.OW-HW", "angle_rad.HW-OW-HW", *sizes],
        settings=settings,
        report=lambda stage, done, total, form=form: print(form, stage, done, "of", total),
    )
