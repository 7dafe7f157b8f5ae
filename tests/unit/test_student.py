"""The student: kernel against torch, symmetries, smoothness, files."""

import json

import numba
import numpy as np
import pytest
import torch
from ase.io import read
from safetensors.torch import save_file

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.file import read_student, save_student
from mts_driver.potentials.student.model import StudentConfig, StudentModel
from mts_driver.potentials.student.potential import Student, without_mean

WATER = [8, 1, 1]
# channels and messages as by default, whose kernels others compile too, or of an odd number
LOCAL, PASSING, ODD = {"messages": 0}, {"messages": 8}, {"channels": 8, "messages": 6}
FAR = {"messages": 8, "cutoff_A": 4.5}
ODD_LANES = pytest.param(ODD, marks=pytest.mark.slow, id="odd lanes")


def random_model(**options):
    torch.manual_seed(3)
    model = StudentModel(StudentConfig(elements=("H", "O"), hidden=16, **options))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name[0] in "bs":
                p.normal_()
        model.w3 *= 10
    return model.double()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(LOCAL, id="local"),
        pytest.param(PASSING, id="message pass"),
        pytest.param(FAR, id="4.5 A"),
        ODD_LANES,
    ],
)
def water(structures, request):
    atoms = read(structures / "water64_packmol.extxyz")
    cell = torch.tensor(np.array(atoms.cell))
    return (
        Student(random_model(**request.param), atoms.numbers, dtype="float64"),
        torch.tensor(atoms.positions),
        cell,
    )


def lanes(student):
    config = student.model.config
    return {name: getattr(config, name) for name in ("channels", "messages", "cutoff_A")}


def test_kernel_equals_torch(water):
    student, x, cell = water
    student._update_neighbors(x.numpy()[None], cell.numpy()[None])
    fused, plain = student._fused(x.numpy()), student._torch(x.numpy())
    for name, one, other in zip(("energy", "forces", "virial"), fused, plain, strict=True):
        torch.testing.assert_close(
            one.reshape(-1), other.reshape(-1), atol=2e-5, rtol=1e-6, msg=lambda m, n=name: n + m
        )


def test_calls_repeat_whatever_the_threads(water):
    """More than 512 atoms, so that no buffer is cleared by accident, and two threads."""
    small, x, cell = water
    copies = -(-600 // len(x))
    side = float(torch.linalg.norm(cell[0]))
    apart = torch.tensor([[k * (side + 10.0), 0.0, 0.0] for k in range(copies)]).double()
    many = (x + apart[:, None]).flatten(0, 1)
    numbers = np.tile(small.numbers, copies)
    student = Student(small.model, numbers, dtype="float64")
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        first = student(many, torch.zeros(3, 3))
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        for _ in range(5):
            again = student(many, torch.zeros(3, 3))
            for one, other in zip(again, first, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0)
    finally:
        numba.set_num_threads(before)


def test_its_list_outlasts_a_small_change_of_the_cell(water):
    kept, x, cell = water
    kept(x, cell)
    strain = torch.eye(3).double() + 1e-3 * torch.randn(3, 3).double()
    before = kept._lists[0].builds
    found = kept(x @ strain, cell @ strain)
    assert kept._lists[0].builds == before
    new = Student(kept.model, kept.numbers, dtype="float64")(x @ strain, cell @ strain)
    for one, other in zip(found, new, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_direct_kernel_equals_torch(water):
    conservative, x, cell = water
    model = random_model(direct=True, **lanes(conservative))
    student = Student(model, conservative.numbers, dtype="float64")
    forces = student(x, cell).forces
    plain = torch.from_numpy(without_mean(student._torch(x.numpy())[1][None])[0])
    torch.testing.assert_close(forces, plain, atol=2e-5, rtol=1e-6)
    assert float(forces.sum(0).abs().max()) < 1e-9
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.manual_seed(0)))
    turned = student(x @ q, cell @ q)
    torch.testing.assert_close(turned.forces, forces @ q, atol=1e-7, rtol=1e-7)


