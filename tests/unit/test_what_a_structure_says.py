"""Everything that a structure says is kept, converted with a sentence, or refused by name."""

import io

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixScaled
from ase.io import read, write

from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.sampling.fragment_sampler import FragmentSampler
from mts_driver.distillation.sampling.schedule import SamplingPlan
from mts_driver.drivers.ipi_socket.client import is_another
from mts_driver.errors import UserError
from mts_driver.potentials.backends import without_backend
from mts_driver.potentials.devices import of_local_rank
from mts_driver.potentials.load import require_shareable, spec_for, with_charge
from mts_driver.structures.files import (
    along_axes,
    boxed,
    fingerprint,
    read_structure,
    read_systems,
    write_start,
    write_velocities,
)
from mts_driver.structures.fixed import held_atoms
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.reading.formats import ISOTOPES
from mts_driver.units import BOHR_A

HYDROXIDE = "2\n{}\nO 0 0 0\nH 0 0 0.97\n"
WATER = "O 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n"


@pytest.fixture
def read_text(tmp_path):
    """Write a file and read it; returns the atoms and what the user is told."""

    def reads(text: str, name: str = "a.xyz"):
        (tmp_path / name).write_text(text)
        told: list[str] = []
        return read_structure(tmp_path / name, tell=told.append), " | ".join(told)

    return reads


@pytest.mark.parametrize(
    "header",
    [
        *("charge=-1", "charge=-1.0", "Charge=-1", "total_charge=-1", "totalCharge=-1"),
        *("net_charge=-1", "q=-1", 'charge="-1"', "charge=-1 total_charge=-1"),
        *("charge=-1 multiplicity=1", "charge=-1 spin=0", "charge=-1 uhf=0", "charge=-1 mult=1"),
    ],
)
def test_the_charge_in_any_spelling(read_text, header):
    atoms, _ = read_text(HYDROXIDE.format(f"Properties=species:S:1:pos:R:3 {header}"))
    assert atoms.info["charge"] == -1 and type(atoms.info["charge"]) is int
    assert "multiplicity" not in atoms.info
    assert spec_for("so3lr", atoms) == "so3lr?charge=-1"
    assert spec_for("so3lr?charge=-1", atoms) == "so3lr?charge=-1"
    assert spec_for("ase:m:f?q={charge}&u={unpaired}", atoms) == "ase:m:f?q=-1&u=0"
    with pytest.raises(UserError, match=r"for a charge of \+1 e, but the structure says -1"):
        spec_for("so3lr?charge=1", atoms)
    with pytest.raises(UserError, match="say where its charge goes"):
        spec_for("ase:ase.calculators.lj:LennardJones", atoms)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("charge=-1 total_charge=0", "disagree"),
        ("charge=-0.5", "no whole number"),
        ("charge=minus", "no number"),
        ("charge=nan", "no number"),
        ("charge=T", "no number"),
        ("charge=-1 spin=1", "multiplicity=2S.1 instead"),
        ("charge=-1 multiplicity=2", "10 electrons cannot have the multiplicity 2"),
        ("charge=-1 multiplicity=0", "cannot have the multiplicity 0"),
        ("charge=-1 multiplicity=3 uhf=0", "disagree"),
        ("multiplicity=1", "9 electrons cannot have the multiplicity 1"),
    ],
)
def test_charges_and_spins_that_cannot_be(read_text, header, message):
    with pytest.raises(UserError, match=message):
        read_text(HYDROXIDE.format(f"Properties=species:S:1:pos:R:3 {header}"))


def test_charges_of_atoms_are_summed_and_must_agree_with_the_header(read_text):
    rows = "Properties=species:S:1:pos:R:3:initial_charges:R:1 {}\nO 0 0 0 -1.3\nH 0 0 0.97 0.3\n"
    atoms, told = read_text("2\n" + rows.format(""))
    assert atoms.info["charge"] == -1 and "sum over its atoms" in told
    assert read_text("2\n" + rows.format("charge=-1"))[0].info["charge"] == -1
    with pytest.raises(UserError, match=r"header says a charge of .1 e.*sum to -1.00"):
        read_text("2\n" + rows.format("charge=1"))
    with pytest.raises(UserError, match=r"sum to -0.700 e"):
        read_text("2\n" + rows.format("").replace("0.3\n", "0.6\n"))


