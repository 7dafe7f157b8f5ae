"""The messages that docs/pages/protocol.md describes, sent by the client that anyone can copy."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from test_zmq_clients import ATOMS, NET_S, address, energy_of, serving

from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.messages import Message

__all__ = ["address"]
FILE = Path(__file__).parents[2] / "inputs" / "python" / "zmq_client.py"


@pytest.fixture(scope="module")
def plain():
    """The client's module."""
    spec = importlib.util.spec_from_file_location("zmq_client", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_needs_numpy_and_pyzmq_alone():
    imports = [n for n in ast.parse(FILE.read_text()).body if isinstance(n, ast.Import)]
    assert {a.name for n in imports for a in n.names} == {"json", "sys", "numpy", "zmq"}
    assert len(FILE.read_text().splitlines()) <= 70


def test_it_gets_what_our_own_client_gets(plain, address):
    rng = np.random.default_rng(1)
    q, cells = rng.normal(size=(3, ATOMS, 3)), np.zeros((3, 3, 3))
    with serving(address):
        driver, ours = plain.Driver(address, timeout_s=NET_S), Client(address, timeout_s=NET_S)
        values, _ = driver.ask("hello")
        assert values == {"model": "well", "natoms": ATOMS, "version": plain.VERSION}
        for one in q:
            energy, forces, virial = driver.evaluate(one, cells[0])
            assert float(energy) == pytest.approx(energy_of(one), rel=1e-8)
            assert forces.shape == (ATOMS, 3) and virial.shape == (3, 3)
        _, several = driver.ask("evaluate", q=q, cell=cells)
        wanted = ours.ask(Message("evaluate", {}, {"q": q, "cell": cells})).arrays
        for name in ("energy", "forces", "virial"):
            np.testing.assert_array_equal(several[name], wanted[name])
        ours.close()


def test_it_has_steps_taken(plain, address):
    """With an array of another type, whose bytes are padded."""
    rng = np.random.default_rng(2)
    none = np.zeros(0)
    arrays = {
        "q": rng.normal(size=(1, ATOMS, 3)),
        "p": rng.normal(size=(1, ATOMS, 3)),
        "masses": np.full(ATOMS, 1822.9),
        "cell": np.zeros((3, 3)),
        "friction": np.full((1, ATOMS), 1e-4),
        "groups": np.ones((1, ATOMS), bool),
        "modes": none,
        "omega": none,
        "noise": rng.normal(size=(4, 1, ATOMS, 3)),
    }
    values = {"n": 4, "timestep": 40.0, "kT": 1e-3, "fixcom": False}
    with serving(address):
        driver, ours = plain.Driver(address, timeout_s=NET_S), Client(address, timeout_s=NET_S)
        _, taken = driver.ask("propagate", values, **arrays)
        wanted = ours.ask(Message("propagate", values, arrays)).arrays
        ours.close()
    assert abs(taken["q"] - arrays["q"]).max() > 1e-3
    for name, array in wanted.items():
        np.testing.assert_array_equal(taken[name], array)


@pytest.mark.parametrize(
    ("kind", "arrays", "message"),
    [
        ("nonsense", {}, "use hello, evaluate, propagate or run"),
        ("evaluate", {"q": np.zeros((2, 3)), "cell": np.zeros((3, 3))}, "has 5 atoms"),
        ("evaluate", {"q": np.zeros((ATOMS, 3))}, "lacks 'cell'"),
    ],
)
def test_it_hears_what_is_wrong_and_can_go_on(plain, address, kind, arrays, message):
    with serving(address):
        driver = plain.Driver(address, timeout_s=NET_S)
        with pytest.raises(RuntimeError, match=message):
            driver.ask(kind, **arrays)
        assert driver.ask("hello")[0]["natoms"] == ATOMS
