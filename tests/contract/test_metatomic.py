"""Models that were exported with metatomic: small ones, whose exact answers are known."""

import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

import mts_driver
from integrators.device.guest import Guest
from mts_driver.analysis.properties import read_properties
from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.load import spec_charge, spec_for
from mts_driver.potentials.virial import gives_virial
from mts_driver.runs.launcher import load
from mts_driver.structures.tensors import cell_of

pytest.importorskip("metatomic.torch")
from exported_models import CUTOFF_A, EPSILON_EV, SIGMA_A, argon, export, known_answer
from running import LONG_S, mts

KNOWN = (
    f"ase:ase.calculators.lj:LennardJones?sigma={SIGMA_A}&epsilon={EPSILON_EV}&rc={CUTOFF_A}"
    "&ro=5.0&smooth=True"
)


def systems():
    box = argon()
    turned = box.copy()
    turned.set_cell(box.cell.array @ [[1, 0, 0], [0.3, 1, 0], [-0.2, 0.4, 1]], scale_atoms=True)
    small = argon((1, 1, 1))  # thinner than the cutoff: atoms are their own neighbours
    outside = turned.copy()
    outside.positions += np.random.default_rng(1).integers(-2, 3, (32, 3)) @ turned.cell.array
    cluster = Atoms(box.numbers, box.positions)
    far = Atoms("Ar2", [[0, 0, 0], [40, 0, 0]])
    alone = Atoms("Ar")
    return {
        "box": box,
        "triclinic": turned,
        "thin": small,
        "outside": outside,
        "cluster": cluster,
        "far apart": far,
        "an atom": alone,
    }


SYSTEMS = systems()


def evaluated(spec, atoms, dtype="float32"):
    potential = load_potential(spec, atoms.numbers.tolist(), dtype=dtype)
    found = potential(torch.tensor(atoms.positions), cell_of(atoms))
    return float(found.energy), found.forces.numpy(), found.virial.numpy()


def known(atoms):
    atoms = atoms.copy()
    atoms.calc = known_answer()
    virial = np.zeros((3, 3))
    if atoms.pbc.any():
        virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
    return atoms.get_potential_energy(), atoms.get_forces(), virial


KINDS = {
    "angstrom, eV, both directions": {},
    "angstrom, eV, each pair once": {"full": False},
    "nm, kJ/mol": {"length_unit": "nm", "energy_unit": "kJ/mol"},
    "bohr, hartree, a sum": {
        **{"length_unit": "bohr", "energy_unit": "hartree"},
        **{"per_atom": False, "full": False},
    },
}


SHORT = ("thin", "cluster")


