"""What the ZeroMQ driver is made of, without sockets: messages, answers, waiting, addresses."""

import json
from pathlib import Path

import numpy as np
import pytest
from analytic import Analytic

from mts_driver.cli.serve_zmq import Options, share_out
from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.zmq.batching import PAUSE, Rhythm
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.requests import Answers, Model, Request
from mts_driver.errors import UserError

ATOMS = 4


def well(x):
    """A quartic well; everything beyond 50 Å is a failure of the model."""
    energy = (0.7 * x**2 + 0.1 * x**4).sum((-2, -1))
    return energy.where(energy < 1e6, float("nan"))


@pytest.fixture
def answers():
    stats = Stats("well")
    made = Answers(Model("well", Evaluator(Analytic(well), ATOMS, stats=stats)))
    return made, stats


def structure(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ATOMS, 3))


def request(who: bytes, q: np.ndarray, cell: np.ndarray | None = None) -> Request:
    cell = np.zeros((*q.shape[:-2], 3, 3)) if cell is None else cell
    return Request(who, Message("evaluate", {}, {"q": q, "cell": cell}))


def alone(q: np.ndarray) -> Message:
    one = Answers(Model("well", Evaluator(Analytic(well), ATOMS, stats=Stats("well"))))
    return one.to([request(b"alone", q)])[0]


def same(a: Message, b: Message) -> None:
    assert a.kind == b.kind == "evaluated"
    for name in ("energy", "forces", "virial"):
        np.testing.assert_allclose(a.arrays[name], b.arrays[name], rtol=1e-12)
        assert a.arrays[name].shape == b.arrays[name].shape


def test_a_batch_gives_everybody_the_own_answer_in_one_call(answers):
    made, stats = answers
    # names in another order than the requests, and one client with several structures
    asked = [request(who, structure(k)) for k, who in enumerate((b"c", b"a", b"d"))]
    asked.insert(1, request(b"b", np.stack([structure(7), structure(8)])))
    found = made.to(asked)
    assert (stats.calls, stats.structures) == (1, 5)
    for k, place in enumerate((0, 2, 3)):
        same(found[place], alone(structure(k)))
    for k in range(2):
        assert float(found[1].arrays["energy"][k]) == float(
            alone(structure(7 + k)).arrays["energy"]
        )
    assert found[1].arrays["forces"].shape == (2, ATOMS, 3)


def test_equal_positions_in_unequal_cells_are_two_structures():
    sizes = []

    class Cells(Analytic):
        def __call__(self, positions, cell):
            sizes.append(len(cell))
            found = super().__call__(positions, cell)
            return found._replace(energy=cell.sum((-2, -1)))

    made = Answers(Model("w", Evaluator(Cells(well), ATOMS, stats=Stats("w"))))
    q = structure(1)
    found = made.to([request(b"%d" % k, q, k * 9.0 * np.eye(3)) for k in (1, 2)])
    energies = [float(one.arrays["energy"]) for one in found]
    assert sizes == [2] and energies[1] == pytest.approx(2 * energies[0])


def test_one_bad_structure_fails_alone(answers):
    made, _ = answers
    far = structure(3) + 1e3
    shapes = request(b"d", np.zeros((ATOMS + 1, 3)))
    found = made.to([request(b"a", structure(1)), request(b"b", far), request(b"c", far), shapes])
    same(found[0], alone(structure(1)))
    for one, words in zip(found[1:], ("not finite", "not finite", "4 atoms"), strict=True):
        assert one.kind == "error" and words in one.values["text"]


def test_every_client_is_remembered_by_itself(answers):
    made, stats = answers
    for _ in range(2):
        made.to([request(b"a", structure(1)), request(b"b", structure(2))])
    assert stats.structures == 2
    values = {"n": 2, "timestep": 1.0, "kT": 1e-3, "fixcom": False}
    arrays = {"p": structure(5)[None], "masses": np.full(ATOMS, 1e3), "cell": np.zeros((3, 3))}
    arrays |= {"friction": np.zeros(0), "noise": np.zeros(0), "groups": np.ones((1, ATOMS), bool)}
    arrays |= {"modes": np.zeros(0), "omega": np.zeros(0)}
    ends = {}
    for who, k in ((b"a", 1), (b"b", 2)):  # both begin with forces that are known
        asked = Message("propagate", values, {"q": structure(k)[None], **arrays})
        ends[who] = made.to([Request(who, asked)])[0].arrays["q"]
    assert stats.structures == 2 + 2 * 2
    made.to([request(who, ends[who]) for who in ends])
    assert stats.structures == 2 + 2 * 2
    for change, words in (
        ({"q": np.ones((1, ATOMS, 3), bool)}, "q of type bool"),
        ({"groups": np.ones((1, ATOMS))}, "groups of type float64"),
    ):
        bad = Message("propagate", values, {"q": structure(1)[None], **arrays, **change})
        assert words in made.to([Request(b"a", bad)])[0].values["text"]
    assert "lacks a value: 'n'" in made.to([Request(b"a", Message("propagate"))])[0].values["text"]


