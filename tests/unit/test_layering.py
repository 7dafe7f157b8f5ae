"""The layers of DESIGN §2, read from the source; and constants that two layers hold."""

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
LONGEST_FILE = 400

# optional packages, and the modules that may import them; benchmarks call peers as their users do
WRAPPERS = {
    "freud": ("mts_driver/analysis/rdf.py",),
    "so3krates_torch": ("mts_driver/potentials/so3lr", "mts_driver/bench/"),
    "torch_geometric": ("mts_driver/potentials/so3lr", "mts_driver/bench/"),
    "mpi4py": ("mts_driver/drivers/mpi",),
    "zmq": ("mts_driver/drivers/zmq",),
    "rdkit": ("mts_driver/distillation/starting_systems/molecules.py",),
    "packmol": ("mts_driver/distillation/starting_systems/packing.py",),
    "h5py": ("mts_driver/distillation/starting_systems/spice.py",),
    "openmm": ("mts_driver/bench/peer_openmm.py",),
}
# import names that are not the names of their distributions
DISTRIBUTIONS = {
    "freud": "freud-analysis",
    "so3krates_torch": "so3krates-torch",
    "torch_geometric": "torch-geometric",
    "zmq": "pyzmq",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(source: str) -> set[str]:
    """Absolute modules that a source imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would escape this test"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def imports(path: Path) -> set[str]:
    return imports_of(path.read_text())


def roots(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def third_party(path: Path) -> set[str]:
    return roots(path) - set(sys.stdlib_module_names) - set(PACKAGES)


def within(folder: str) -> list[Path]:
    return [path for path in FILES if name_of(path).startswith(folder)]


def reaches(path: Path, layer: str) -> list[str]:
    return [m for m in imports(path) if m == layer or m.startswith(f"{layer}.")]


def test_the_reader_of_imports_sees_all_of_them():
    source = "import a.b\nfrom c import d\ndef f():\n    from e.g import h\n    import i as j"
    assert imports_of(source) == {"a.b", "c", "c.d", "e.g", "e.g.h", "i"}


def test_there_is_something_to_check():
    assert len(within("integrators/")) > 5
    assert len(within("mts_driver/")) > 20


def test_the_splitting_needs_the_standard_library_only():
    assert not third_party(ROOT / "integrators/splitting.py")
    assert not reaches(ROOT / "integrators/splitting.py", "integrators")


@pytest.mark.parametrize("path", within("integrators/"), ids=name_of)
def test_integrators_stand_alone(path):
    assert "mts_driver" not in roots(path)
    allowed = {"numpy", "torch"} | ({"ipi"} if path.name.startswith("ipi_") else set())
    allowed |= {"numba"} if path.name.endswith("_kernel.py") else set()
    assert third_party(path) <= allowed


def test_the_protocol_is_bytes_and_arrays():
    path = ROOT / "mts_driver/drivers/ipi_socket/protocol.py"
    assert third_party(path) <= {"numpy"}
    assert "socket" not in roots(path)
    ours = {module for module in imports(path) if module.split(".")[0] in PACKAGES}
    assert ours == {"mts_driver.errors", "mts_driver.errors.UserError"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_imports_the_command_line(path):
    if not name_of(path).startswith("mts_driver/cli/"):
        assert not reaches(path, "mts_driver.cli")


@pytest.mark.parametrize("path", within("mts_driver/potentials/"), ids=name_of)
def test_potentials_know_no_layer_above_them(path):
    for layer in ("drivers", "distillation", "analysis", "bench"):
        assert not reaches(path, f"mts_driver.{layer}")


@pytest.mark.parametrize("path", within("mts_driver/drivers/"), ids=name_of)
def test_drivers_neither_train_nor_analyse(path):
    for layer in ("distillation", "analysis", "bench"):
        assert not reaches(path, f"mts_driver.{layer}")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_needs_the_benchmarks(path):
    if not name_of(path).startswith(("mts_driver/bench/", "mts_driver/cli/bench.py")):
        assert not reaches(path, "mts_driver.bench")


@pytest.mark.parametrize("path", within("mts_driver/analysis/"), ids=name_of)
def test_analysis_reads_files_and_nothing_else(path):
    assert "torch" not in roots(path)
    for layer in ("drivers", "potentials", "distillation"):
        assert not reaches(path, f"mts_driver.{layer}")


@pytest.mark.parametrize(
    "module",
    [
        *("mts_driver.analysis.report", "mts_driver.cli.main"),
        *("mts_driver.runs.launcher", "mts_driver.structures.files"),
    ],
)
def test_torch_is_not_loaded_in_passing(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_optional_packages_stay_in_their_wrappers(path):
    for module in third_party(path) & set(WRAPPERS):
        assert name_of(path).startswith(WRAPPERS[module])


def requirement_names(lines: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in lines}


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = requirement_names(project["dependencies"])
    extras = project["optional-dependencies"].values()
    optional = requirement_names([line for extra in extras for line in extra])
    for path in FILES:
        for module in third_party(path):
            declared = optional if module in WRAPPERS else core
            assert DISTRIBUTIONS.get(module, module) in declared, (name_of(path), module)


def test_pip_installs_the_ipi_that_the_plugin_works_with():
    from integrators.ipi.versions import requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert requirement() in project["dependencies"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


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
