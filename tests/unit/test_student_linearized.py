"""The student's forces to first order: fused kernels against torch and against differences."""

import copy

import numba
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from integrators.linearized import linearized
from mts_driver.errors import UserError
from mts_driver.potentials.student.file import find_student, load_student, read_student
from mts_driver.potentials.student.linearized import names_of, reference_pull
from mts_driver.potentials.student.model import StudentConfig, StudentModel
from mts_driver.potentials.student.potential import Student
from mts_driver.potentials.student.trainable import TrainableStudent

SIDE_A = 6.2
"""Of the box: atoms see several images of others, and of themselves."""


def waters(seed=0):
    """Eight molecules, some of their bonds torn or squeezed, so that the repulsion matters."""
    rng = np.random.default_rng(seed)
    box = Atoms(cell=[SIDE_A] * 3, pbc=True)
    for corner in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.translate(np.array(corner) * SIDE_A / 2 - one.positions[0])
        box += one
    box.positions += rng.normal(0, 0.08, box.positions.shape)
    return box


BOX = waters()
X, CELL = torch.tensor(BOX.positions), torch.tensor(np.array(BOX.cell))
ALONG = torch.randn(24, 3, generator=torch.manual_seed(1)).double()


def trainable(dtype="float32", model=None):
    model = read_student(find_student("water"))[0] if model is None else model
    return TrainableStudent(model, BOX.numbers, dtype=dtype)


def trained(student):
    return [p for p in student.model.parameters() if p.requires_grad]


def by_torch(student, x, along):
    """The pull of the reference model in float64, by positions and by all trained weights."""
    exact = TrainableStudent(copy.deepcopy(student.model), BOX.numbers, dtype="float64")
    exact._update_neighbors(x.numpy()[None], CELL.numpy()[None])
    weights = trained(exact)
    pull = reference_pull(
        exact.model, exact._graph(x.numpy()), len(x), weights, names_of(exact.model, weights)
    )
    return pull(along)


def assert_near(found, exact, relative, name=""):
    error = float((found.double() - exact).norm() / exact.norm())
    assert error < relative, (name, error)


@pytest.fixture(scope="module")
def water():
    return trainable()