def test_a_spin_reaches_the_model_or_is_refused(read_text):
    atoms, told = read_text(HYDROXIDE.format(""))
    assert "odd number of electrons (9)" in told
    atoms, told = read_text(HYDROXIDE.format("Properties=species:S:1:pos:R:3 multiplicity=2"))
    assert atoms.info["multiplicity"] == 2 and not told
    assert spec_for("ase:m:f?m={multiplicity}", atoms) == "ase:m:f?m=2"
    with pytest.raises(UserError, match="multiplicity 2, but is for singlets"):
        spec_for("so3lr", atoms)


def test_charges_that_ase_passes_over(read_text):
    sdf = "\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n" + (
        "    0.0000    0.0000    0.0000 Cl  0  5  0  0  0  0  0  0  0  0  0  0\n"
        "M  CHG  1   1  -1\nM  END\n$$$$\n"
    )
    assert read_text(sdf, "a.sdf")[0].info["charge"] == -1
    pdb = "HETATM    1 CL    CL A   1       0.000   0.000   0.000  1.00  0.00          CL1-\nEND\n"
    assert read_text(pdb, "a.pdb")[0].info["charge"] == -1
    with pytest.raises(UserError, match="whose charge and spin would be lost"):
        read_text("%chk=a\n# hf\n\nt\n\n-1 1\nO 0 0 0\nH 0 0 1\n\n", "a.gjf")


def test_isotopes_in_a_column_or_as_labels(read_text, tmp_path):
    masses = [15.999, *[ISOTOPES["D"][1]] * 2]
    column = "Properties=species:S:1:pos:R:3:masses:R:1\nO 0 0 0 15.999\n" + "".join(
        f"H 0 {y} 0.59 {masses[1]}\n" for y in (0.76, -0.76)
    )
    labels = WATER.replace("H", "D")
    # with the properties in another order, and as i-PI writes it, where bohr is the unit
    turned = "Properties=pos:R:3:species:S:1\n0 0 0 O\n0 .76 .59 D\n0 -.76 .59 D\n"
    ipi = "# CELL(abcABC): 9 9 9 90 90 90 cell{angstrom} positions{angstrom}\n" + labels
    for text in (column, "\n" + labels, turned, ipi):
        atoms, told = read_text("3\n" + text)
        assert "2.014" in told or "of that mass" in told
        np.testing.assert_allclose(atoms.get_masses(), masses, atol=1e-3)
        assert str(atoms.symbols) == "OH2"
        heavy = repartitioned_masses(atoms, 4.0)
        np.testing.assert_allclose(heavy, [15.999 - 2 * (4 - masses[1]), 4, 4], atol=1e-3)
    # written with heavy hydrogens and read again: the isotopes are still there
    write_start(tmp_path / "s.extxyz", boxed(atoms)[0], heavy)
    assert read(tmp_path / "s.extxyz").get_masses()[1] == 4.0
    np.testing.assert_allclose(
        read_structure(tmp_path / "s.extxyz").get_masses(), masses, atol=1e-3
    )
    with pytest.raises(UserError, match=r"2\.0141 Da already"):
        repartitioned_masses(atoms, 2.0)


def test_masses_of_an_earlier_repartitioning_are_natural_again(tmp_path):
    atoms = molecule("CH3CH2OH")
    heavy = repartitioned_masses(atoms, 3.0)
    atoms.set_masses(heavy)
    atoms.write(tmp_path / "old.extxyz", columns=["symbols", "positions", "masses"])
    told: list[str] = []
    found = read_structure(tmp_path / "old.extxyz", tell=told.append)
    assert (found.get_masses() == molecule("CH3CH2OH").get_masses()).all()
    assert "earlier repartitioning" in told[0]


@pytest.mark.parametrize("value", ["nan", "0", "-1"])
@pytest.mark.parametrize("column", ["masses", "mass"])
def test_masses_that_cannot_be(read_text, column, value):
    row = f"Properties=species:S:1:pos:R:3:{column}:R:1\nO 0 0 0 {value}\n"
    with pytest.raises(UserError, match=r"masses of atom 0 is .*(above 0|not finite)"):
        read_text("1\n" + row)


