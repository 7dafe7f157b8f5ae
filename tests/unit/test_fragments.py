"""Fragments of real solvated proteins: whole, chemically closed, and complete where they say so."""

from collections import Counter

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import graphene, molecule
from ase.io import read
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.distance import cdist

from mts_driver.distillation.sampling.fragments import centers, cut, fragments
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.structures.topology import formal_charge, topology

COMPLETE_A = 3.5


def ase_bonds(atoms):
    """Bonds by ASE's own neighbour search, both directions."""
    return neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))


@pytest.fixture(scope="module")
def chignolin(structures):
    return read(structures / "chignolin_1uao_water_npt.extxyz")


@pytest.fixture(scope="module")
def lysozyme(structures):
    return read(structures / "t4l_l99a_m102h_phenol_water_npt.extxyz")


@pytest.fixture(scope="module")
def lysozyme_bonds(lysozyme):
    return topology(lysozyme)


@pytest.fixture(scope="module")
def pieces(lysozyme, lysozyme_bonds):
    return fragments(lysozyme, count=40, seed=3, bonds=lysozyme_bonds)


def test_the_charges_of_lysozyme_are_those_of_its_residues(lysozyme, lysozyme_bonds):
    names = lysozyme.get_array("residuenames")
    found = Counter()
    for k in np.flatnonzero(lysozyme_bonds.charges):
        found[str(names[k]), lysozyme.symbols[k]] += int(lysozyme_bonds.charges[k])
    # Met 1 and Lys 162 are the ends of the chain
    assert found == {
        ("ARG", "C"): 13,
        ("LYS", "N"): 13,
        ("MET", "N"): 1,
        ("ASP", "C"): -10,
        ("GLU", "C"): -8,
        ("LYS", "C"): -1,
        ("CL", "Cl"): -8,
    }
    assert formal_charge(lysozyme, lysozyme_bonds) == 0


def test_chignolin_is_neutral(chignolin):
    found = topology(chignolin)
    assert formal_charge(chignolin, found) == 0
    assert np.abs(found.charges).sum() == 2, "a zwitterion"


def ion(symbols, *positions):
    return Atoms(symbols, positions)


def tetrahedron(centre, length):
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * length / np.sqrt(3)
    return Atoms(f"{centre}O4", [[0, 0, 0], *corners])


def imidazolium():
    """From pyrrole: a carbon next but one to the nitrogen becomes the second N-H."""
    ring = molecule("C4H4NH")
    i, j = ase_bonds(ring)
    first = int(np.flatnonzero(ring.numbers == 7)[0])
    alpha = next(int(k) for k in j[i == first] if ring.numbers[k] == 6)
    beta = next(int(k) for k in j[i == alpha] if ring.numbers[k] == 6)
    ring.numbers[beta] = 7
    return ring