def test_single_precision_equals_torch(water):
    """As far as tables go: their second derivatives are those of cubics."""
    weights = trained(water)
    evaluation, pull = linearized(water, X, CELL, weights)
    for one, other in zip(evaluation, water(X, CELL), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    found, by_weights = pull(ALONG)
    exact, exact_by_weights = by_torch(water, X, ALONG)
    assert found.dtype == torch.float64
    assert_near(found, exact, 2e-4)
    names = names_of(water.model, weights)
    assert set(names) == {"radial", "radial2", "w1", "b1", "wq", "w2", "b2", "w3"}
    for name, p, one, other in zip(names, weights, by_weights, exact_by_weights, strict=True):
        assert one.shape == p.shape and one.dtype == p.dtype, name
        assert_near(one, other, 3e-5, name)


def test_the_hessian_is_symmetric(water):
    other = torch.randn(24, 3, generator=torch.manual_seed(2)).double()
    one, two = (water.linearized(X, CELL, ()).pull(u)[0] for u in (ALONG, other))
    assert float((one * other).sum()) == pytest.approx(float((two * ALONG).sum()), rel=1e-5)
    assert float(one.sum(0).abs().max()) < 1e-4 * float(one.abs().max())


def test_only_what_is_asked_for(water):
    """In the order of the parameters, None for those of another model."""
    everything = dict(zip(names_of(water.model, trained(water)), trained(water), strict=True))
    _, by_all = water.linearized(X, CELL, trained(water)).pull(ALONG)
    by_name = dict(zip(everything, by_all, strict=True))
    for names in ((), ("radial2",), ("w3", "wq"), ("w2", "radial", "b1")):
        other = torch.zeros(2, requires_grad=True)
        parameters = (other, *(everything[name] for name in names))
        _, (nothing, *found) = water.linearized(X, CELL, parameters).pull(ALONG)
        assert nothing is None
        for name, one in zip(names, found, strict=True):
            torch.testing.assert_close(one, by_name[name], rtol=0, atol=0)


def test_a_pull_belongs_to_its_positions(water):
    """Whatever is evaluated before it is called, and however many threads there are."""
    parameters = trained(water)
    first = water.linearized(X, CELL, parameters).pull(ALONG)
    numba.set_num_threads(2)
    try:
        again = water.linearized(X, CELL, parameters)
        second = water.linearized(X + 0.05 * ALONG, CELL, parameters)
        water(torch.stack((X, X)), CELL)
        assert float((second.pull(ALONG)[0] - first[0]).abs().max()) > 0.1
        repeated = again.pull(ALONG)
    finally:
        numba.set_num_threads(1)
    for one, other in zip((first[0], *first[1]), (repeated[0], *repeated[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_replicas(water):
    """Each has its own Hessian; the gradient by weights is that of their sum."""
    x = torch.stack((X, X + 0.02 * ALONG.flip(0)))
    along = torch.stack((ALONG, ALONG.flip(1)))
    evaluation, pull = water.linearized(x, CELL, trained(water))
    torch.testing.assert_close(evaluation.forces, water(x, CELL).forces, rtol=0, atol=0)
    found, by_weights = pull(along)
    alone = [water.linearized(*a, trained(water)) for a in zip(x, (CELL, CELL), strict=True)]
    one, other = (each.pull(u) for each, u in zip(alone, along, strict=True))
    torch.testing.assert_close(found, torch.stack((one[0], other[0])), rtol=1e-5, atol=1e-3)
    for whole, *parts in zip(by_weights, one[1], other[1], strict=True):
        assert_near(whole, sum(parts).double(), 1e-5)


def test_a_step_of_an_optimiser_is_seen():
    student = trainable()
    parameters = trained(student)
    before = student.linearized(X, CELL, parameters)
    _, by_weights = before.pull(ALONG)
    for p, g in zip(parameters, by_weights, strict=True):
        p.grad = 1e-4 * g / g.abs().max()
    torch.optim.SGD(parameters, lr=1.0).step()
    after, fresh = student(X, CELL), Student(copy.deepcopy(student.model), BOX.numbers)(X, CELL)
    torch.testing.assert_close(after.forces, fresh.forces, rtol=0, atol=0)
    work = [float((forces * ALONG).sum()) for forces in (before.evaluation.forces, after.forces)]
    predicted = -sum(float((p.grad * g).sum()) for p, g in zip(parameters, by_weights, strict=True))
    assert work[1] - work[0] == pytest.approx(predicted, rel=0.02)
    found, _ = student.linearized(X, CELL, ()).pull(ALONG)
    assert_near(found, by_torch(student, X, ALONG)[0], 2e-4)
    parameters[0].data *= 0.5
    student.refresh()
    halved = Student(copy.deepcopy(student.model), BOX.numbers)(X, CELL)
    torch.testing.assert_close(student(X, CELL).forces, halved.forces, rtol=0, atol=0)


def test_what_has_no_gradient(water):
    frozen = load_student("water", BOX.numbers)
    assert frozen.linearized(X, CELL, ()).pull(ALONG)[1] == ()
    with pytest.raises(UserError, match=r"w1 .* frozen.*TrainableStudent"):
        frozen.linearized(X, CELL, [frozen.model.w1])
    with pytest.raises(UserError, match="none of its weights"):
        TrainableStudent(frozen.model, BOX.numbers)
    with pytest.raises(UserError, match="scale2"):
        water.linearized(X, CELL, [water.model.scale2])
    with pytest.raises(UserError, match=r"\(23, 3\)"):
        water.linearized(X, CELL, ()).pull(ALONG[1:])


def random_model(**options):
    torch.manual_seed(3)
    chosen = {"channels": 8, "messages": 6, "hidden": 16, **options}
    model = StudentModel(StudentConfig(elements=("H", "C", "O"), **chosen))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name[0] in "bs":
                p.normal_()
        model.w3 *= 10
    return model.double()


def by_differences(student, x, along, h=1e-6):
    ahead, behind = (student(x + s * along, CELL).forces for s in (h, -h))
    return (ahead - behind) / (2 * h)


@pytest.mark.parametrize("messages", [0, 6], ids=["local", "message pass"])
@pytest.mark.slow
def test_double_precision_equals_differences(messages):
    """Of the fused forces to 1e-7; of an element that no atom has, and of bounded inputs."""
    student = trainable("float64", random_model(messages=messages))
    evaluation, pull = student.linearized(X, CELL, trained(student))
    torch.testing.assert_close(evaluation.forces, student(X, CELL).forces, rtol=0, atol=0)
    found, by_weights = pull(ALONG)
    assert_near(found, by_differences(student, X, ALONG), 1e-7)
    exact, exact_by_weights = by_torch(student, X, ALONG)
    assert_near(found, exact, 2e-4)
    for p, name, one, other in zip(
        *(trained(student), names_of(student.model, trained(student))),
        *(by_weights, exact_by_weights),
        strict=True,
    ):
        assert_near(one, other, 1e-4, name)
        with torch.no_grad():
            unit, h = torch.randn_like(p), 1e-6
            p += h * unit
            ahead = float((student(X, CELL).forces * ALONG).sum())
            p -= 2 * h * unit
            behind = float((student(X, CELL).forces * ALONG).sum())
            p += h * unit
        assert (ahead - behind) / (2 * h) == pytest.approx(float((one * unit).sum()), rel=1e-6)


@pytest.mark.slow
def test_water_in_double_precision():
    student = trainable("float64")
    found, by_weights = student.linearized(X, CELL, trained(student)).pull(ALONG)
    assert_near(found, by_differences(student, X, ALONG), 1e-7)
    exact, exact_by_weights = by_torch(student, X, ALONG)
    assert_near(found, exact, 2e-4)
    for one, other in zip(by_weights, exact_by_weights, strict=True):
        assert_near(one, other, 1e-5)


def test_direct_students_by_torch():
    """Their Jacobian is not symmetric: its transpose is meant."""
    student = trainable("float64", random_model(direct=True))
    evaluation, pull = student.linearized(X, CELL, (student.model.w3,))
    found, (by_weight,) = pull(ALONG)
    other = torch.randn(24, 3, generator=torch.manual_seed(2)).double()
    assert float((found * other).sum()) == pytest.approx(
        float((by_differences(student, X, other, 1e-5) * ALONG).sum()), rel=1e-4
    )
    # forces are linear in the last layer
    assert float((by_weight * student.model.w3.detach()).sum()) == pytest.approx(
        float((evaluation.forces * ALONG).sum()), rel=1e-4
    )
