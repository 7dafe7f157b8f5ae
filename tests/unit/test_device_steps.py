"""Steps on a device, run on the CPU: those of the compiled loop, whatever holds and heats them."""

import numpy as np
import pytest
import torch
from on_device import DEVICE, Counting, NoWaiting, few_waters

from integrators.constraints import Constraints
from integrators.device.fetched import StepLost
from integrators.gle import high_pass
from integrators.noise import CounterNoise
from integrators.outer_steps import OuterSteps
from mts_driver import simulate
from mts_driver.drivers.counters import Stats
from mts_driver.drivers.device_propagator import DevicePropagator
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.steps_on_ranks import propagator_of
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.simulation.simulate.timed_model import TimedModel, models_on_device
from mts_driver.structures import neighbor_matrix
from mts_driver.structures.held_bonds import distances, held_pairs
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.units import BOHR_A, BOLTZMANN_EV_K, EV_FS2_A2_PER_AMU

pytest.importorskip("nvalchemiops")

KT = BOLTZMANN_EV_K * 300.0
NOISE = high_pass(friction_per_ps=1.0, high_friction_per_ps=50.0, cutoff_per_cm=1500.0)


WATERS = few_waters()
NUMBERS = WATERS.numbers.tolist()
CELL = np.array(WATERS.cell)
HELD = distances(held_pairs(WATERS), {"O-H": 0.97})
MASSES = repartitioned_masses(WATERS, 4.0) * EV_FS2_A2_PER_AMU


def models(where):
    """Two students, since SO3LR takes a second a call here; or only the second on a device."""
    backends = ("cpu", "device") if where == "guest" else (where, where)
    return [
        load_potential(
            f"student:{name}?backend={backend}",
            NUMBERS,
            dtype="float64",
            device=DEVICE if backend == "device" else "cpu",
        )
        for name, backend in zip(("general", "water"), backends, strict=True)
    ]


def outer_steps(where, masses=MASSES, n=3, **options):
    teacher, student = (TimedModel(model, "a model") for model in models(where))
    white = 0.0 if "coloured" in options else 1e-3
    return OuterSteps(
        teacher,
        student,
        masses=masses,
        n=n,
        timestep=4.0,
        kT=KT,
        friction=np.full(len(masses), white),
        groups=np.array([WATERS.numbers == 1, WATERS.numbers != 1]),
        clip=options.pop("clip", 6.5),
        fixcom=options.pop("fixcom", bool(np.isfinite(masses).all())),
        on_device=models_on_device(teacher, student),
        **options,
    )


def start(masses=MASSES, held=None):
    """Positions and momenta, on the manifold of what is held."""
    x, rng = WATERS.positions.copy(), np.random.default_rng(1)
    v = np.sqrt(KT / masses)[:, None] * rng.normal(size=x.shape)
    if held is not None:
        made, m = Constraints.of(held, masses, x, CELL), torch.tensor(masses)
        x = made.onto(torch.tensor(x), m).numpy()
        v = made.tangent(torch.tensor(x), torch.tensor(v), m).numpy()
    return x, v * np.where(np.isfinite(masses), masses, 0.0)[:, None]


def walk(outer, steps, held=None, masses=MASSES, ahead=True):
    x, p = start(masses, held)
    extra = np.zeros((NOISE.extra, *x.shape)) if outer.coloured is not None else None
    heat, seen = 0.0, []
    for step in range(steps):
        noise, following = (outer.draw(CounterNoise(3), k) for k in (step, step + 1))
        following = following if ahead and step + 1 < steps else None
        taken = outer.take(x, p, CELL, noise, extra, following=following)
        x, p, extra = taken.positions, taken.momenta, taken.extra if extra is not None else None
        heat += taken.heat
        seen.append(taken.twice_kinetic)
    return x, p, np.array(heat), np.array(seen), taken.teacher[1], taken.student[2], taken.extra