def test_held_atoms_stay_held_and_other_constraints_are_refused(tmp_path):
    atoms = molecule("CH3CH2OH")
    kept = [[FixAtoms([0, 2])], [FixAtoms([0]), FixAtoms([2])]]
    kept += [[FixCartesian([0, 2], [True] * 3)], [FixScaled([0, 2], [True] * 3)]]
    for constraints in kept:
        atoms.set_cell([9] * 3)
        atoms.pbc = True
        atoms.set_constraint(constraints)
        write(tmp_path / "a.traj", atoms)
        found = read_structure(tmp_path / "a.traj")
        assert held_atoms(found).tolist() == [0, 2]
        write_start(tmp_path / "s.extxyz", found, found.get_masses())
        assert held_atoms(read_structure(tmp_path / "s.extxyz")).tolist() == [0, 2]
    for constraint in (FixBondLength(0, 1), FixCartesian([0], [True, True, False])):
        atoms.set_constraint(constraint)
        write(tmp_path / "a.traj", atoms)
        with pytest.raises(UserError, match=f"constraint {type(constraint).__name__}"):
            read_structure(tmp_path / "a.traj")
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    write(tmp_path / "a.traj", atoms)
    with pytest.raises(UserError, match="holds all of its atoms"):
        read_structure(tmp_path / "a.traj")


def test_a_left_handed_cell_becomes_the_same_crystal(tmp_path):
    right = bulk("NaCl", "rocksalt", 5.6)
    left = right.copy()
    left.set_cell(right.cell.array[[1, 0, 2]])
    assert left.cell.handedness == -right.cell.handedness
    for atoms in (right, left):
        atoms.write(tmp_path / f"{atoms.cell.handedness}.extxyz")
    told: list[str] = []
    found = [read_structure(tmp_path / f"{h}.extxyz", tell=told.append) for h in (1, -1)]
    assert len(told) == 1 and "left-handed" in told[0]
    assert (found[0].cell.array == found[1].cell.array).all()
    turned, changed = along_axes(found[0])
    assert changed and np.abs(np.triu(turned.cell.array, 1)).max() < 1e-12
    np.testing.assert_allclose(
        turned.get_all_distances(mic=True), right.get_all_distances(mic=True), atol=1e-9
    )
    assert turned.cell.volume == pytest.approx(right.cell.volume)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('Lattice="1 0 0 0 1 0 0 0 1"', "1 Å thin .*placeholder"),
        ('Lattice="9 0 0 0 9 0 18 0.1 0.1"', "thin"),
        ('Lattice="9 0 0 0 9 0 9 9 0"', "full three-dimensional"),
        ('Lattice="9 0 0 0 9 0 0 0 nan"', "cell is not finite"),
        ('Lattice="9 0 0 0 9 0 0 0 9" pbc="T F T"', "periodic along .*True, False, True"),
        ('Lattice="1.52 0 0 0 9 0 0 0 9"', r"atoms 1 and 2 \(a periodic image\) are 0 Å apart"),
        ('Lattice="1.6 0 0 0 1.6 0 0 0 2"', "denser than any solid|periodic image"),
    ],
)
def test_cells_that_cannot_be(read_text, header, message):
    along_x = "O 0 0 0\nH 0.76 0 0.59\nH -0.76 0 0.59\n"
    with pytest.raises(UserError, match=message):
        read_text(f"3\n{header}\n{along_x}")


def test_atoms_that_coincide(read_text):
    with pytest.raises(UserError, match=r"atoms 1 and 3 are 0.1 Å apart \(1 such"):
        read_text("4\n\n" + WATER + "H 0 0.76 0.69\n")


def test_i_pi_writes_units_and_cells_that_are_read(read_text):
    atoms = bulk("Ar", "fcc", 5.3, cubic=True)
    rows = "".join(f"Ar {x} {y} {z}\n" for x, y, z in atoms.positions / BOHR_A)
    a = 5.3 / BOHR_A
    for comment in (
        f"# CELL(abcABC): {a} {a} {a} 90 90 90 Step: 0 Bead: 0",
        f"# CELL(abcABC): {a} {a} {a} 90 90 90 positions{{atomic_unit}} cell{{atomic_unit}}",
        "# CELL(abcABC): 5.3 5.3 5.3 90 90 90 positions{atomic_unit} cell{angstrom}",
        f"# CELL(H): {a} 0 0 0 {a} 0 0 0 {a} positions{{atomic_unit}} cell{{atomic_unit}}",
        f"# CELL{{GENH}}: {a} 0 0 0 {a} 0 0 0 {a} positions{{atomic_unit}} cell{{atomic_unit}}",
    ):
        found, told = read_text(f"4\n{comment}\n{rows}")
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-6)
        np.testing.assert_allclose(found.cell.array, atoms.cell.array, atol=1e-6)
        assert found.pbc.all() and "units of i-PI" in told
    with pytest.raises(UserError, match=r"holds velocities\{atomic_unit\} of i-PI"):
        read_text(f"4\n# CELL(abcABC): 9 9 9 90 90 90 velocities{{atomic_unit}}\n{rows}")


