"""Diamond by Stillinger and Weber's form, then by a small network, fitted to its stiffness.

python inputs/python/fit_diamond.py FOLDER, from the root of the repository. C11, C12 and C44 are to
be 1079, 124 and 578 GPa (McSkimin and Andreatch, J. Appl. Phys. 1972, 43, 2944), the stress zero.
"""

import sys
from pathlib import Path

from ase.build import bulk
from ase.io import write

import mts_driver as mts
from mts_driver.potentials.classical.file import write_model
from mts_driver.potentials.classical.parameters import train_only
from mts_driver.potentials.classical.stillinger_weber import SILICON, StillingerWeber
from mts_driver.refinement.refine import refine
from mts_driver.refinement.settings import RefineSettings

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
cell = bulk("C", "diamond", a=3.567, cubic=True)
write(folder / "diamond.extxyz", cell)
write(folder / "diamond64.extxyz", cell.repeat(2))


def fitted(model: str, name: str, *, updates: int, learning_rate: float) -> Path:
    """Fit elastic constants; they are those of the crystal at rest, and need no trajectory."""
    found = refine(
        model,
        folder / "diamond.extxyz",
        output=folder / name,
        elastic_GPa=(1079.0, 124.0, 578.0),
        settings=RefineSettings(
            picoseconds=0.002,
            sample_fs=2.0,
            settle_ps=0.0,
            replicas=1,
            blocks=2,
            updates=updates,
            learning_rate=learning_rate,
            decay=0.01,
            longest_gradient=10.0,
        ),
        report=lambda stage, done, total: print(name, stage, done, "of", total),
    )
    print(name, found.results["observables"]["elastic constants"]["after"])
    return found.model


# silicon's form, of carbon's size and bond energy
start = StillingerWeber(cell.numbers.tolist(), {**SILICON, "epsilon_eV": 3.68, "sigma_A": 1.376})
train_only(start, ["epsilon_eV", "sigma_A", "A", "B", "a", "lambda_", "gamma"])
write_model(start, folder / "silicon.json")
classical = fitted(f"classical:{folder}/silicon.json", "classical", updates=200, learning_rate=0.02)

mts.distill(
    [folder / "diamond64.extxyz"],
    teacher=f"classical:{classical}",
    output=folder / "network.safetensors",
    frames=60,
    updates=1500,
)
network = fitted(
    f"student:{folder}/network.safetensors", "network", updates=250, learning_rate=0.01
)

for model in (f"classical:{classical}", f"student:{network}"):
    warm = mts.simulate(
        folder / "diamond64.extxyz",
        steps=2000,
        teacher=model,
        student=None,
        outer_fs=1.0,
        seed=1,
    )
    away_A = warm.atoms.positions - cell.repeat(2).positions
    away_A -= away_A.mean(0)
    print(model, warm.temperatures_K, "atoms off their sites, Å, rms:", away_A.std() * 3**0.5)
