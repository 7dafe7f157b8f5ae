"""Models with energies of atoms, shared out among ranks without being known, are what they were."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.tersoff import Tersoff, TersoffParameters
from thread_ranks import on_ranks

from mts_driver.cli.serve_mpi import _checked
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.ranks.pieces import Pieces
from mts_driver.structures.tensors import cell_of

LJ = "ase:ase.calculators.lj:LennardJones?sigma=3.4&epsilon=0.0104&rc=6.0&receptive_field_A={}"
EMT = "ase:ase.calculators.emt:EMT?receptive_field_A={}"
SIZES = [4, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 2, 3, 5, 8))]
TERSOFF = "ase:test_pieces:silicon?receptive_field_A={}"


def silicon() -> Tersoff:
    """Silicon of Tersoff, Phys. Rev. B 1988, 37, 6991."""
    one = [3.0, 1.0, 1.3258, 4.8381, 2.0417, 0.0, 22.956, 0.33675, 1.3258, 95.373, 3.0, 0.2]
    return Tersoff({("Si", "Si", "Si"): TersoffParameters.from_list([*one, 3.2394, 3264.7])})


class Doubled(LennardJones):
    """Its energies of atoms are not shares of its energy."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["energies"] = 2.0 * self.results["energies"]


def bar(element: str, a: float, cells=(8, 2, 2), **structure) -> Atoms:
    """Longer than a brick and what it can feel; disordered."""
    atoms = bulk(element, cubic=True, a=a, **structure).repeat(cells)
    atoms.positions += np.random.default_rng(1).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def systems(box: Atoms) -> dict[str, Atoms]:
    turned = box.copy()
    turned.set_cell(box.cell.array @ [[1, 0, 0], [0.3, 1, 0], [-0.2, 0.4, 1]], scale_atoms=True)
    outside = box.copy()
    cells = np.random.default_rng(2).integers(-2, 3, (len(box), 3))
    outside.positions += cells @ box.cell.array
    far = Atoms(box.numbers[:7], box.positions[:7])
    far.positions[4:] += [40, 0, 0]
    return {
        "box": box,
        "triclinic": turned,
        "outside": outside,
        "isolated": Atoms(box.numbers, box.positions),
        "far apart": far,
    }


ARGON = systems(bar("Ar", 5.3))


def evaluated(spec, atoms, ranks=None, frames=None):
    potential = load_potential(spec, atoms.numbers.tolist(), dtype="float64", ranks=ranks)
    found = []
    for x in [atoms.positions] if frames is None else frames:
        e = potential(torch.tensor(x), cell_of(atoms))
        found.append((float(e.energy), e.forces.numpy(), e.virial.numpy()))
    return found


def assert_the_same(spec, atoms, size, *, virial, frames=None):
    alone = evaluated(spec, atoms, frames=frames)
    for found in on_ranks(size, lambda ranks: evaluated(spec, atoms, ranks, frames)):
        for (e, f, v), (energy, forces, whole) in zip(found, alone, strict=True):
            assert e == pytest.approx(energy, rel=1e-12, abs=1e-10)
            np.testing.assert_allclose(f, forces, rtol=0, atol=1e-9)
            np.testing.assert_allclose(v, whole if virial else 0.0, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ARGON)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_piece_has_all_within_reach_and_no_more_than_that(name, size):
    atoms = ARGON[name]
    x, cell = atoms.positions, cell_of(atoms).numpy()
    pieces = on_ranks(size, lambda ranks: Pieces(ranks, reach_A=6.0).of(x, cell))
    apart = atoms.get_all_distances(mic=True)
    assert sorted(np.concatenate([p.atoms[p.own] for p in pieces])) == list(range(len(atoms)))
    for piece in pieces:
        needed = np.flatnonzero((apart[piece.atoms[piece.own]] < 6.0).any(0))
        assert set(needed) <= set(piece.atoms)
    if name == "box" and size == 8:  # of 42 Å, bricks of 5 Å
        assert max(len(p.atoms) for p in pieces) < 0.6 * len(atoms)


@pytest.mark.parametrize("name", ARGON)
@pytest.mark.parametrize("size", SIZES)
def test_a_calculator_of_ase(name, size):
    assert_the_same(LJ.format(6), ARGON[name], size, virial=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("spec", "atoms"),
    [
        (EMT.format(6), bar("Cu", 3.6, (13, 2, 2))),
        (TERSOFF.format(3.2), bar("Si", 5.43, (6, 1, 1))),
    ],
    ids=["EMT", "Tersoff"],
)
def test_a_calculator_of_many_bodies(spec, atoms, size):
    """Energies near a border know atoms beyond it, and pull at atoms before it."""
    assert_the_same(spec, atoms, size, virial=False)