def test_isotopes_that_i_pi_knows(read_text):
    atoms, told = read_text("2\n# CELL(abcABC): 9 9 9 90 90 90\nC13 1 1 1\nO18 1 1 3.2\n")
    assert str(atoms.symbols) == "CO" and "C of 13.003 Da, O of 17.999 Da" in told


def test_the_last_frame_is_taken_or_the_one_that_is_named(tmp_path):
    file = tmp_path / "t.extxyz"
    write(file, [molecule("H2O"), molecule("CH4"), molecule("NH3")])
    told: list[str] = []
    assert str(read_structure(file, tell=told.append).symbols) == "NH3"
    assert "3 frames: the last is taken" in told[0]
    assert str(read_structure(f"{file}@1").symbols) == "CH4"
    assert read_systems(f"{file}@0")[0].info["system"] == "t"
    with pytest.raises(UserError, match="no frame 7"):
        read_structure(f"{file}@7")


@pytest.mark.parametrize("name", ["disorder.cif", "disorder.pdb", "wide.cif"])
def test_atoms_in_part_and_neighbours_that_ase_would_merge_are_refused(tmp_path, name):
    salt = Atoms("NaCl", [[0, 0, 0], [2.82, 0, 0]], cell=[5.64, 5.64, 5.64], pbc=True)
    file = tmp_path / name
    if name == "wide.cif":
        salt.set_cell([5.64, 5.64, 5000.0])
        salt.positions[1] = [0, 0, 2.82]
    write(file, salt)
    if name.startswith("disorder"):
        read_structure(file)
        text = file.read_text()
        assert text.count("1.00") >= 2
        file.write_text(text.replace("1.0000", "0.5000").replace("  1.00", "  0.50"))
    with pytest.raises(UserError, match=r"there in part|takes atoms within 5"):
        read_structure(file)


def test_held_atoms_have_no_velocity_and_that_is_said(tmp_path):
    atoms = molecule("HCl")
    atoms.set_velocities(np.ones((2, 3)))
    atoms.set_constraint(FixAtoms([1]))
    write(tmp_path / "v.extxyz", atoms)
    told: list[str] = []
    found = read_structure(tmp_path / "v.extxyz", tell=told.append, keep_velocities=True)
    np.testing.assert_allclose(found.get_velocities(), [[1.0] * 3, [0.0] * 3], atol=1e-6)
    assert any("held atoms do not move" in one for one in told)


def test_velocities_are_kept_and_turned_with_the_cell(tmp_path):
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.set_velocities(np.arange(6.0).reshape(2, 3) * 1e-3 / units.fs)
    write(tmp_path / "v.traj", atoms)
    told: list[str] = []
    assert not read_structure(tmp_path / "v.traj", tell=told.append).has("momenta")
    assert "velocities are drawn anew" in told[0]
    found = read_structure(tmp_path / "v.traj", keep_velocities=True)
    np.testing.assert_allclose(found.get_velocities(), atoms.get_velocities(), rtol=1e-12)
    turned, _ = along_axes(found)
    speeds = np.linalg.norm(found.get_velocities(), axis=1)
    np.testing.assert_allclose(np.linalg.norm(turned.get_velocities(), axis=1), speeds, rtol=1e-12)
    write_velocities(tmp_path / "v.xyz", found, found.get_masses())
    from ipi.utils.io import read_file

    with open(tmp_path / "v.xyz") as file:
        frame = read_file("xyz", file, dimension="velocity")
    # 1e-3 Å/fs is 4.571e-5 atomic units
    np.testing.assert_allclose(frame["atoms"].q[1], 4.5710e-5, rtol=1e-4)


def test_velocities_without_units_are_not_used(read_text):
    text = "1\nProperties=species:S:1:pos:R:3:velo:R:3\nO 0 0 0 1 1 1\n"
    atoms, told = read_text(text)
    assert "'velo' names no units" in told and not atoms.has("momenta")
    with pytest.raises(UserError, match=r"momenta of atom 0 is .*not finite"):
        read_text(text.replace("velo", "momenta").replace("1 1 1", "nan 1 1"))


def test_an_isolated_molecule_with_a_cell_stays_isolated(tmp_path):
    atoms = molecule("CH3CH2OH", vacuum=2.5)
    atoms.pbc = False
    atoms.write(tmp_path / "m.extxyz")
    told: list[str] = []
    found = read_structure(tmp_path / "m.extxyz", tell=told.append)
    assert not found.pbc.any() and "taken as isolated" in told[0]
    write_start(tmp_path / "s.extxyz", boxed(found)[0], found.get_masses())
    start = read(tmp_path / "s.extxyz")
    assert not start.pbc.any() and start.cell.volume > 64000