def test_arrays_begin_at_multiples_of_eight_bytes():
    arrays = {"mask": np.ones(3, bool), "x": np.arange(3.0), "none": np.zeros((0, 3)), "y": -1.0}
    arrays = {name: np.asarray(a) for name, a in arrays.items()}
    frames = Message("a", {}, arrays).pack()
    assert len(frames) == 2 and len(frames[1]) == 8 + 24 + 0 + 8
    found = Message.unpack(frames).arrays
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.aligned
    transposed = np.arange(6.0).reshape(2, 3).T
    found = Message.unpack(Message("a", {}, {"x": transposed}).pack())
    np.testing.assert_array_equal(found.arrays["x"], transposed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrays": 5}, "lacks"),
        ({"arrays": [["x", "<f8"]]}, "lacks"),
        ({"bytes": None}, "lacks"),
        ({"values": 3}, "lacks"),
        ({"bytes": 48}, "announces 48 bytes"),
        ({"arrays": [["x", "<f8", [4]]]}, "should have 32 bytes, and 24 are left"),
        ({"arrays": [["x", "<f8", [2]]]}, "8 bytes too many"),
        ({"arrays": [["x", "<f8", [2**30, 2**30]]]}, "should have"),
        ({"arrays": [["x", "<f8", [-3]]]}, "not readable"),
        ({"arrays": [["x", "|O8", [3]]]}, "not readable"),
        ({"arrays": [["x", ["<f8"], [3]]]}, "not readable"),
    ],
)
def test_headers_that_do_not_fit(change, words):
    header, data = Message("a", {}, {"x": np.zeros(3)}).pack()
    header = json.dumps({**json.loads(header), **change}).encode()
    with pytest.raises(UserError, match=words):
        Message.unpack([header, data])


def test_who_comes_back_soon_is_waited_for_and_who_does_not_is_not():
    rhythm = Rhythm(1.0)
    assert rhythm.until([b"a"], 5.0) == 5.0
    rhythm.answered(b"a", 10.0)
    assert rhythm.until([b"a"], 10.1) == 10.1  # alone
    assert rhythm.until([b"b"], 10.1) == 11.0
    assert rhythm.until([b"b"], 11.5) == 11.5  # it will not come any more
    rhythm.missed([b"b"], 11.2, 11.5)  # nobody waited for it
    assert rhythm.until([b"b"], 10.1) == 11.0
    rhythm.missed([b"b"], 10.1, 11.0)
    for k in range(PAUSE):
        assert rhythm.until([b"b"], 10.1 + k) == 10.1 + k
        rhythm.answered(b"a", 11.0 + k)
    assert rhythm.until([b"b"], 10.1 + PAUSE) == 11.0 + PAUSE
    silent = Rhythm(0.0)
    silent.answered(b"a", 1.0)
    assert silent.until([b"b"], 1.0) == 1.0


@pytest.mark.parametrize(
    ("device", "workers", "threads", "expected"),
    [
        ("cpu", 0, 4, [("cpu", 4)]),
        ("cpu", 3, 4, [("cpu", 1)] * 3),
        ("cuda:0,cuda:1", 0, 8, [("cuda:0", 4), ("cuda:1", 4)]),
        ("cuda:0, cuda:1", 3, 2, [("cuda:0", 1), ("cuda:1", 1), ("cuda:0", 1)]),
    ],
)
def test_devices_and_threads_are_shared_out(device, workers, threads, expected):
    assert share_out(options(device, workers, threads)) == expected


def options(device: str, workers: int, threads: int) -> Options:
    rest = ("ipc:///x", None, "student:water", Path("x"), device, "float32")
    return Options(*rest, threads, workers, 64, 16, 0.5)


def test_fewer_workers_than_devices():
    for device, workers in (("cuda:0,cuda:1", 1), ("cuda:0,", 0)):
        with pytest.raises(UserError, match="at least one worker a device"):
            share_out(options(device, workers, 4))


def two(teacher="ase:a", student="ase:b"):
    """Answers with two wells that are told apart by their energies."""
    models = [
        Model(spec, Evaluator(Analytic(lambda x, k=k: k * well(x)), ATOMS, stats=Stats(spec)))
        for k, spec in ((2.0, teacher), (1.0, student))
    ]
    return Answers(*models)


@pytest.mark.parametrize(
    ("teacher", "student", "asked", "factor"),
    [
        ("ase:a", "ase:b", "ase:a", 2.0),
        ("ase:a", "ase:b", "ase:b", 1.0),
        ("so3lr", "student:/a/file", "student:water", 1.0),
        ("so3lr", "student:/a/file", "so3lr", 2.0),
    ],
)
def test_everybody_gets_the_model_that_is_asked_for(teacher, student, asked, factor):
    q = structure(1)
    arrays = {"q": q, "cell": np.zeros((3, 3))}
    made = two(teacher, student)
    found = made.to([Request(b"a", Message("evaluate", {"model": asked}, arrays))])[0]
    assert float(found.arrays["energy"]) == pytest.approx(factor * float(alone(q).arrays["energy"]))
    for unclear in ("", "ase:other"):
        wrong = made.to([Request(b"a", Message("evaluate", {"model": unclear}, arrays))])[0]
        if teacher == "ase:a":
            assert "name one of them" in wrong.values["text"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"q": np.zeros(())}, "give (P, N, 3)"),
        ({"q": np.zeros((0, ATOMS, 3)), "p": np.zeros((0, ATOMS, 3))}, "give (P, N, 3)"),
        ({"seeds": []}, "0 seeds"),
        ({"n": 10**9}, "give 1 to 10000"),
    ],
)
def test_wrong_requests_for_whole_steps_are_answered(change, words):
    values = {"n": 2, "timestep": 1.0, "kT": 1e-3, "fixcom": False, "seeds": [1], "clip": 0.0}
    arrays = {"q": structure(1)[None], "p": structure(2)[None], "masses": np.full(ATOMS, 1e3)}
    arrays |= {"cell": np.zeros((3, 3)), "groups": np.ones((1, ATOMS), bool)}
    arrays |= {name: np.zeros(0) for name in ("friction", "modes", "omega")}
    made = two()
    assert made.to([Request(b"a", Message("run", values, arrays))])[0].kind == "run"
    given = ({**values, **change}, arrays) if set(change) <= set(values) else None
    given = given or (values, {**arrays, **change})
    assert words in made.to([Request(b"a", Message("run", *given))])[0].values["text"]
