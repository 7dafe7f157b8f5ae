"""What the contracts of import-linter (pyproject.toml) cannot say of the source."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("integrators", "mts_driver")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LONGEST_FILE = 400
MOST_MODULES = 12
"""In a folder; those of sub-commands and of benchmarks are siblings, and found by their names."""
# import names that are not the names of their distributions
DISTRIBUTIONS = {
    "freud": "freud-analysis",
    "so3krates_torch": "so3krates-torch",
    "torch_geometric": "torch-geometric",
    "metatomic": "metatomic-torch",
    "metatensor": "metatensor-torch",
    "zmq": "pyzmq",
    "MDAnalysis": "mdanalysis",
    "warp": "warp-lang",
    "nvalchemiops": "nvalchemi-toolkit-ops",
}


def third_party(path: Path) -> set[str]:
    """Packages that a source imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, path
            found.add(node.module)
    return {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - set(PACKAGES)


def contract(name: str) -> dict[str, list[str]]:
    (found,) = (c for c in PROJECT["tool"]["importlinter"]["contracts"] if name in c["name"])
    return found


def requirement_names(lines: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in lines}


def test_every_import_is_a_declared_dependency():
    core = requirement_names(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"].values()
    optional = requirement_names([line for extra in extras for line in extra])
    wrapped = contract("Optional packages")["forbidden_modules"]
    assert sum(len(third_party(path)) for path in FILES) > 100
    for path in FILES:
        for module in third_party(path):
            declared = optional if module in wrapped else core
            assert DISTRIBUTIONS.get(module, module) in declared, (path, module)


def test_files_and_folders_stay_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, path
    for folder in {path.parent for path in FILES if "mts_driver" in path.parts}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES or folder.name in ("cli", "bench"), folder


@pytest.mark.parametrize(
    "module",
    [
        *("mts_driver.analysis.report", "mts_driver.cli.main"),
        *("mts_driver.runs.launcher", "mts_driver.structures.files"),
        *("mts_driver.drivers.evaluator", "mts_driver.potentials.ase"),  # seconds of each start
        "mts_driver.drivers.mpi",  # before it is known how many threads torch may have
    ],
)
def test_torch_is_not_loaded_in_passing(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_pip_installs_the_ipi_that_the_plugin_works_with():
    from integrators.ipi.versions import requirement

    assert requirement() in PROJECT["project"]["dependencies"]


def test_constants_that_two_layers_hold_agree():
    from ipi.utils.units import Constants, unit_to_internal, unit_to_user

    from integrators import bath, levels
    from integrators.ipi import integrator as ipi_integrator
    from mts_driver import units
    from mts_driver.drivers import limits
    from mts_driver.structures.reading import checks

    assert bath.BOLTZMANN_EV_K == units.BOLTZMANN_EV_K
    assert limits.THINNEST_A == checks.THINNEST_A
    paper = 150 * units.KCAL_MOL_EV
    assert paper == pytest.approx(levels.DEFAULT_CLIP, rel=1e-5)
    clip = ipi_integrator.DEFAULT_CLIP * units.HARTREE_PER_BOHR_EV_A
    assert clip == pytest.approx(levels.DEFAULT_CLIP, rel=1e-6)
    # i-PI's, whose files and sockets the numbers go through; it has CODATA 2010
    kelvin = unit_to_internal("temperature", "kelvin", 1.0)
    for theirs, ours in (
        (Constants.kb * kelvin * units.HARTREE_EV, units.BOLTZMANN_EV_K),
        (unit_to_user("length", "angstrom", 1.0), units.BOHR_A),
        (unit_to_user("energy", "electronvolt", 1.0), units.HARTREE_EV),
        (unit_to_user("time", "femtosecond", 1.0), units.AU_TIME_FS),
        (unit_to_user("mass", "dalton", 1.0), units.AMU_PER_ELECTRON_MASS),
    ):
        assert ours == pytest.approx(theirs, rel=2e-6)