def test_a_start_is_read_back_equal(tmp_path, structures):
    for file in sorted(structures.glob("*.extxyz"))[:4]:
        atoms = read_structure(file)
        write_start(tmp_path / "s.extxyz", atoms, repartitioned_masses(atoms, 4.0))
        found = read_structure(tmp_path / "s.extxyz")
        assert (found.positions == np.round(atoms.positions, 8)).all()
        assert (found.cell.array == atoms.cell.array).all()
        assert (found.get_masses() == atoms.get_masses()).all()


def test_a_start_that_is_not_finite_is_not_written(tmp_path):
    atoms = molecule("H2O")
    atoms.positions[0, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        write_start(tmp_path / "s.extxyz", atoms, atoms.get_masses())
    assert not (tmp_path / "s.extxyz").exists()


def test_ase_reads_a_start_as_we_do(tmp_path):
    """Other programs read the same file: masses of the run, held atoms and the charge."""
    atoms, _ = boxed(molecule("H2O"))
    atoms.info["charge"] = -2
    atoms.set_constraint(FixAtoms([1]))
    write_start(tmp_path / "s.extxyz", atoms, repartitioned_masses(atoms, 3.0))
    found = read(io.StringIO((tmp_path / "s.extxyz").read_text()), format="extxyz")
    assert found.get_masses()[1] == 3.0 and found.info["charge"] == -2
    assert held_atoms(found).tolist() == [1]


def test_a_state_belongs_to_all_that_a_structure_says():
    atoms, others = molecule("H2O"), []
    for change in (
        lambda a: a.info.update(charge=1),
        lambda a: a.info.update(multiplicity=3),
        lambda a: a.set_masses([16, 2, 2]),
        lambda a: a.set_constraint(FixAtoms([0])),
        lambda a: a.set_cell([9, 9, 9]),
        lambda a: a.rattle(1e-3),
    ):
        others.append(molecule("H2O"))
        change(others[-1])
    assert fingerprint(atoms) == fingerprint(molecule("H2O"))
    assert len({fingerprint(a) for a in (atoms, *others)}) == 7


def test_labels_belong_to_a_charge(tmp_path):
    atoms = molecule("OH")
    atoms.info.update(system="a", charge=-1)
    labels = LabelFile(tmp_path / "labels.extxyz", teacher="so3lr")
    info = {"kind": "md", "split": "train", "system": "a", "info": {"charge": -1}}
    labels.add(atoms, energy_eV=0.0, forces_eV_A=np.zeros((2, 3)), **info)
    labels.require_same([atoms])
    del atoms.info["charge"]
    for found in (labels, LabelFile(labels.path, teacher="so3lr")):
        with pytest.raises(UserError, match="'a' with charge -1, the structure has 0"):
            found.require_same([atoms])


def test_fragments_add_up_to_the_charge_of_the_header(tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.info.update(system="a", charge=-1)
    labeller = Labeller("so3lr", LabelFile(tmp_path / "labels.extxyz", teacher="so3lr"))
    plan = SamplingPlan(temperature_K=300.0, calls=60)
    options = {"seed": 1, "report": print, "radius_A": 5.0, "snapshots": tmp_path / "s.extxyz"}
    with pytest.raises(UserError, match=r"charge of -1 e, but .* fragments add up to \+0 e"):
        FragmentSampler(atoms, "a", labeller, plan, student=None, **options)


def test_where_a_model_is_evaluated_is_no_other_model():
    assert without_backend("so3lr?charge=-1&backend=device") == "so3lr?charge=-1"
    assert without_backend("so3lr?backend=device") == without_backend("so3lr") == "so3lr"
    assert not is_another("so3lr?backend=device", "so3lr")
    assert is_another("so3lr?backend=device", "student:water")
    assert with_charge("so3lr?backend=device", -1) == "so3lr?backend=device&charge=-1"
    with pytest.raises(UserError, match="on GPUs, and ase: on the cpu"):
        require_shareable("ase:mine:make?receptive_field_A=6", "cuda", 2)
    for spec in ("so3lr", "so3lr?backend=device", "student:water", "metatomic:model.pt"):
        require_shareable(spec, "cuda", 2)


def test_processes_of_a_machine_take_its_gpus_in_turn(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [of_local_rank("cuda", k) for k in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert of_local_rank("cuda:1", 0) == "cuda:1" and of_local_rank("cpu", 1) == "cpu"