def test_forces_and_virial_are_derivatives_of_the_energy(water):
    student, x, cell = water
    found, h = student(x, cell), 1e-4
    for atom, axis in ((0, 0), (77, 1)):
        moved = [x.clone(), x.clone()]
        moved[0][atom, axis] += h
        moved[1][atom, axis] -= h
        slope = -float(student(moved[0], cell).energy - student(moved[1], cell).energy) / (2 * h)
        assert slope == pytest.approx(float(found.forces[atom, axis]), abs=1e-5)
    strain = torch.eye(3, dtype=torch.float64)
    strain[0, 1] = h
    back = 2 * torch.eye(3, dtype=torch.float64) - strain
    up, down = student(x @ strain, cell @ strain).energy, student(x @ back, cell @ back).energy
    assert -float(up - down) / (2 * h) == pytest.approx(float(found.virial[0, 1]), abs=1e-3)


def test_invariance(water):
    student, x, cell = water
    found = student(x, cell)
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.manual_seed(0)))
    turned = student(x @ q, cell @ q)
    torch.testing.assert_close(turned.energy, found.energy)
    torch.testing.assert_close(turned.forces, found.forces @ q, atol=1e-7, rtol=1e-7)
    molecules = torch.randperm(64, generator=torch.manual_seed(0))
    order = (3 * molecules[:, None] + torch.arange(3)).flatten()
    torch.testing.assert_close(student(x[order], cell).energy, found.energy)
    wrapped = x - 3.0 * cell[0] + cell[2]
    torch.testing.assert_close(student(wrapped, cell).forces, found.forces, atol=1e-7, rtol=1e-7)


def test_smooth_at_the_cutoff():
    """Two derivatives vanish: the force between two atoms goes to zero as the square."""
    model = random_model()
    student = Student(model, [8, 8], dtype="float64")
    cutoff = model.config.cutoff_A

    def force(gap):
        x = torch.tensor([[0.0, 0, 0], [cutoff - gap, 0, 0]], dtype=torch.float64)
        return float(student(x, torch.zeros(3, 3, dtype=torch.float64)).forces[0, 0])

    assert force(-1e-6) == 0.0
    assert abs(force(1e-3)) < 5e-2 * abs(force(1e-2))


@pytest.mark.parametrize(
    "water",
    [
        pytest.param(LOCAL, marks=pytest.mark.slow, id="local"),
        pytest.param(PASSING, id="message pass"),
        ODD_LANES,
    ],
    indirect=True,
)
def test_single_precision(water):
    student, x, cell = water
    model = random_model(**lanes(student)).float()
    single = Student(model, student.numbers, dtype="float32")
    scale = float(student(x, cell).forces.abs().max())
    difference = single(x, cell).forces - student(x, cell).forces
    assert float(difference.abs().max()) < 1e-5 * scale


def test_file_round_trip(tmp_path, water):
    student, x, cell = water
    save_student(student.model, tmp_path / "s.safetensors", {"teacher": "none"})
    model, record = read_student(tmp_path / "s.safetensors")
    assert record == {"teacher": "none"} and model.config == student.model.config
    loaded = load_potential(
        f"student:{tmp_path / 's.safetensors'}", student.numbers, dtype="float64"
    )
    torch.testing.assert_close(loaded(x, cell).forces, student(x, cell).forces, rtol=0, atol=0)


def test_bad_files(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(UserError, match="neither a file nor a packaged student"):
        load_potential("student:nowhere.safetensors", WATER)
    path.write_bytes(b"not a student")
    with pytest.raises(UserError, match="cannot be read"):
        load_potential(f"student:{path}", WATER)
    header = {"format": 99, "config": StudentConfig(elements=("H",)).as_dict(), "record": {}}
    save_file({"a": torch.zeros(1)}, path, metadata={"mts_student": json.dumps(header)})
    with pytest.raises(UserError, match="format 99"):
        load_potential(f"student:{path}", WATER)


def test_other_elements(tmp_path):
    path = tmp_path / "s.safetensors"
    save_student(random_model(), path, {})
    with pytest.raises(UserError, match=r"element N .* knows only H, O"):
        load_potential(f"student:{path}", [7, 1, 1, 1])