HALF_HELD = np.where(np.arange(len(MASSES)) < 6, np.inf, MASSES)
KINDS = {
    "white": {},
    "coloured": {"coloured": NOISE},
    "held bonds": {"distances": HELD},
    "both": {"coloured": NOISE, "distances": HELD},
    "held atoms": {"masses": HALF_HELD},
    "clipped": {"clip": 0.05},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_outer_steps_are_those_of_the_compiled_loop(kind):
    options = dict(KINDS[kind])
    how = {"held": options.get("distances"), "masses": options.get("masses", MASSES)}
    ours, expected = (
        walk(outer_steps(where, **options), 100, **how) for where in ("device", "cpu")
    )
    for name, one, other in zip(
        ["x", "p", "heat", "seen", "forces", "virial", "extra"], ours, expected, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)
    # and they are steps: atoms have moved
    assert np.abs(ours[0] - WATERS.positions).max() > 0.3


def test_a_step_waits_once_at_its_end():
    outer = outer_steps("device", distances=HELD, coloured=NOISE)
    walk(outer, 2, HELD)
    pieces = outer._on_device._recorded()
    assert len(pieces) == 2  # the inner steps, and the teacher
    with NoWaiting():
        for piece in pieces:
            piece()


@pytest.mark.parametrize("kind", ["white", "both"])
def test_an_inner_step_takes_few_launches(kind, monkeypatch):
    """Each costs a GPU microseconds: four are the student's, one ends where forces are asked for,
    and three where momenta are added up, unless one block has all atoms."""
    counted = []
    for n in (2, 6):
        outer = outer_steps("device", n=n, **KINDS[kind])
        walk(outer, 1, KINDS[kind].get("distances"))
        with Counting(monkeypatch) as launches:
            outer._on_device._recorded()[0]()
        counted.append(launches.number)
    each = 5 if outer._on_device._walk._moves._block.alone else 8
    assert counted[1] - counted[0] == 4 * each


@pytest.mark.parametrize("kind", ["white", "both"])
def test_a_teacher_of_another_kind_is_asked_between_two_pieces(kind):
    options = dict(KINDS[kind])
    outer = outer_steps("guest", **options)
    ours = walk(outer, 10, options.get("distances"))
    expected = walk(outer_steps("cpu", **options), 10, options.get("distances"))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)
    pieces = outer._on_device._recorded()
    assert len(pieces) == 2
    for piece in pieces:
        with NoWaiting():
            piece()


def test_numbers_may_be_sent_or_drawn_there():
    outer, (x, p) = outer_steps("device"), start()
    drawn, sent = (one.draw(CounterNoise(3), 5) for one in (outer, outer_steps("cpu")))
    ends = [outer.take(x, p, CELL, noise).positions for noise in (drawn, sent, drawn)]
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ends[2], ends[0])


@pytest.mark.parametrize("kind", ["white", "both"])
def test_a_step_ahead_changes_no_bit(kind):
    """Neither where it is the step that is asked for then, nor where it is not."""
    options = dict(KINDS[kind])
    held = options.get("distances")
    expected = walk(outer_steps("device", **options), 4, held, ahead=False)
    outer = outer_steps("device", **options)
    for one, other in zip(walk(outer, 4, held), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    x, p = start(held=held)
    extra = np.zeros((NOISE.extra, *x.shape)) if outer.coloured is not None else None
    noise, other = (outer.draw(CounterNoise(3), k) for k in (0, 7))
    first = outer.take(x, p, CELL, noise, extra, following=other)
    launched = outer._on_device._launch
    outer._on_device._launch = None  # nothing is launched for what is on its way
    seventh = outer.take(first.positions, first.momenta, CELL, other, first.extra)
    outer._on_device._launch = launched
    for begin in (first, seventh):  # asked for from elsewhere, and with other numbers
        again = outer.take(x, p, CELL, noise, extra, following=other)
        np.testing.assert_array_equal(again.positions, first.positions)
        np.testing.assert_array_equal(again.momenta, first.momenta)
        given = begin.positions, begin.momenta, CELL, noise, begin.extra
        after, fresh = outer.take(*given), outer_steps("device", **options).take(*given)
        for one, expected in ((after.positions, fresh.positions), (after.heat, fresh.heat)):
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-12)


def test_numbers_may_follow_a_step_ahead_of_drawn_ones():
    outer, (x, p) = outer_steps("device"), start()
    drawn, sent = (one.draw(CounterNoise(3), 5) for one in (outer, outer_steps("cpu")))
    first = outer.take(x, p, CELL, drawn, following=drawn)
    ours = outer.take(first.positions, first.momenta, CELL, sent)
    fresh = outer_steps("device").take(first.positions, first.momenta, CELL, sent)
    np.testing.assert_allclose(ours.positions, fresh.positions, rtol=0, atol=1e-12)