@pytest.mark.parametrize(
    ("atoms", "charge"),
    [
        (ion("OH3", [0, 0, 0], [0.98, 0, 0], [-0.33, 0.92, 0], [-0.33, -0.5, 0.8]), 1),
        (ion("OH", [0, 0, 0], [0.97, 0, 0]), -1),
        (ion("Na", [0, 0, 0]), 1),
        (ion("K", [0, 0, 0]), 1),
        (ion("ClNaOH2", [0, 0, 0], [2.4, 0, 0], [4.7, 0, 0], [5.3, 0.8, 0], [5.3, -0.8, 0]), 0),
        (molecule("CH3COOH"), 0),
        (molecule("CH3COOH")[[0, 1, 2, 4, 5, 6, 7]], -1),
        (molecule("CH3NO2"), 0),
        (molecule("CO2"), 0),
        (molecule("NH3"), 0),
        (molecule("C4H4NH"), 0),
        (imidazolium(), 1),
        (tetrahedron("P", 1.52), -3),
        (tetrahedron("S", 1.48), -2),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else value.get_chemical_formula(),
)
def test_formal_charges_of_small_ions(atoms, charge):
    assert formal_charge(atoms, topology(atoms)) == charge


def test_a_fragment_keeps_coordination_elements_and_charge(lysozyme, lysozyme_bonds, pieces):
    degree = np.bincount(ase_bonds(lysozyme)[0], minlength=len(lysozyme))
    for piece in pieces:
        source, real = piece.get_array("source"), piece.get_array("source") >= 0
        assert not piece.pbc.any()
        assert len(set(source[real])) == real.sum()
        assert (piece.numbers[real] == lysozyme.numbers[source[real]]).all()
        assert (piece.numbers[~real] == 1).all()
        here = np.bincount(ase_bonds(piece)[0], minlength=len(piece))
        assert (here[real] == degree[source[real]]).all(), "a bond is neither kept nor capped"
        assert (here[~real] == 1).all()
        # found anew from the piece with its link hydrogens
        assert topology(piece).charges.sum() == piece.info["charge"]
        assert piece.info["system"] == "fragment"


def test_small_molecules_are_whole_and_near(lysozyme, lysozyme_bonds, pieces):
    size = np.bincount(lysozyme_bonds.molecule)
    ions_beyond = 0
    for piece in pieces:
        source = piece.get_array("source")
        real = source >= 0
        molecule_of = lysozyme_bonds.molecule[source[real]]
        distance = np.linalg.norm(piece.positions[real], axis=1)
        for k in np.unique(molecule_of):
            if size[k] > 40:
                continue
            assert (molecule_of == k).sum() == size[k]
            nearest = distance[molecule_of == k].min()
            if nearest >= 9.0:
                assert size[k] == 1
                assert nearest < 12.0
                ions_beyond += 1
        oxygens = piece.positions[real][(size[molecule_of] == 3) & (piece.numbers[real] == 8)]
        hydrogens = piece.positions[piece.numbers == 1]
        assert ((cdist(oxygens, hydrogens) < 1.1).sum(1) == 2).all()
        # nothing in the sphere is left out
        everyone = lysozyme.get_distances(piece.info["center"], np.arange(len(lysozyme)), mic=True)
        assert set(np.flatnonzero(everyone < 9.0)) <= set(source)
    assert ions_beyond > 0, "no counter-ion was taken: the test does not see that branch"


def test_link_hydrogens(lysozyme, pieces):
    links_seen = 0
    i, j = ase_bonds(lysozyme)
    degree = np.bincount(i, minlength=len(lysozyme))
    heavy = (lysozyme.numbers[i] > 1) & (lysozyme.numbers[j] > 1)
    ones = np.ones(heavy.sum())
    graph = coo_matrix((ones, (i[heavy], j[heavy])), shape=(len(lysozyme),) * 2).tolil()
    for piece in pieces[:15]:
        source = piece.get_array("source")
        links = np.flatnonzero(source < 0)
        apart = cdist(piece.positions, piece.positions)
        np.fill_diagonal(apart, np.inf)
        assert apart.min() > 0.9
        if len(links) > 1:
            assert apart[np.ix_(links, links)].min() > 1.5
        for link in links:
            capped = int(apart[link].argmin())
            a = int(source[capped])
            expected = {6: 1.09, 7: 1.01}[int(lysozyme.numbers[a])]
            assert apart[link, capped] == pytest.approx(expected, abs=1e-9)
            # the atom that the hydrogen stands for lies in the same direction
            arm = (piece.positions[link] - piece.positions[capped]) / expected
            outside = [b for b in j[i == a] if b not in source]
            arms = lysozyme.get_distances(a, outside, mic=True, vector=True)
            aligned = arms @ arm / np.linalg.norm(arms, axis=1)
            b = int(outside[int(aligned.argmax())])
            assert aligned.max() == pytest.approx(1.0, abs=1e-9)
            pair = sorted((int(lysozyme.numbers[a]), int(lysozyme.numbers[b])))
            assert pair in ([6, 6], [6, 7])
            assert 4 in {degree[k] for k in (a, b) if lysozyme.numbers[k] == 6}, "not single"
            # no peptide bond: its carbon has three neighbours, so it would not be the tetrahedral
            graph[a, b] = graph[b, a] = 0
            detour = dijkstra(graph.tocsr(), indices=a, unweighted=True, limit=7)[b]
            graph[a, b] = graph[b, a] = 1
            assert np.isinf(detour), "a ring was opened"
            links_seen += 1
    assert links_seen > 50


@pytest.mark.parametrize("complete_A", [3.5, 5.0])
def test_complete_atoms_by_brute_force(chignolin, complete_A):
    bonds = topology(chignolin)
    i, j = neighbor_list("ij", chignolin, complete_A)
    for center in (10, 60, 1500):
        piece = cut(chignolin, bonds, center, complete_A=complete_A)
        source, weight = piece.get_array("source"), piece.get_array("force_weight")
        apart = cdist(piece.positions, piece.positions)
        at_cut = source < 0
        at_cut[[np.argsort(apart[link])[1] for link in np.flatnonzero(source < 0)]] = True
        for k, atom in enumerate(source):
            near = apart[k] < complete_A
            neighbors = set(source[near]) - {atom, -1}
            whole = atom >= 0 and set(j[i == atom]) == neighbors
            assert weight[k] == float(whole and not at_cut[near].any())
        assert 0.05 < weight.mean() < 0.6


def test_the_choice_of_cell_does_not_matter(chignolin):
    """The same crystal, from another origin and with oblique vectors."""
    oblique = chignolin.copy()
    oblique.positions += [7.0, -20.0, 40.0]
    vectors = np.array(chignolin.cell)
    vectors[2] += vectors[0]
    oblique.set_cell(vectors)
    oblique.wrap()
    for center in (5, 100, 2000):
        one, other = (cut(a, topology(a), center) for a in (chignolin, oblique))
        assert (one.get_array("source") == other.get_array("source")).all()
        assert (one.get_array("force_weight") == other.get_array("force_weight")).all()
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-8)
        assert np.abs(one.positions[one.get_array("source") == center]).max() < 1e-9