@pytest.mark.parametrize("passes", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", ARGON)
@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_metatomic(exported, name, size, passes):
    """With its virial, which is a derivative of energies like the forces."""
    assert_the_same(f"metatomic:{exported(passes=passes)}", ARGON[name], size, virial=True)


def test_direct_forces(exported):
    spec = f"metatomic:{exported(direct=('forces', 'stress'))}?forces=direct"
    assert_the_same(spec, ARGON["box"], 3, virial=False)


@pytest.mark.parametrize("model", ["ase", "metatomic"])
def test_atoms_that_cross_borders(exported, model):
    """Pieces are cut anew on all ranks at once, and have other numbers of atoms."""
    spec = LJ.format(6) if model == "ase" else f"metatomic:{exported(passes=True)}"
    atoms = ARGON["box"]
    steps = np.linspace(0, 7.0, 4)
    # the upper half slides over the lower one, to other neighbours
    slide = (atoms.positions[:, 2:] > 5.0) * np.array([1.0, 0.3, 0.0])
    frames = [atoms.positions + step * slide for step in steps]
    assert_the_same(spec, atoms, 3, virial=model != "ase", frames=frames)


def test_replicas(exported):
    """Of which each has pieces of its own."""
    atoms = ARGON["box"]
    x = np.array([atoms.positions, atoms.positions[::-1] + 3.0])
    cells = np.array([1.0, 1.02])[:, None, None] * atoms.cell.array
    for spec in (LJ.format(6), f"metatomic:{exported(passes=True)}"):

        def work(ranks, spec=spec):
            return load_potential(spec, atoms.numbers.tolist(), ranks=ranks).evaluate(x, cells)

        alone = load_potential(spec, atoms.numbers.tolist()).evaluate(x, cells)
        for found in on_ranks(2, work):
            np.testing.assert_allclose(found[0], alone[0], rtol=1e-12)
            np.testing.assert_allclose(found[1], alone[1], atol=1e-9)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("metatomic.torch")
    from exported_models import export

    folder, made = tmp_path_factory.mktemp("models"), {}

    def file(**kind):
        key = str(kind)
        if key not in made:
            made[key] = export(folder / f"{len(made)}.pt", **kind)
        return made[key]

    with torch.jit.optimized_execution(False):
        yield file


def checked(spec, atoms, size):
    """What `mts serve --mpi` does before it answers."""

    def work(ranks):
        def load(spec, numbers, **options):
            return load_potential(spec, numbers, **options, ranks=ranks)

        team = SimpleNamespace(ranks=ranks, load=load)
        _checked(team, spec, atoms, device="cpu", dtype="float64")

    on_ranks(size, work)


def test_a_reach_that_is_too_small_is_found_before_a_run(exported):
    copper = bar("Cu", 3.6, (13, 2, 2))
    with pytest.raises(UserError, match=r"differ by .* its receptive_field_A is too small"):
        checked(EMT.format(2), copper, 4)
    with pytest.raises(UserError, match=r"beyond the interaction range that the model declares"):
        checked(f"metatomic:{exported(passes=True, honest=False)}", ARGON["box"], 4)


def test_energies_that_do_not_add_up_are_found_before_a_run():
    spec = LJ.format(6).replace("ase.calculators.lj:LennardJones", "test_pieces:Doubled")
    with pytest.raises(UserError, match=r"by 0\.\d* eV an atom, .* do not add up"):
        checked(spec, ARGON["box"], 2)


@pytest.mark.parametrize("query", ["", "?forces=direct"])
def test_a_model_that_gives_all_atoms_when_asked_for_some(exported, query):
    spec = f"metatomic:{exported(deaf=True, direct=('forces',))}{query}"
    assert_the_same(spec, ARGON["box"], 3, virial=not query)


def test_models_that_cannot_be_taken_apart(exported, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "contract"))
    endless = exported(interaction_range=float("inf"))
    for spec, message in (
        ("ase:ase.calculators.lj:LennardJones", "say within how many Å atoms matter"),
        (LJ.format(-1), "receptive_field_A=-1 cannot be"),
        (LJ.format("far"), "receptive_field_A=far cannot be"),
        (LJ.format("True"), "receptive_field_A=True cannot be"),
        ("ase:toy_calculators:ToyWater?receptive_field_A=3", "gives no energies of atoms"),
        (f"metatomic:{exported(per_atom=False)}", "gives no energies of atoms"),
        (f"metatomic:{endless}", "reaches inf Å"),
    ):

        def work(ranks, spec=spec, message=message):
            with pytest.raises(UserError, match=message):
                load_potential(spec, [18], ranks=ranks)

        on_ranks(2, work)
    # alone, the reach is of no matter
    load_potential(LJ.format(6), [18])
