"""Every Python example of the documents, run as it stands there."""

import importlib
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.io import read
from documents import DOCUMENTS, README, ROOT, blocks, examples, section, shell_commands

from integrators.engine import run
from integrators.levels import TwoLevel
from integrators.splitting import respa_baoab
from integrators.state import Evaluation, initial_state
from mts_driver.potentials import load_potential
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A

EXTENDING = examples(DOCUMENTS["docs/pages/extending.md"])
WORKS = examples(DOCUMENTS["docs/pages/how-it-works.md"])
PYTHON = examples(DOCUMENTS["docs/pages/guide/python.md"])
OTHER = examples(DOCUMENTS["docs/pages/guide/other-programs.md"])
CLASSICAL = examples(DOCUMENTS["docs/pages/classical.md"])
LONG_S = 600.0
"""A net for what hangs, not a bound."""


def write(folder: Path, code: str) -> Path:
    """Put an example into the file that its first line names."""
    path = folder / Path(code.partition("\n")[0].removeprefix("# ")).name
    path.write_text(code)
    return path


def argon() -> Atoms:
    """32 atoms in a cell of 10.6 Å, out of their places."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=1)
    return atoms


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    one_thread = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return {**os.environ, **one_thread, "PYTHONPATH": path}


def start(*words: object, folder: Path) -> subprocess.Popen[str]:
    """Start ``mts`` or another program of this environment in a folder."""
    program = shutil.which(str(words[0]), path=Path(sys.executable).parent) or str(words[0])
    return subprocess.Popen(
        [program, *map(str, words[1:])],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )


def done(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, said
    return said


def test_every_python_example_has_a_name_and_a_test():
    tested = Path(__file__).read_text()
    for page, text in DOCUMENTS.items():
        for name in examples(text):
            assert page == "README.md" if not name else f'"{name}"' in tested, (page, name)
    assert len(blocks(README, "python")) == 1


def test_the_lines_of_the_readme(tmp_path, monkeypatch, capsys):
    """With a tenth of their steps: all the rest is as it stands."""
    (tmp_path / "inputs").symlink_to(ROOT / "inputs")
    monkeypatch.chdir(tmp_path)
    lines = blocks(README, "python")[0]
    assert lines.count("steps=200,") == 1
    (tmp_path / "lines.py").write_text(lines.replace("steps=200,", "steps=20,"))
    found = runpy.run_path("lines.py")["run"]
    frames = read("water.extxyz", ":")
    assert len(frames) == 5 and len(frames[0]) == 192
    assert found.properties["step"].tolist() == [0, 5, 10, 15, 20]
    np.testing.assert_allclose(frames[-1].positions, found.atoms.positions, atol=1e-6)
    assert 200 < found.temperatures_K["H"] < 400
    assert found.ns_per_day > 0 and found.holes.steps == 0
    assert str(found.temperatures_K) in capsys.readouterr().out


def test_the_forces_of_a_device(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nvalchemiops")
    (tmp_path / "inputs").symlink_to(ROOT / "inputs")
    monkeypatch.chdir(tmp_path)
    code = examples(DOCUMENTS["docs/pages/guide/gpu.md"])["same_forces.py"]
    runpy.run_path(str(write(tmp_path, code)))
    assert float(capsys.readouterr().out.split()[0]) < 1e-9


def test_a_trajectory_in_one_call(tmp_path, monkeypatch):
    argon().write(tmp_path / "argon.extxyz")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(write(tmp_path, PYTHON["one_call.py"])))["run"]
    assert len(read("run.extxyz", ":")) == 11 and Path("run.safetensors").is_file()
    assert found.properties["step"][-1] == 50 and found.holes.steps == 0
    atoms = found.atoms.copy()
    atoms.calc = LennardJones(sigma=3.405, epsilon=0.010323, rc=8.0, ro=6.4, smooth=True)
    np.testing.assert_allclose(found.atoms.get_forces(), atoms.get_forces(), atol=1e-6)


def test_multiple_time_steps_in_ases_dynamics(tmp_path, monkeypatch, capsys):
    argon().write(tmp_path / "argon.extxyz")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(write(tmp_path, PYTHON["with_ase.py"])))
    assert len(read("run.traj", ":")) == 6
    assert 0 < found["dyn"].temperatures_K["all"] < 200
    assert "Etot" in capsys.readouterr().out


def test_a_classical_force_field(tmp_path, monkeypatch):
    """And the tables of the page, which are files as they stand."""
    shutil.copy(ROOT / "inputs" / "water64" / "start.extxyz", tmp_path / "water.extxyz")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(write(tmp_path, CLASSICAL["classical_water.py"])))
    assert found["by_positions"].shape == found["forces"].shape == (192, 3)
    assert json.loads(Path("water.json").read_text())["trained"] == ["sigma_A.OW", "charge_e.HW"]
    argon, water = blocks(DOCUMENTS["docs/pages/classical.md"], "json")
    for table, numbers in ((argon, [18] * 4), (water, found["atoms"].numbers)):
        Path("model.json").write_text(table)
        model = load_potential("classical:model.json", numbers)
        trained = [name for name, one in model.named_parameters() if one.requires_grad]
        assert sorted(trained) == sorted(json.loads(table)["trained"])


def test_multiple_time_steps_under_openmm(tmp_path, monkeypatch):
    pytest.importorskip("openmm")
    argon().write(tmp_path / "argon.extxyz")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(write(tmp_path, OTHER["with_openmm.py"])))
    assert 0 < found["forces"].max_force_difference_eV_A < 0.1
    atoms, context = argon(), found["context"]
    atoms.positions = 10 * context.getState(positions=True).getPositions(asNumpy=True)._value
    atoms.calc = LennardJones(sigma=3.405, epsilon=0.010323, rc=8.0, ro=6.4, smooth=True)
    energy = context.getState(energy=True).getPotentialEnergy()._value * units.kJ / units.mol
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)


@pytest.mark.slow
def test_alanine_dipeptide_under_openmm(tmp_path):
    pytest.importorskip("openmm")
    pytest.importorskip("so3krates_torch")
    said = done(start("python", ROOT / "inputs/openmm/alanine_dipeptide.py", 6, folder=tmp_path))
    assert "clipped 0" in said and (tmp_path / "alanine_dipeptide.dcd").is_file()
    temperature_K = float(said.splitlines()[1].split(",")[2])
    assert 200 < temperature_K < 400


def test_a_teacher_that_is_an_ase_calculator(tmp_path):
    write(tmp_path, EXTENDING["argon.py"])
    argon().write(tmp_path / "argon.extxyz")
    commands = shell_commands(section(DOCUMENTS["docs/pages/extending.md"], "Any ASE calculator"))
    assert [words[:2] for words in commands] == [
        ["mts", "prepare"],
        ["mts", "run"],
    ]
    for words in commands:
        said = done(start(*words, folder=tmp_path))
    assert "5 steps of 20 fs" in said
    energies = np.loadtxt(tmp_path / "run" / "simulation.out")[:, 3]
    atoms = argon()
    atoms.calc = LennardJones(sigma=3.405, epsilon=0.010323, rc=8.0, ro=6.4, smooth=True)
    assert energies[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)


def test_a_potential_in_torch_has_forces_and_a_virial_that_are_derivatives(tmp_path):
    potential = runpy.run_path(str(write(tmp_path, EXTENDING["soft_spheres.py"])))["SoftSpheres"]()
    rng = np.random.default_rng(1)
    cell = torch.tensor([[7.0, 0, 0], [0.5, 6.5, 0], [0.2, -0.3, 8.0]], dtype=torch.float64)
    x = torch.tensor(rng.uniform(0, 7, (2, 8, 3)))
    for box in (cell, torch.zeros_like(cell)):
        found = potential(x, box)
        assert [tuple(a.shape) for a in found] == [(2,), (2, 8, 3), (2, 3, 3)]
        step = 1e-5
        direction = torch.tensor(rng.normal(size=x.shape))
        ends = [potential(x + s * step * direction, box).energy for s in (1, -1)]
        along = (found.forces * direction).sum((-2, -1))
        torch.testing.assert_close((ends[1] - ends[0]) / (2 * step), along, rtol=0, atol=1e-7)
        strain = torch.tensor(rng.normal(size=(3, 3)))
        ends = [
            potential(x + s * step * x @ strain, box + s * step * box @ strain).energy
            for s in (1, -1)
        ]
        slope = (found.virial * strain).sum((-2, -1))
        torch.testing.assert_close((ends[1] - ends[0]) / (2 * step), slope, rtol=0, atol=1e-6)
        assert found.energy.min() > 0.1
    alone = potential(x[1], cell)
    torch.testing.assert_close(alone.forces, potential(x, cell).forces[1])


def test_a_splitting_gives_the_average_of_the_teacher(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, EXTENDING["respa_obabo.py"])
    runpy.run_path(str(write(tmp_path, EXTENDING["springs.py"])))
    # 12,000 independent coordinates: 1.3 % of <x²>; the student alone would give 1.0
    found, exact = (float(part.split()[-1]) for part in capsys.readouterr().out.split(","))
    assert exact == pytest.approx(1 / 1.1, abs=1e-3)
    assert found == pytest.approx(exact, rel=0.05)
    monkeypatch.delitem(sys.modules, "respa_obabo")


def test_a_command(tmp_path, monkeypatch):
    import typer
    from typer.testing import CliRunner

    # the package has a function of the same name
    main = importlib.import_module("mts_driver.cli.main")
    code = EXTENDING["mts_driver/cli/density.py"]
    spec = importlib.util.spec_from_file_location("mts_driver.cli.density", write(tmp_path, code))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "mts_driver.cli.density", module)
    monkeypatch.setattr(main, "SUBCOMMANDS", (*main.SUBCOMMANDS, "density"))
    argon().write(tmp_path / "argon.extxyz")
    molecule("H2O").write(tmp_path / "water.xyz")
    called = CliRunner().invoke(main.application(), ["density", str(tmp_path / "argon.extxyz")])
    # four atoms of 39.95 Da in 5.3³ Å³, and 1.66054 g/cm³ in Da/Å³
    assert called.output == f"{4 * 39.95 * 1.66054 / 5.3**3:.3f} g/cm³\n"
    refused = CliRunner().invoke(main.application(), ["density", str(tmp_path / "water.xyz")])
    assert "is not periodic" in str(refused.exception)
    assert "density" in typer.main.get_command(main.application()).commands


def test_a_driver_answers_ipi_itself(tmp_path):
    from ipi.engine.atoms import Atoms as IpiAtoms
    from ipi.engine.cell import GenericCell
    from ipi.engine.forcefields import FFSocket
    from ipi.interfaces.sockets import InterfaceSocket

    write(tmp_path, EXTENDING["my_driver.py"])
    argon().write(tmp_path / "argon.extxyz")
    interface = InterfaceSocket(
        address="mine", mode="unix", timeout=LONG_S, sockets_prefix=f"{tmp_path}/"
    )
    server = FFSocket(name="mine", interface=interface, dopbc=False, pars={})
    server.start()
    driver = start(
        sys.executable, "my_driver.py", tmp_path / "mine", "argon.extxyz", folder=tmp_path
    )
    # a cell that is not symmetric, as i-PI has it: columns, upper triangular
    skew = argon()
    skew.set_cell(skew.cell.array + np.diag([0.9, 0.4], -1), scale_atoms=True)
    for atoms in (argon(), skew):
        asked, cell = IpiAtoms(len(atoms)), GenericCell(atoms.cell.array.T / BOHR_A)
        asked.q[:] = atoms.positions.ravel() / BOHR_A
        request = server.queue(asked, cell)
        deadline = time.monotonic() + LONG_S
        while request["status"] != "Done":
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        energy, forces, virial, _ = request["result"]
        server.release(request)
        atoms.calc = LennardJones(sigma=3.405, epsilon=0.010323, rc=8.0, ro=6.4, smooth=True)
        assert energy * HARTREE_EV == pytest.approx(atoms.get_potential_energy(), rel=1e-7)
        np.testing.assert_allclose(
            forces.reshape(-1, 3) * HARTREE_PER_BOHR_EV_A, atoms.get_forces(), rtol=1e-6, atol=1e-9
        )
        expected = -atoms.get_volume() * atoms.get_stress(voigt=False)
        np.testing.assert_allclose(virial * HARTREE_EV, expected, rtol=1e-6, atol=1e-8)
        assert abs(expected[0, 1]) > 1e-3 or atoms is not skew
    server.stop()
    done(driver)


def test_ase_as_the_server(tmp_path):
    write(tmp_path, OTHER["argon_server.py"])
    atoms = argon()
    atoms.write(tmp_path / "argon.extxyz")
    server = start(sys.executable, "argon_server.py", folder=tmp_path)
    (words,) = [
        command
        for command in shell_commands(DOCUMENTS["docs/pages/guide/other-programs.md"])
        if command[:2] == ["mts", "serve"] and command[2].startswith("ase:")
    ]
    driver = start(*words, folder=tmp_path)
    printed = done(server)
    done(driver)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=6.0)
    assert float(printed.split()[0]) == pytest.approx(atoms.get_potential_energy(), abs=1e-6)


def test_the_splitting_printed_reads_as_the_equation(tmp_path, capsys):
    runpy.run_path(str(write(tmp_path, WORKS["steps.py"])))
    printed = capsys.readouterr().out.splitlines()
    assert printed == [repr(operation) for operation in respa_baoab(2)]
    assert len(printed) == 12 and printed[0] == printed[-1]


def springs(k: float):
    def potential(x, cell):
        return Evaluation(0.5 * k * x.square().sum((-2, -1)), -k * x, x.new_zeros(3, 3))

    return potential


def largest_elongation(error: float, share: float) -> float:
    """Of a bond that starts at 1, after 120 outer steps of a share of half its period."""
    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    state = initial_state(x, torch.zeros_like(x), torch.ones(1, dtype=torch.float64))
    levels = TwoLevel(springs(1 + error), springs(1.0), clip=None)
    reached = []
    run(
        state,
        levels,
        respa_baoab(20).without_ou(),
        steps=120,
        timestep=share * np.pi,
        on_step=lambda state: reached.append(float(state.positions.abs().max())),
    )
    return max(reached)


def test_the_unstable_window_is_as_wide_as_the_error_of_the_force_constant(tmp_path, capsys):
    window = runpy.run_path(str(write(tmp_path, WORKS["window.py"])))["unstable_width"]
    assert "5% too soft" in capsys.readouterr().out
    assert window(0.0) == 0.0
    for error in (0.01, 0.02, 0.05):
        assert window(error) == pytest.approx(error, rel=0.1)
    # and the integrator does what the equation says, on both sides of the edge
    assert largest_elongation(0.05, share=0.98) > 100
    assert largest_elongation(0.05, share=0.93) < 10
    assert largest_elongation(0.0, share=0.98) < 1.1
