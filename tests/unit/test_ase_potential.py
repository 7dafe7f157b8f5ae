"""ASE calculators as potentials."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.ase import AsePotential, module_here
from mts_driver.potentials.virial import gives_virial

EMT_SPEC = "ase:ase.calculators.emt:EMT"


def rattled(strain=0.0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def evaluate(potential, *structures):
    positions = torch.tensor(np.array([a.positions for a in structures]))
    cells = torch.tensor(np.array([a.cell.array for a in structures]))
    return potential(positions, cells)


def test_a_batch_equals_the_calculator():
    structures = [rattled(), rattled(0.02 * np.eye(3))]
    found = evaluate(load_potential(EMT_SPEC, structures[0].numbers.tolist()), *structures)
    assert found.energy.shape == (2,) and found.virial.shape == (2, 3, 3)
    for k, atoms in enumerate(structures):
        atoms.calc = EMT()
        assert found.energy[k].item() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(found.forces[k], atoms.get_forces(), atol=1e-12)


def test_the_virial_is_minus_the_strain_derivative():
    potential = load_potential(EMT_SPEC, rattled().numbers.tolist())
    virial = evaluate(potential, rattled()).virial[0].numpy()
    step = 1e-5
    for a, b in ((0, 0), (0, 1), (2, 1)):
        strain = np.zeros((3, 3))
        strain[a, b] = strain[b, a] = step
        plus, minus = (
            evaluate(potential, rattled(sign * strain)).energy.item() for sign in (1, -1)
        )
        weight = 1 if a == b else 2
        assert virial[a, b] == pytest.approx(-(plus - minus) / (2 * step * weight), abs=1e-4)


def test_a_calculator_without_stress_gives_zeros_and_says_so_once(capsys, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "contract"))
    potential = load_potential("ase:toy_calculators:ToyWater", [8, 1, 1])
    x = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]], dtype=torch.float64)
    for _ in range(2):
        assert (potential(x, 9 * torch.eye(3, dtype=torch.float64)).virial == 0).all()
    assert capsys.readouterr().err.count("offers no stress") == 1


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "contract"))
    return importlib.import_module("toy_calculators")


WATER_A = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]], dtype=torch.float64)
BOX_A = 9 * torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("name", ["ToyWater", "FailingStress", "ZeroStress"])
def test_what_is_no_virial_is_known_as_none(name, toys):
    potential = load_potential(f"ase:toy_calculators:{name}", [8, 1, 1])
    assert potential.has_virial is None
    potential(WATER_A, 0 * BOX_A)  # an isolated molecule tells nothing
    assert potential.has_virial is None
    assert not gives_virial(potential, Atoms("OHH", WATER_A.numpy(), cell=BOX_A, pbc=True))
    assert potential.has_virial is False


def test_a_virial_is_known_by_asking_for_one():
    potential = load_potential("ase:ase.calculators.lj:LennardJones", [18, 18])
    atoms = Atoms("Ar2", [[0, 0, 0], [1.2, 0, 0]], cell=[9] * 3, pbc=True)
    assert gives_virial(potential, atoms) and potential.has_virial is True
    # an ideal gas has one, of zeros
    potential = load_potential("ase:ase.calculators.lj:LennardJones", [18])
    assert gives_virial(potential, Atoms("Ar", cell=[99] * 3, pbc=True))


def test_a_stress_that_fails_in_the_middle_is_an_error(toys, monkeypatch):
    monkeypatch.setattr(toys.FailingStress, "good", 1)
    potential = load_potential("ase:toy_calculators:FailingStress", [8, 1, 1])
    potential(WATER_A, BOX_A)
    with pytest.raises(UserError, match="failed to give a stress: RuntimeError: no stress on"):
        potential(1.01 * WATER_A, BOX_A)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ase:json", "is incomplete: write ase:MODULE:CALLABLE"),
        ("ase:no_such_module:X", "cannot import 'no_such_module'"),
        ("ase:ase.calculators.emt:EMTT", "has no 'EMTT'"),
        ("ase:ase.calculators.emt:EMT?asap", "is not key=value"),
        ("ase:toy_calculators:ToyWater?size=1", "rejects {'size': 1}"),
        ("ase:toy_calculators:ToyWater?fail=True", "rejects {'fail': True}: ValueError: fail=True"),
        ("ase:toy_calculators:NoForces", "gives no forces"),
        ("ase:toy_calculators:not_a_calculator", "is no ASE calculator"),
    ],
)
def test_a_wrong_specification_says_what_is_wrong(spec, message, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "contract"))
    with pytest.raises(UserError) as caught:
        load_potential(spec, [8, 1, 1])
    assert message in str(caught.value)
    assert "no_such_module" not in sys.modules


def test_an_element_that_the_calculator_does_not_know_is_named():
    potential = load_potential(EMT_SPEC, [92])
    x = torch.zeros(1, 3, dtype=torch.float64)
    with pytest.raises(UserError, match=r"failed for 1 atoms of U"):
        potential(x, 9 * torch.eye(3, dtype=torch.float64))


class Remembers(Calculator):
    """Starts from what the last call left unless it was reset, and breaks on a short bond."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own type)
    guess = 0.0

    def reset(self):
        super().reset()
        self.guess = 0.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        length = self.atoms.get_distance(0, 1)
        if not np.isfinite(self.guess) or length < 0.5:
            self.guess = np.nan
            raise RuntimeError("SCF not converged")
        self.guess = 0.9 * length + 0.1 * self.guess
        self.results = {"energy": self.guess, "forces": np.zeros((2, 3))}


def test_an_evaluation_knows_nothing_of_earlier_ones_even_of_one_that_failed():
    calculator = Remembers()
    potential = AsePotential(calculator, [1, 1])
    cell = torch.zeros(3, 3, dtype=torch.float64)

    def energy(length):
        x = torch.tensor([[0.0, 0, 0], [length, 0, 0]], dtype=torch.float64)
        return potential(x, cell).energy.item()

    first = energy(1.0)
    energy(2.0)
    assert energy(1.0) == first == 0.9
    with pytest.raises(UserError, match="failed for 2 atoms of H: RuntimeError: SCF not converged"):
        energy(0.4)
    assert energy(1.0) == first


def test_a_module_of_the_working_folder_is_known(tmp_path, monkeypatch):
    """Which the drivers of a run, in a folder of their own, would not find."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    code = "from ase.calculators.lj import LennardJones\n"
    (tmp_path / "here_only.py").write_text(code)
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here" / "__init__.py").write_text(code)
    for name in ("here_only", "package_here"):
        load_potential(f"ase:{name}:LennardJones", [18])
    spec = "ase:here_only:LennardJones"
    assert module_here(spec) == tmp_path / "here_only.py"
    assert module_here("ase:ase.calculators.lj:LennardJones") is None
    assert module_here("so3lr") is None
    with pytest.raises(UserError, match=r"package 'package_here' of this folder.*PYTHONPATH="):
        module_here("ase:package_here:LennardJones")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert module_here(spec) is None