@pytest.mark.parametrize("where", ["guest", "device"])
def test_a_launch_that_fails_leaves_nothing_for_the_next(where):
    """Atoms have moved by then."""
    outer, (x, p) = outer_steps(where), start()
    noise = outer.draw(CounterNoise(3), 0)
    first = outer.take(x, p, CELL, noise)
    given = first.positions, first.momenta, CELL, noise
    expected = outer_steps(where).take(*given)
    walk, taken = outer._on_device._walk, []

    def fails(*_):
        taken.append(1)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(walk, "ask" if where == "guest" else "rebuild", fails)
        if where == "device":  # behind the inner steps
            patch.setattr(walk, "rebuild", lambda due, first: None if first else fails())
        outer.take(*given)
    again = outer.take(*given)
    assert taken
    np.testing.assert_allclose(again.positions, expected.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(again.heat, expected.heat, rtol=0, atol=1e-10)


def test_held_atoms_stay_where_the_centre_is_stopped():
    options = {"fixcom": True, "masses": HALF_HELD}
    x, p = start(HALF_HELD)
    found = [
        outer.take(x, p, CELL, outer.draw(CounterNoise(3), 0))
        for outer in (outer_steps(where, **options) for where in ("device", "cpu"))
    ]
    np.testing.assert_array_equal(found[0].positions[:6], x[:6])
    np.testing.assert_allclose(found[0].positions, found[1].positions, atol=1e-9)


def test_lists_that_were_too_small_are_made_larger_and_the_step_taken_again():
    """With a thin skin atoms leave it within a step."""
    outer = outer_steps("device")
    near = [model.near for model in outer._on_device._walk.models.values()]
    for one in near:
        one.skin_A = 0.02
    x, *_ = walk(outer, 5)
    expected, *_ = walk(outer_steps("cpu"), 5)
    np.testing.assert_allclose(x, expected, atol=1e-9)
    assert all(one.skin_A > 0.02 and one.generation > 1 for one in near)


def test_lists_that_were_too_old_are_made_anew_and_reach_no_further(monkeypatch):
    """Here the device does not see it coming, so that a step ahead starts from what is wrong."""
    monkeypatch.setattr(neighbor_matrix, "MARGIN", -1e3)
    outer = outer_steps("device")
    near = [model.near for model in outer._on_device._walk.models.values()]
    for one in near:
        one.skin_A = 0.6
    tries, launch = [], outer._on_device._launch
    outer._on_device._launch = lambda due: (tries.append(1), launch(due))[1]
    x, *_ = walk(outer, 20)
    np.testing.assert_allclose(x, walk(outer_steps("cpu"), 20)[0], atol=1e-9)
    assert len(tries) > 22 and all(one.skin_A == 0.6 for one in near)


def test_models_may_have_other_users_between_steps():
    """In another cell, and for another number of replicas."""
    outer = outer_steps("device")
    x, p = start()
    noise = outer.draw(CounterNoise(3), 0)
    first = outer.take(x, p, CELL, noise)
    second = outer.take(first.positions, first.momenta, CELL, noise)
    for use in (
        lambda model: model(torch.tensor(1.03 * x), torch.tensor(1.03 * CELL)),
        lambda model: model(torch.tensor(np.stack([x, x])), torch.tensor(CELL)),
    ):
        for model in outer._on_device._walk.models.values():
            use(model)
        again = outer.take(first.positions, first.momenta, CELL, noise)
        np.testing.assert_allclose(again.positions, second.positions, atol=1e-10)
        np.testing.assert_allclose(again.teacher[1], second.teacher[1], atol=1e-10)
        outer._on_device._at = first.positions[None].copy()  # as if it were just there
        for model in outer._on_device._walk.models.values():
            use(model)
        again = outer.take(first.positions, first.momenta, CELL, noise)
        np.testing.assert_allclose(again.teacher[1], second.teacher[1], atol=1e-10)


def test_a_step_that_fails_leaves_nothing_for_the_next():
    outer = outer_steps("device", distances=HELD)
    x, p = start(held=HELD)
    noise = outer.draw(CounterNoise(3), 0)
    expected = outer.take(x, p, CELL, noise)
    for model in outer._on_device._walk.models.values():
        model.near.skin_A = 4.0
    with pytest.raises((StepLost, UserError)):
        outer.take(x, 300.0 * p, CELL, noise)
    again = outer.take(x, p, CELL, noise)
    np.testing.assert_allclose(again.positions, expected.positions, atol=1e-10)


def test_rows_that_are_too_short_get_longer_and_skins_stay():
    outer = outer_steps("device")
    x, p = start()
    noise = outer.draw(CounterNoise(3), 0)
    expected = outer.take(x, p, CELL, noise)
    models = outer._on_device._walk.models.values()
    skins = [model.near.skin_A for model in models]
    for _ in range(4):
        for model in models:
            near = model.near
            near.neighbors, near.images = near.neighbors[:, :4].clone(), near.images[:, :4].clone()
            near._columns, near.generation = near._columns[:4], near.generation + 1
            near._search(4)
            near._launches(len(x))
        outer._on_device._at = None
        again = outer.take(x, p, CELL, noise)
        np.testing.assert_allclose(again.positions, expected.positions, atol=1e-10)
    assert [model.near.skin_A for model in models] == skins


def test_numbers_that_are_not_finite_are_not_handed_on():
    outer = outer_steps("device")
    x, p = start()
    noise = outer.draw(CounterNoise(3), 0)
    outer.take(x, p, CELL, noise)
    teacher = outer._on_device._walk.models["teacher"]
    sound = teacher.evaluate
    teacher.evaluate = lambda *a: sound(*a)._replace(
        forces=torch.full_like(sound(*a).forces, torch.nan)
    )
    with pytest.raises(StepLost, match="the teacher returned numbers that are not finite"):
        outer.take(x, p, CELL, noise)


def test_atoms_that_fly_away_are_no_reason_for_lists_without_end():
    outer = outer_steps("device")
    x, p = start()
    with pytest.raises(UserError, match="more than 2 Å in one outer step"):
        outer.take(x, 300.0 * p, CELL, outer.draw(CounterNoise(3), 0))
    assert all(model.near.skin_A <= 4.0 for model in outer._on_device._walk.models.values())


def test_what_blows_up_says_so():
    outer = outer_steps("device", distances=HELD)
    x, p = start(held=HELD)
    with pytest.raises((StepLost, UserError)):
        outer.take(x, 300.0 * p, CELL, outer.draw(CounterNoise(3), 0))


def evaluators(where, periodic=True):
    return [
        Evaluator(model, len(NUMBERS), stats=Stats("a model"), periodic=periodic)
        for model in models(where)
    ]


def test_a_model_in_both_roles_is_one():
    """A GPU would make its lists for both at once."""
    both = [
        Evaluator(models("device")[0], len(NUMBERS), stats=Stats(role)) for role in ("fast", "slow")
    ]
    both[1].potential = both[0].potential
    propagator = DevicePropagator(*both)
    assert propagator._models["fast"] is propagator._models["teacher"]


def request(beads, **beside):
    rng, n = np.random.default_rng(2), len(NUMBERS)
    masses = MASSES / EV_FS2_A2_PER_AMU * 1822.888486
    modes = np.linalg.qr(rng.normal(size=(beads, beads)))[0] if beads > 1 else np.zeros(0)
    if beads > 1:  # of which the first is the centroid
        modes[0] = beads**-0.5
        modes = np.linalg.qr(modes.T)[0].T
        modes *= np.sign(modes[0, 0])
    x = start(held=HELD if "held" in beside else None)[0] / BOHR_A
    found = {
        "q": x + (0.02 * rng.normal(size=(beads, n, 3)) if beads > 1 else np.zeros((1, n, 3))),
        "p": np.zeros((beads, n, 3)),
        "masses": masses,
        "cell": CELL / BOHR_A,
        "friction": np.zeros(0) if "drift" in beside else np.full((beads, n), 5e-5),
        "groups": np.array([WATERS.numbers == 1, WATERS.numbers > 0]),
        "modes": modes,
        "omega": np.linspace(0.0, 0.01, beads) if beads > 1 else np.zeros(0),
    }
    return found | beside


BESIDE = {
    "one bead": (1, {}),
    "three beads": (3, {}),
    "coloured, held": (
        1,
        {
            "drift": np.array(NOISE.drift_matrix) * 0.02418884326,
            "extra": np.zeros((NOISE.extra, 1, len(NUMBERS), 3)),
            "held": HELD.pairs,
            "lengths": HELD.lengths / BOHR_A,
        },
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_driver_takes_whole_and_inner_steps(case):
    beads, beside = BESIDE[case]
    arrays = request(beads, **beside)
    how = {"timestep": 160.0, "kT": 9.5e-4 * beads, "fixcom": True}
    found = []
    for where in ("device", "guest", "cpu"):
        teacher, student = evaluators(where)
        propagator = propagator_of(student, teacher)
        assert isinstance(propagator, DevicePropagator) == (where != "cpu")
        outer = propagator.run(arrays, n=3, seeds=[1, 2, 3, 4], clip=0.1, **how)
        rows = len(beside.get("drift", ())) + bool("held" in beside)
        shape = (3, *((rows,) if "drift" in beside else ()), *arrays["q"].shape)
        noise = np.random.default_rng(3).normal(size=shape)
        inner = propagator.propagate(arrays | {"noise": noise}, n=3, **how)
        found.append((outer, inner))
        assert student.stats.structures >= 15 * beads and teacher.stats.structures >= 4 * beads
    *ours, expected = found
    for parts in ours:
        for one, other in zip(parts, expected, strict=True):
            assert one.keys() == other.keys()
            for name, array in one.items():
                np.testing.assert_allclose(array, other[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_an_isolated_molecule_in_a_driver():
    arrays = request(1)
    found = [
        propagator_of(student, teacher).run(
            arrays, n=2, seeds=[1], clip=0.0, timestep=80.0, kT=9.5e-4, fixcom=True
        )
        for teacher, student in (evaluators(where, periodic=False) for where in ("device", "cpu"))
    ]
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], rtol=1e-7, atol=1e-9, err_msg=name)
    assert not found[0]["virial"].any()


def test_simulate_goes_on_from_a_checkpoint_on_a_device(tmp_path):
    """The same as on the CPU, and the same whether it was stopped or not."""
    options = {
        "outer_fs": 4.0,
        "seed": 7,
        "progress": False,
        "stride": 2,
        "dtype": "float64",
        "constrain_hydrogens": True,
        "bond_lengths_A": {"O-H": 0.97},
        "inner_fs": 2.0,
    }

    def run(where, **more):
        names = (f"student:{name}?backend={where}" for name in ("general", "water"))
        teacher, student = names
        device = DEVICE if where == "device" else "cpu"
        made = {"teacher": teacher, "student": student, "device": device}
        return simulate(WATERS, **made, **options | more)

    whole = run("device", steps=8)
    run("device", steps=4, checkpoint=tmp_path / "c.npz")
    parts = run("device", steps=8, checkpoint=tmp_path / "c.npz")
    np.testing.assert_allclose(parts.atoms.positions, whole.atoms.positions, atol=1e-10)
    cpu = run("cpu", steps=8)
    np.testing.assert_allclose(whole.atoms.positions, cpu.atoms.positions, atol=1e-8)
    assert whole.temperatures_K == pytest.approx(cpu.temperatures_K, rel=1e-7)
    assert whole.timings.teacher_calls == 8 and whole.timings.student_calls == 16


def test_a_guest_gets_copies_and_is_not_asked_about_what_does_not_count():
    class Keeps:
        """Keeps what it gets, and returns an energy with its graph."""

        def __init__(self, model):
            self.model, self.seen = model, []

        def __call__(self, positions, cell):
            self.seen.append((positions, positions.clone()))
            found = self.model(positions, cell)
            return found._replace(energy=found.energy + 0.0 * torch.ones((), requires_grad=True))

    outer = outer_steps("guest")
    guest = outer._on_device._walk.models["teacher"]
    guest._potential = keeps = Keeps(guest._potential)
    near = outer._on_device._walk.models["fast"].near
    near.skin_A = 0.02
    x, *_ = walk(outer, 3)
    expected, *_ = walk(outer_steps("cpu"), 3)
    np.testing.assert_allclose(x, expected, atol=1e-9)
    assert near.skin_A > 0.02  # steps were taken again, for which it was not asked
    assert all(torch.equal(kept, was) for kept, was in keeps.seen)
    assert len(keeps.seen) == 4  # at the start, and at the ends of three steps


def test_lists_of_cells_are_searched_where_they_are_due(monkeypatch):
    """The device says so at the end of a step, and the host spares itself the others."""
    monkeypatch.setitem(neighbor_matrix.MOST_BY_ALL_PAIRS, torch.device(DEVICE).type, 10)
    searched, search = [], neighbor_matrix.NeighborMatrix._of_cells

    def counted(near):
        searched.append(near)
        return search(near)

    monkeypatch.setattr(neighbor_matrix.NeighborMatrix, "_of_cells", counted)
    outer = outer_steps("device")
    lists = [model.near for model in outer._on_device._walk.models.values()]
    x, *_ = walk(outer, 30)
    assert not any(one.recordable for one in lists)
    np.testing.assert_allclose(x, walk(outer_steps("cpu"), 30)[0], atol=1e-9)
    # some for room at the start, and then fewer than steps, but more than once
    assert 4 < len(searched) < 2 * 20