@pytest.fixture(autouse=True)
def as_written():
    """TorchScript optimises a model for most of a second, which is looked at in one test."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every kind, written once."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def file(name, **kind):
        if name not in made:
            made[name] = export(folder / f"{len(made)}.pt", **kind)
        return made[name]

    return file


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if at == 0 or name in SHORT else pytest.mark.slow)
        for name in SYSTEMS
        for at, kind in enumerate(KINDS)
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "device"])
def test_energies_forces_and_virials_are_known(files, name, kind, backend):
    atoms = SYSTEMS[name]
    spec = f"metatomic:{files(kind, **KINDS[kind])}?backend={backend}"
    energy, forces, virial = evaluated(spec, atoms, "float64")
    e, f, v = known(atoms)
    # where ASE and metatomic have constants of other years
    assert energy == pytest.approx(e, rel=1e-8)
    np.testing.assert_allclose(forces, f, rtol=1e-7, atol=1e-9)
    if atoms.pbc.any():
        np.testing.assert_allclose(virial, v, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["triclinic", "cluster"])
def test_forces_and_virial_are_derivatives(files, name):
    """Also through two sums over neighbours."""
    atoms = SYSTEMS[name]
    spec = f"metatomic:{files('passes', passes=True)}"
    potential = load_potential(spec, atoms.numbers.tolist(), dtype="float64")
    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    found = potential(x, cell)
    rng = torch.Generator().manual_seed(1)
    along = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    strain = torch.randn(3, 3, generator=rng, dtype=torch.float64)
    h = 1e-5

    def slope(moved):
        return (potential(*moved(h)).energy - potential(*moved(-h)).energy).item() / (2 * h)

    assert -slope(lambda h: (x + h * along, cell)) == pytest.approx(
        (found.forces * along).sum().item(), abs=2e-7
    )
    assert -slope(lambda h: (x + h * x @ strain, cell + h * cell @ strain)) == pytest.approx(
        (found.virial * strain).sum().item(), abs=2e-5
    )


@pytest.mark.parametrize("backend", ["cpu", "device"])
def test_replicas_of_other_cells_and_a_trajectory(files, backend):
    """Evaluated at once, with lists that last for some steps, they are what each is alone."""
    atoms = SYSTEMS["box"]
    spec = f"metatomic:{files('angstrom, eV, both directions')}?backend={backend}"
    potential = load_potential(spec, atoms.numbers.tolist())
    rng = np.random.default_rng(1)
    x = np.array([atoms.positions] * 3)
    for step in range(4):
        x = x + rng.normal(scale=0.15, size=x.shape)
        cells = np.array([(1 + 0.01 * k + 0.002 * step) * atoms.cell.array for k in range(3)])
        energies, forces, virials = potential.evaluate(x, cells)
        for k in range(3):
            one = Atoms(atoms.numbers, x[k], cell=cells[k], pbc=True)
            e, f, v = known(one)
            assert energies[k] == pytest.approx(e, rel=1e-10)
            np.testing.assert_allclose(forces[k], f, atol=1e-10)
            np.testing.assert_allclose(virials[k], v, atol=1e-9)


@pytest.mark.parametrize("backend", ["cpu", "device"])
def test_beside_a_student_on_a_device_it_takes_what_is_there(files, backend, monkeypatch):
    """Nothing goes through numpy, unless lists are on the host."""
    atoms = SYSTEMS["triclinic"]
    spec = f"metatomic:{files('angstrom, eV, both directions')}?backend={backend}"
    potential = load_potential(spec, atoms.numbers.tolist())
    if backend == "device":
        monkeypatch.setattr(potential, "evaluate", None)
    guest, x = Guest(potential, torch.device("cpu")), torch.tensor(atoms.positions)[None]
    before = x.clone()
    for moved in (0.0, 0.3):
        x[0, 0] = before[0, 0] + moved  # where it is, as steps do
        found = guest.evaluate(x, cell_of(atoms)[None])
        e, f, v = known(Atoms(atoms.numbers, x[0].numpy(), cell=atoms.cell, pbc=True))
        assert not x.requires_grad and found.energy.item() == pytest.approx(e, rel=1e-8)
        np.testing.assert_allclose(found.forces[0], f, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.virial[0], v, rtol=1e-7, atol=1e-8)


def test_single_precision_is_that_of_the_model_and_lasts_to_the_bit(files):
    atoms, spec = SYSTEMS["box"], f"metatomic:{files('single', dtype='float32')}"
    potential = load_potential(spec, atoms.numbers.tolist())
    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    with torch.jit.optimized_execution(True):
        calls = [potential(x, cell).forces for _ in range(4)]
    error = np.abs(calls[0].numpy() - known(atoms)[1]).max()
    assert 1e-9 < error < 1e-5
    for again in calls[1:]:  # TorchScript optimises a model after its first call
        assert torch.equal(again, calls[0])
    # far from the origin as well, where a position in float32 has lost a digit
    far = potential(x + 3000.0, cell).forces
    assert np.abs((far - calls[0]).numpy()).max() < 1e-5
    with pytest.raises(UserError, match=r"is in float32, and dtype='float64' is asked for"):
        load_potential(spec, [18], dtype="float64")


@pytest.mark.parametrize("backend", ["cpu", "device"])
@pytest.mark.parametrize("stress", [True, False])
def test_direct_forces(files, stress, backend, capsys):
    kinds = ("forces", "stress") if stress else ("forces",)
    file = files(f"direct {stress}", direct=kinds, length_unit="nm", energy_unit="kJ/mol")
    atoms = SYSTEMS["box"]
    spec = f"metatomic:{file}?forces=direct&backend={backend}"
    energy, forces, virial = evaluated(spec, atoms)
    assert energy == pytest.approx(known(atoms)[0], rel=1e-8)
    kJ_mol, nm_A = 0.010364269656, 10.0
    springs = -2.0 * (atoms.positions - atoms.positions.mean(0)) / nm_A
    np.testing.assert_allclose(forces, springs * kJ_mol / nm_A, rtol=1e-7)
    potential = load_potential(spec, atoms.numbers.tolist())
    assert potential.has_virial is stress and gives_virial(potential, atoms) is stress
    pressure = 0.5 * kJ_mol / nm_A**3 if stress else 0.0
    np.testing.assert_allclose(virial, -pressure * atoms.get_volume() * np.eye(3), rtol=1e-7)
    assert "total energies are not conserved" in capsys.readouterr().err


def test_charge_and_spin_of_a_structure_are_honoured_or_refused(files):
    atoms = SYSTEMS["cluster"].copy()
    takes = f"metatomic:{files('inputs', inputs=True)}"
    plain = f"metatomic:{files('angstrom, eV, both directions')}"
    neutral = known(atoms)[0]
    assert spec_for(takes, atoms) == takes
    assert evaluated(takes, atoms)[0] == pytest.approx(neutral)
    atoms.info.update(charge=-3, multiplicity=2)
    spec = spec_for(takes, atoms)
    assert spec == f"{takes}?charge=-3&multiplicity=2" == spec_for(spec, atoms)
    assert spec == spec_for(takes + "?charge={charge}&multiplicity={multiplicity}", atoms)
    # the model is made so that it is (1 + charge + 10 (multiplicity − 1)) times its energy
    assert evaluated(spec, atoms)[0] == pytest.approx(8 * neutral)
    assert spec_charge(spec) == -3 and spec_charge(takes) == 0
    with pytest.raises(UserError, match=r"charge of 1, but the structure says -3"):
        spec_for(f"{takes}?charge=1", atoms)
    with pytest.raises(UserError, match=r"with a charge of -3, but the model takes none"):
        load_potential(spec_for(plain, atoms), [18])
    with pytest.raises(UserError, match=r"spin_multiplicity of 2, but the model takes none"):
        load_potential(f"{plain}?multiplicity=2", [18])


def test_words_that_cannot_be(files, tmp_path):
    plain = f"metatomic:{files('angstrom, eV, both directions')}"
    (tmp_path / "text.pt").write_text("no model")
    torch.save({"a": 1}, tmp_path / "dict.pt")
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "script.pt"))
    for spec, message in (
        ("metatomic:", "is incomplete"),
        ("metatomic:?forces=direct", "is incomplete"),
        ("metatomic:nowhere.pt", "there is no file 'nowhere.pt'"),
        (f"metatomic:{tmp_path}", "there is no file"),
        *(
            (f"metatomic:{tmp_path}/{name}.pt", "cannot be loaded as a model of metatomic")
            for name in ("text", "dict", "script")
        ),
        (f"{plain}?extensions=nowhere", "extensions=nowhere is no folder"),
        (f"{plain}?force=direct", "'force=direct' is not understood"),
        (f"{plain}?forces=direct&forces=direct", "is not understood"),
        (f"{plain}?forces=soft", "forces=soft is not known"),
        (f"{plain}?forces=direct", "has no 'non_conservative_force' to choose"),
        (f"{plain}?variant=pbe", "has no 'energy' of the variant 'pbe'"),
        (f"{plain}?charge=some", "charge=some cannot be"),
        (f"{plain}?multiplicity=0", "multiplicity=0 cannot be"),
        (f"{plain}?backend=gpu", "backend='gpu' is not known: use cpu or device"),
    ):
        with pytest.raises(UserError, match=message) as found:
            load_potential(spec, [18])
        assert "\n" not in str(found.value)
    with pytest.raises(UserError, match="element O is in the structure, but potential 'metatomic"):
        load_potential(plain, [18, 8])
    where = "cuda" if torch.cuda.is_available() else "cpu"
    gpu = files("gpu", supported_devices=["cuda" if where == "cpu" else "cpu"])
    with pytest.raises(UserError, match=f"not on device='{where}'"):
        load_potential(f"metatomic:{gpu}", [18], device=where)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"outputs": {}}, r"has no 'energy' to choose \(it gives nothing\)"),
        ({"length_unit": ""}, "declares no unit of length"),
        ({"energy_unit": ""}, "declares no unit of its output 'energy'"),
        ({"masses": True}, "asks for 'mass' of every atom"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, kind, message):
    file = export(tmp_path / "model.pt", **kind)
    with pytest.raises(UserError, match=message):
        load_potential(f"metatomic:{file}", [18])


def test_a_model_that_fails_is_a_sentence(files):
    potential = load_potential(f"metatomic:{files('inputs', inputs=True)}?charge=7", [18])
    with pytest.raises(UserError, match=r"failed: .*seven is too much"):
        potential(torch.zeros(1, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64))


def test_without_the_package(files, monkeypatch):
    spec = f"metatomic:{files('angstrom, eV, both directions')}"
    for name in ("metatomic", "metatomic.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'mts-driver\[metatomic\]'"):
        load_potential(spec, [18])


def test_it_is_the_teacher_of_a_run_and_relative_paths_hold(files, tmp_path, monkeypatch):
    """Prepared in another folder than the run's; the student is what the teacher is made of."""
    teacher = files("nm, kJ/mol", **KINDS["nm, kJ/mol"])
    monkeypatch.chdir(teacher.parent)
    prepared = mts_driver.prepare(
        SYSTEMS["box"],
        tmp_path / "run",
        teacher=f"metatomic:{teacher.name}",
        student=KNOWN,
        outer_fs=20,
        inner_fs=10,
        hydrogen_mass_Da=0,
        steps=3,
        stride=1,
        equilibrate_ps=0,
        mode="zmq",
        device_steps=1,
    )
    text = prepared.input.read_text()
    assert f"metatomic:{teacher.resolve()}" in text
    done = mts("run", prepared.input, "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    found = read_properties(tmp_path / "run" / "simulation.out")
    assert len(found["potential"]) == 4
    assert found["potential"][0] == pytest.approx(known(SYSTEMS["box"])[0], abs=1e-5)
    # both levels are the same, so that the energy is conserved as by single steps
    assert np.ptp(found["conserved"]) < 2e-3
    prepared.input.write_text(text.replace(str(teacher.resolve()), "gone.pt"))
    with pytest.raises(UserError, match=r"there is no file 'gone.pt'"):
        load(prepared.input)


def test_it_labels_frames_of_a_distillation(files, tmp_path):
    """Of any composition, from one copy of the file."""
    spec = f"metatomic:{files('angstrom, eV, both directions')}"
    labels = LabelFile(tmp_path / "labels.extxyz", teacher=spec)
    labeller = Labeller(spec, labels)
    whole = SYSTEMS["cluster"]
    for frame in (whole, whole[:5], whole[:5][::-1]):
        assert labeller.label(frame, kind=Kind.MD, split="train", system="argon")
    found = read(tmp_path / "labels.extxyz", ":")
    for frame, label in zip((whole, whole[:5], whole[:5][::-1]), found, strict=True):
        np.testing.assert_allclose(label.arrays["teacher_forces"], known(frame)[1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("updates", [20, 300])
def test_a_student_is_distilled_from_it(files, tmp_path, updates):
    teacher = f"metatomic:{files('angstrom, eV, both directions')}"
    write(tmp_path / "argon.extxyz", SYSTEMS["cluster"])
    student = tmp_path / "s.safetensors"
    done = mts(
        *("distill", tmp_path / "argon.extxyz", "-o", student, "--teacher", teacher),
        *("--hidden", 16, "--updates", updates, "--frames", 45),
        timeout=3 * LONG_S,
    )
    assert done.returncode == 0, done.stderr
    atoms = SYSTEMS["cluster"]
    error = evaluated(f"student:{student}", atoms)[1] - known(atoms)[1]
    rms = np.sqrt((known(atoms)[1] ** 2).mean())
    assert np.sqrt((error**2).mean()) < rms * (2.0 if updates == 20 else 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["metatomic", "ase"])
def test_a_run_on_ranks_is_the_run(files, tmp_path, model):
    """Under the real mpiexec; in a bar that is longer than what a brick can feel."""
    pytest.importorskip("mpi4py")
    atoms = argon((10, 2, 2))
    spec = f"metatomic:{files('passes', passes=True)}"
    if model == "ase":
        spec = f"{KNOWN}&receptive_field_A=6"
    found = {}
    for ranks in (1, 2):
        prepared = mts_driver.prepare(
            atoms,
            tmp_path / str(ranks),
            teacher=spec,
            student=KNOWN,
            **{"outer_fs": 10, "inner_fs": 5, "hydrogen_mass_Da": 0, "steps": 5, "stride": 1},
            **{"equilibrate_ps": 0, "mode": "unix"},
        )
        text = prepared.input.read_text()
        teacher = f"model: {spec.replace('&', '&amp;')}, device: cpu"
        assert text.count(teacher) == 1
        prepared.input.write_text(text.replace(teacher, f"{teacher}, ranks: {ranks}"))
        done = mts("run", prepared.input, "--baseline-steps", 0)
        assert done.returncode == 0, done.stderr
        found[ranks] = read_properties(prepared.input.parent / "simulation.out")["potential"]
    # through i-PI's decimals
    np.testing.assert_allclose(found[2], found[1], rtol=0, atol=1e-6)