def test_centers_cover_the_solute(lysozyme, lysozyme_bonds):
    drawn = centers(lysozyme, lysozyme_bonds, 50, np.random.default_rng(0))
    names = lysozyme.get_array("residuenames")[drawn]
    assert len(set(drawn)) == 50
    assert (names != "HOH").sum() == 35
    assert (lysozyme.numbers[drawn] > 1).all()
    protein = np.flatnonzero(lysozyme.get_array("residuenames") != "HOH")
    reach = [lysozyme.get_distances(k, drawn[:35], mic=True).min() for k in protein[::20]]
    assert max(reach) < 12.0


def test_where_there_is_one_kind_only_it_gives_all_centers(structures, chignolin):
    water = read(structures / "water216_packmol.extxyz")
    rng = np.random.default_rng(0)
    assert (water.numbers[centers(water, topology(water), 9, rng)] == 8).all()
    protein = chignolin[np.flatnonzero(chignolin.get_array("residuenames") != "HOH")]
    assert len(set(centers(protein, topology(protein), 20, rng))) == 20


def test_fragments_are_the_same_again_and_mostly_neutral(lysozyme, lysozyme_bonds, pieces):
    again = fragments(lysozyme, count=40, seed=3, bonds=lysozyme_bonds)
    assert all(one == other for one, other in zip(pieces, again, strict=True))
    assert len({piece.info["center"] for piece in pieces}) == 40
    assert sum(piece.info["charge"] == 0 for piece in pieces) >= 20


def test_an_isolated_protein_can_be_cut(chignolin):
    protein = chignolin[np.flatnonzero(chignolin.get_array("residuenames") != "HOH")]
    protein.pbc = False
    piece = cut(protein, topology(protein), 60, radius_A=5.0, complete_A=3.0)
    assert 0 < (piece.get_array("source") >= 0).sum() < len(protein)


def teacher_forces(piece):
    spec = f"so3lr?charge={piece.info['charge']}"
    isolated = torch.zeros(3, 3, dtype=torch.float64)
    found = load_potential(spec, piece.numbers)(torch.tensor(piece.positions), isolated)
    return found.forces.numpy()


def test_forces_on_complete_atoms_are_nearer_to_those_in_a_larger_fragment(chignolin):
    """SO3LR sees 4.5 Å three times over: a complete neighbourhood is what an atom feels most."""
    pytest.importorskip("so3krates_torch")
    bonds = topology(chignolin)
    large = cut(chignolin, bonds, 65, radius_A=12.0)
    reference = np.full((len(chignolin), 3), np.nan)
    real = large.get_array("source") >= 0
    reference[large.get_array("source")[real]] = teacher_forces(large)[real]
    error = {}
    for complete_A in (3.5, 5.0):
        piece = cut(chignolin, bonds, 65, complete_A=complete_A)
        source, weight = piece.get_array("source"), piece.get_array("force_weight")
        off = teacher_forces(piece) - reference[source]
        error[complete_A] = np.sqrt(np.square(off[weight > 0]).mean())
        rest = np.sqrt(np.square(off[(weight == 0) & (source >= 0)]).mean())
        assert error[complete_A] < 0.6 * rest
    assert error[3.5] < 0.15
    assert error[5.0] < 0.10


def test_bad_input(structures, chignolin):
    bonds = topology(chignolin)
    with pytest.raises(UserError, match=r"radius_A=4 leaves no atom with a complete environment"):
        cut(chignolin, bonds, 0, radius_A=4.0)
    water = read(structures / "water64_packmol.extxyz")
    with pytest.raises(UserError, match=r"radius_A=9 does not fit the cell"):
        fragments(water, count=1, seed=0)
    dipeptide = read(structures / "aladip_water_npt.extxyz")[:22]
    dipeptide.pbc = False
    with pytest.raises(UserError, match="need not be cut"):
        fragments(dipeptide, count=1, seed=0)
    with pytest.raises(UserError, match="topology of this system"):
        cut(chignolin[:-3], bonds, 0)
    with pytest.raises(UserError, match="not of the topology's system"):
        formal_charge(cut(chignolin, bonds, 3000), topology(water))
    with pytest.raises(UserError, match=r"count=0 .* give 1 to"):
        fragments(chignolin, count=0, seed=0, bonds=bonds)
    with pytest.raises(UserError, match="solute_share=70"):
        fragments(chignolin, count=5, seed=0, solute_share=70, bonds=bonds)
    broken = chignolin.copy()
    broken.positions[3, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        cut(broken, bonds, 0)


def test_an_infinite_sheet_cannot_be_cut():
    sheet = graphene(size=(9, 9, 1), vacuum=15.0)
    sheet.pbc = True
    water = molecule("H2O")
    water.positions += sheet.cell.sum(0) / 2 + [0, 0, 14.0]
    sheet += water
    with pytest.raises(UserError, match="reaches round the cell"):
        cut(sheet, topology(sheet), 0)
