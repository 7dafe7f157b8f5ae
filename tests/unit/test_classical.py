"""Classical models: derivatives, batches, images, files, bad input."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from classical_cases import (
    CASES,
    NO_CELL,
    SKEW_A,
    SOLUTION,
    derivative,
    noise,
    pair_model,
    scattered,
    solution,
    solution_model,
)

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.classical.electrostatics import damped_shifted_force
from mts_driver.potentials.classical.file import read_model, write_model
from mts_driver.potentials.classical.force_field import NEUTRAL, AtomType, Molecule, charge_matrix
from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel, lennard_jones
from mts_driver.potentials.classical.parameters import train_only
from mts_driver.potentials.classical.stillinger_weber import StillingerWeber
from mts_driver.potentials.classical.water import flexible_water
from mts_driver.potentials.load import from_anywhere, require_shareable, student_spec


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def test_forces_and_virial_are_derivatives_of_the_energy(case):
    model, x, cell = case
    found = model(x, cell)

    def energy(strain, shift=0.0):
        deform = torch.eye(3, dtype=torch.float64) + strain
        return model((x + shift) @ deform, cell @ deform).energy.item()

    along, strain = noise(*x.shape, seed=1), noise(3, 3, seed=2)
    slope = derivative(lambda t: energy(0.0, t * along), 1e-4)
    assert slope == pytest.approx(-(found.forces * along).sum().item(), rel=1e-8)
    slope = derivative(lambda t: energy(t * strain), 1e-4)
    assert slope == pytest.approx(-(found.virial * strain).sum().item(), rel=1e-8)


def test_pulled_back_is_what_automatic_differentiation_gives(case):
    model, x, cell = case
    parameters, along = list(model.parameters()), noise(*x.shape, seed=1)
    tracked = x.clone().requires_grad_()
    graphed = model(tracked, cell)
    expected = torch.autograd.grad(graphed.forces, (tracked, *parameters), along)
    evaluation, pull = model.linearized(x, cell, parameters)
    for mine, other, plain in zip(evaluation, graphed, model(x, cell), strict=True):
        torch.testing.assert_close(mine, other.detach(), rtol=1e-12, atol=1e-12)
        assert torch.equal(mine, plain) and not plain.requires_grad
    for _ in range(2):  # it may be called again
        by_x, by_parameter = pull(along)
        torch.testing.assert_close(by_x, expected[0], rtol=1e-8, atol=1e-10)
        for mine, other in zip(by_parameter, expected[1:], strict=True):
            assert mine.item() == pytest.approx(other.item(), rel=1e-8)


def test_pulled_back_are_differences_of_forces(case):
    model, x, cell = case
    named, (along, other) = dict(model.named_parameters()), noise(2, *x.shape, seed=4)
    by_x, by_parameter = model.linearized(x, cell, list(named.values())).pull(along)
    slope = derivative(lambda t: (model(x + t * other, cell).forces * along).sum().item(), 1e-4)
    assert (by_x * other).sum().item() == pytest.approx(slope, rel=1e-8)
    for (name, one), found in zip(named.items(), by_parameter, strict=True):
        start = one.item()

        def pushed(t, one=one, start=start):
            with torch.no_grad():
                one.fill_(start + t)
            return (model(x, cell).forces * along).sum().item()

        slope = derivative(pushed, 3e-4 * max(abs(start), 0.1))
        assert found.item() == pytest.approx(slope, rel=1e-8), name
        pushed(0.0)


def test_energies_have_a_graph_to_parameters():
    model, x, cell = CASES["water with lennard-jones"]()
    (slope,) = torch.autograd.grad(model.energy(x, cell), [model.charge_e["HW"]])

    def energy(t):
        with torch.no_grad():
            model.charge_e["HW"].fill_(0.41 + t)
            return model.energy(x, cell).item()

    assert slope.item() == pytest.approx(derivative(energy, 1e-3), rel=1e-8)


@pytest.mark.parametrize("form", [*FORMS, "electrostatics"])
def test_derivatives_are_written_out_correctly(form):
    r = torch.linspace(0.8, 8.0, 300, dtype=torch.float64).requires_grad_()  # 0.8: in the wall
    if form == "electrostatics":
        value, slope, curve = damped_shifted_force(r, 2, alpha_per_A=0.25, cutoff_A=8.0)
        assert abs(value[-1]) < 1e-15 and abs(slope[-1]) < 1e-15
    else:
        value, slope, curve = pair_model(form)._pair(r, None, 2)
    for function, expected in ((value, slope), (slope, curve)):
        (found,) = torch.autograd.grad(function.sum(), r, retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_energy_ends_with_two_continuous_derivatives():
    model = lennard_jones([18, 18], epsilon_eV=0.01, sigma_A=3.4, cutoff_A=6.0, switch_A=5.0)

    def stiffness(r):
        x = torch.tensor([[0.0, 0, 0], [r, 0, 0]], dtype=torch.float64)
        along = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
        evaluation, pull = model.linearized(x, NO_CELL)
        return torch.stack([evaluation.energy, evaluation.forces[1, 0], pull(along)[0][1, 0]])

    for r in (5.0, 6.0):  # where the switch begins and ends
        torch.testing.assert_close(stiffness(r - 1e-8), stiffness(r + 1e-8), rtol=1e-6, atol=1e-8)
    assert (stiffness(5.99) != 0).all() and (stiffness(6.0) == 0).all()


def test_a_batch_of_replicas_equals_single_ones():
    model, x, _ = CASES["water with lennard-jones"]()
    replicas = torch.stack([solution(seed) for seed in range(6)]).reshape(2, 3, *x.shape)
    scales = torch.linspace(0.98, 1.03, 6, dtype=torch.float64).reshape(2, 3, 1, 1)
    cells = SKEW_A * scales
    cells[1, 2] = 0.0  # one of them isolated
    parameters, along = list(model.parameters()), noise(*replicas.shape, seed=3)
    found, pull = model.linearized(replicas, cells, parameters)
    by_x, by_parameter = pull(along)
    assert found.energy.shape == (2, 3) and found.virial.shape == (2, 3, 3, 3)
    graphed = model(replicas.clone().requires_grad_(), cells)
    singles = []
    for k in np.ndindex(2, 3):
        alone, pull = solution_model().linearized(replicas[k], cells[k])
        for mine, other, third in zip(found, alone, graphed, strict=True):
            torch.testing.assert_close(mine[k], other, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(third[k].detach(), other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(by_x[k], pull(along[k])[0], rtol=1e-12, atol=1e-13)
        singles.append(model.linearized(replicas[k], cells[k], parameters).pull(along[k])[1])
    for mine, others in zip(by_parameter, zip(*singles, strict=True), strict=True):
        torch.testing.assert_close(mine, sum(others), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["water with lennard-jones", "silicon"])
def test_results_do_not_depend_on_calls_before(name):
    """Bit by bit, so that a trajectory that runs back meets the same forces."""
    model, x, cell = CASES[name]()
    first = model(x, cell)
    for k in range(4):
        model(x + 0.3 * k * noise(*x.shape, seed=k).clamp(-1, 1), cell * (1 + 0.01 * k))
    for other in (model, CASES[name]()[0]):
        for one, again in zip(first, other(x, cell), strict=True):
            assert torch.equal(one, again)


def test_images_are_equal_and_small_cells_repeat():
    model, x, cell = CASES["water with buckingham"]()
    first = model(x, cell)
    turns = torch.tensor(np.random.default_rng(0).integers(-2, 3, x.shape), dtype=torch.float64)
    moved = model(x + turns @ cell, cell)
    torch.testing.assert_close(moved.forces, first.forces, rtol=1e-10, atol=1e-12)
    # a cutoff beyond half the cell: atoms meet several images of others, and of themselves
    x, cell = scattered(4, spread_A=3.5), 7.1 * torch.eye(3, dtype=torch.float64)
    small = lennard_jones([18] * 4, epsilon_eV=0.01, sigma_A=3.4, cutoff_A=9.0)
    large = lennard_jones([18] * 32, epsilon_eV=0.01, sigma_A=3.4, cutoff_A=9.0)
    corners = torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3) @ cell
    one, eight = small(x, cell), large((x + corners[:, None]).reshape(-1, 3), 2 * cell)
    assert eight.energy.item() == pytest.approx(8 * one.energy.item(), rel=1e-12)
    torch.testing.assert_close(eight.forces[:4], one.forces, rtol=1e-10, atol=1e-13)
    along = noise(4, 3)
    pulled = small.linearized(x, cell).pull(along)[0]
    repeated = large.linearized((x + corners[:, None]).reshape(-1, 3), 2 * cell)
    torch.testing.assert_close(repeated.pull(along.repeat(8, 1))[0][:4], pulled)


def test_results_have_the_precision_of_the_positions():
    model, x, cell = CASES["lennard-jones"]()
    found = model(x.float(), cell.float())
    assert found.energy.dtype == torch.float64
    assert found.forces.dtype == found.virial.dtype == torch.float32
    assert model.linearized(x.float(), cell).pull(x.float())[0].dtype == torch.float32


def test_molecules_are_neutral_and_types_without_charges_have_none():
    model = solution_model()
    assert model.charges().tolist() == pytest.approx([-0.82, 0.41])
    assert "charge_e.O2" not in dict(model.named_parameters())
    _, (sigma, other) = model.linearized(
        solution(), SKEW_A, [model.sigma_A["OW"], torch.zeros(1, requires_grad=True)]
    ).pull(solution())
    assert sigma is not None and other is None


def test_the_cutoff_of_stillinger_and_weber_follows_its_parameters():
    wide, x, cell = CASES["silicon"]()
    model = StillingerWeber([14] * 8)
    model(x, cell)
    with torch.no_grad():
        model.a.copy_(wide.a)
    assert torch.equal(model(x, cell).forces, wide(x, cell).forces)
    with torch.no_grad():
        model.a.neg_()
    with pytest.raises(UserError, match=r"cutoff has become -4\.\d+ Å"):
        model(x, cell)


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_the_same_model(name, tmp_path):
    model, x, cell = CASES[name]()
    chosen = [n for n, _ in model.named_parameters()][-2:]
    train_only(model, chosen)
    write_model(model, tmp_path / "model.json")
    numbers = [18] * model.atoms if model.numbers is None else model.numbers.tolist()
    read = load_potential(f"classical:{tmp_path / 'model.json'}", numbers)
    for one, again in zip(model(x, cell), read(x, cell), strict=True):
        assert torch.equal(one, again)
    assert [n for n, p in read.named_parameters() if p.requires_grad] == chosen


def test_files_are_for_any_number_of_their_molecules(tmp_path):
    write_model(solution_model(), tmp_path / "water.json")
    for numbers in ([8, 1, 1], [8, 8, 8, 1, 1] * 2, [8, 1, 1] * 5):
        assert read_model(tmp_path / "water.json", numbers).atoms == len(numbers)
    train = json.loads((tmp_path / "water.json").read_text())
    del train["trained"]
    (tmp_path / "all.json").write_text(json.dumps(train))
    read = read_model(tmp_path / "all.json", [8, 1, 1])
    assert all(p.requires_grad for p in read.parameters())


ARGON = {"form": "lennard-jones", "element": "Ar", "epsilon_eV": 0.01, "sigma_A": 3.4}
ARGON = {**ARGON, "cutoff_A": 8.0}
BAD_FILES = [
    ({"form": "gauss"}, "form='gauss': use lennard-jones"),
    ({"form": ["a"]}, "form=\\['a'\\]: use"),
    ({"sigma_A": -1}, "sigma_A=-1: give a finite number, positive"),
    ({"sigma_A": "3.4"}, "sigma_A='3.4': give"),
    ({"sigma_A": True}, "sigma_A=True: give"),
    ({"sigma": 3.4}, "lennard-jones has no 'sigma': it takes epsilon_eV, sigma_A"),
    ({"epsilon_eV": None}, "epsilon_eV=None: give"),
    ({"element": "Ne"}, "element='Ne', but the atoms are Ar"),
    ({"switch_A": 9.0}, "switch_A=9 and cutoff_A=8"),
    ({"trained": ["eps"]}, "trained has 'eps': the parameters are epsilon_eV, sigma_A"),
    ({"trained": "sigma_A"}, "trained='sigma_A': give a list"),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES)
def test_a_bad_file_says_what_is_wrong(change, message, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({**ARGON, **change}))
    with pytest.raises(UserError, match=message):
        read_model(tmp_path / "bad.json", [18, 18])


def bad_water(tmp_path, change):
    write_model(solution_model(), tmp_path / "good.json")
    table = json.loads((tmp_path / "good.json").read_text())
    change(table)
    (tmp_path / "bad.json").write_text(json.dumps(table))
    return tmp_path / "bad.json"


BAD_WATERS = [
    (lambda t: t.pop("cutoff_A"), "molecular lacks cutoff_A"),
    (lambda t: t.update(cut=1), "molecular has no 'cut'"),
    (lambda t: t.update(types=[1]), "types=\\[1\\]: give an object of objects"),
    (lambda t: t["types"]["OW"].update(element="Q"), "types.OW has element='Q'"),
    (lambda t: t["types"]["HW"].update(charge_e="x"), "charge_e.HW='x': give a finite number"),
    (lambda t: t["types"].update({"H-W": {"element": "H"}}), "names without dots and hyphens"),
    (lambda t: t["molecules"]["water"].update(bonds=[[0, 3]]), "list pairs of its 3 atoms"),
    (lambda t: t["molecules"]["water"].update(bonds=[[0, 1], [1, 0]]), "one of them twice"),
    (lambda t: t["molecules"]["water"].update(types=["OW", "X"]), "list some of OW, HW, O2"),
    (lambda t: t["bonds"].pop("OW-HW"), "bonds has nothing for OW-HW: it knows O2-O2"),
    (lambda t: t["angles"].clear(), "angles has nothing for HW-OW-HW: it knows none"),
    (lambda t: t["bonds"]["OW-HW"].update(k=1), "bonds.OW-HW has no 'k'"),
    (lambda t: t["angles"]["HW-OW-HW"].update(angle_rad=4), "from 0 to 3.14159"),
    (lambda t: t["van_der_waals"].update(X={}), "van_der_waals has 'X'"),
    (lambda t: t["van_der_waals"]["OW"].pop("sigma_A"), "van_der_waals.OW lacks sigma_A"),
    (lambda t: t.update(van_der_waals_form="x"), "form='x' is not known"),
    (lambda t: t.update(shared={"alpha": 1}), "shared has no 'alpha'"),
    (lambda t: t.update(switch_A="x"), "switch_A='x': give"),
    (lambda t: t.update(damping_per_A=-1), "damping_per_A=-1: give a finite number, from 0"),
    (lambda t: t["molecules"].update(ice=t["molecules"]["water"]), "cannot be told apart"),
]


@pytest.mark.parametrize(("change", "message"), BAD_WATERS)
def test_a_bad_force_field_says_what_is_wrong(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_model(bad_water(tmp_path, change), SOLUTION)


def test_atoms_that_are_not_the_molecules_are_refused(tmp_path):
    write_model(solution_model(), tmp_path / "water.json")
    with pytest.raises(UserError, match=r"from number 3 \(counted from 0\), H O H, begin no mol"):
        read_model(tmp_path / "water.json", [8, 1, 1, 1, 8, 1])
    with pytest.raises(UserError, match="one element, but there are Ar, O"):
        lennard_jones([18, 8], epsilon_eV=0.01, sigma_A=3.0, cutoff_A=8.0)


def test_several_types_cannot_make_one_molecule_neutral():
    table = flexible_water()
    types = {"OW": AtomType("O", NEUTRAL), "HW": AtomType("H", NEUTRAL)}
    with pytest.raises(UserError, match=r"molecules\.water: a molecule can have one type"):
        charge_matrix(replace(table, types=types))
    molecules = {**table.molecules, "hydroxide": Molecule(("OW", "HW"), ((0, 1),))}
    with pytest.raises(UserError, match="'OW' must get the same charge in all molecules"):
        charge_matrix(replace(table, molecules=molecules))


def test_specifications_are_checked(tmp_path):
    for spec, message in (
        ("classical", "is incomplete: write classical:FILE"),
        ("classical:", "is incomplete: write classical:FILE"),
        ("classical:nowhere.json", "'nowhere.json' is no file"),
    ):
        with pytest.raises(UserError, match=message):
            load_potential(spec, [18])
    (tmp_path / "argon.json").write_text(json.dumps(ARGON))
    with pytest.raises(UserError, match=r"not known|run on the cpu|of the GPUs"):
        load_potential(f"classical:{tmp_path}/argon.json", [18], device="cuda")


def test_single_molecules_and_atoms_have_no_pairs():
    water = MolecularForceField(flexible_water(), [8, 1, 1])
    argon = lennard_jones([18], epsilon_eV=0.01, sigma_A=3.4, cutoff_A=8.0)
    for model in (water, argon):
        x = solution()[: model.atoms]
        for cell in (NO_CELL, 30 * torch.eye(3, dtype=torch.float64)):
            found, pull = model.linearized(x, cell, list(model.parameters()))
            graphed = model(x.clone().requires_grad_(), cell)
            torch.testing.assert_close(graphed.forces.detach(), found.forces)
            assert pull(x)[0].shape == x.shape
    straight = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]], dtype=torch.float64)
    with pytest.raises(UserError, match="a bent molecule has become straight"):
        water(straight, NO_CELL)
    table = replace(flexible_water(), molecules={"ion": Molecule(("O",))}, bonds={}, angles={})
    table = replace(table, types={"O": AtomType("O")}, van_der_waals={})
    with pytest.raises(UserError, match="none of the atoms has an interaction"):
        MolecularForceField(table, [8, 8])


def test_a_copy_has_parameters_of_its_own():
    model, x, cell = CASES["water with lennard-jones"]()
    other, before = copy.deepcopy(model), model(x, cell).energy
    with torch.no_grad():
        other.charge_e["HW"].mul_(1.1)
    assert torch.equal(model(x, cell).energy, before)
    assert not torch.equal(other(x, cell).energy, before)


def test_files_are_found_from_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_anywhere("classical:water.json") == f"classical:{tmp_path}/water.json"
    assert from_anywhere("so3lr") == "so3lr"
    assert student_spec("classical:water.json") == ("classical:water.json", None)
    with pytest.raises(UserError, match="cannot be shared out among 2 ranks"):
        require_shareable("classical:water.json", "cpu", 2)


def test_bad_arguments_are_refused():
    model, x, cell = CASES["lennard-jones"]()
    with pytest.raises(UserError, match=r"shape \(7, 3\), but the model is bound to 8 atoms"):
        model(x[:7], cell)
    with pytest.raises(UserError, match="not finite"):
        model(torch.where(x == x[2], torch.nan, x), cell)
    with pytest.raises(UserError, match="atom 0 lies where another one does"):
        model(torch.zeros_like(x), cell)
    with pytest.raises(UserError, match=r"parameters\[0\] does not require a gradient"):
        model.linearized(x, cell, [model.sigma_A.detach()])
    with torch.no_grad():
        model.sigma_A.fill_(torch.nan)
    with pytest.raises(UserError, match=r"energy or virial is not finite.*'sigma_A': nan"):
        model(x, cell)
    with pytest.raises(UserError, match=r"cutoff_A=5\.7 is more than half of the cell's smallest"):
        solution_model()(solution(), 0.8 * SKEW_A)
    for name in ("form", "model"):
        with pytest.raises(UserError, match=f"{name}='x' is not known"):
            flexible_water(**{name: "x"})
    with pytest.raises(UserError, match="form='x' is not known"):
        PairModel("x", [18], {}, cutoff_A=8.0)


def test_a_wall_within_the_catastrophe_is_refused():
    model = pair_model("buckingham")
    with torch.no_grad():
        model.C_eV_A6.mul_(40.0)
    with pytest.raises(UserError, match=r"wall_A=1.9\d* is where .* is no repulsion"):
        model(scattered(8, spread_A=3.6), SKEW_A)
    x = torch.tensor([[0.0, 0, 0], [0.3, 0, 0]], dtype=torch.float64)
    found = pair_model("buckingham", atoms=2)(x, NO_CELL)
    assert found.forces[1, 0] > 0 and found.energy > 0


def test_waters_are_made_for_every_form():
    for form in FORMS:
        model = MolecularForceField(flexible_water("TIP3P", form=form, cutoff_A=6.0), [8, 1, 1] * 2)
        assert model.charges().tolist() == pytest.approx([-0.834, 0.417])
