"""The inner loop in a driver over ZeroMQ against i-PI's own steps, with the same noise."""

import threading

import numpy as np
import pytest
import zmq
from analytic import Analytic
from ipi.utils.depend import dstrip
from ipi_input import BAROSTAT, GLE, HELD, HERE, LANGEVIN, PILE, advance, forcefield
from zmq_serving import serving

from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.zmq import ipi_pes as zmq_pes
from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.server import Model, Server
from mts_driver.drivers.zmq.sockets import check_address
from mts_driver.errors import UserError

ATOMS = 6
WEIGHTS = (("teacher", "[1, 0]"), ("student", "[-1, 1]"))
RPC = (("teacher", "[1, 0]"), ("driver", "[-1, 0]"), ("driver", "[0, 1]"))
COVARIANCE = "[ 1e-3, 0, 0, 0, 1e-3, 0, 0, 0, 1e-3 ]"
FRICTION = "<hydrogen_friction units='inverseps'>200</hydrogen_friction>"


@pytest.fixture
def student(tmp_path):
    """A server of a quartic well, in a thread, with its address and counters."""
    stats = Stats("student:well")
    well = Analytic(lambda x: (4.4 * x**2 + 0.7 * x**4).sum((-2, -1)))  # eV and Å
    address = f"ipc://{tmp_path}/student"
    server = Server(Model("student:well", Evaluator(well, ATOMS, stats=stats)), address)
    with serving(server):
        yield address, stats


@pytest.fixture
def both(load, student):
    """The same input twice: with the inner loop in the driver, and in i-PI."""
    address, _ = student

    def load_both(**options):
        found = []
        for pes in (zmq_pes.__file__, HERE / "zmq_step_by_step.py"):
            extra = forcefield("driver", f"address: {address}", pes)
            weights = (("teacher", "[1, 0]"), ("driver", "[-1, 1]"))
            given = {"weights": weights, "verbosity": "low", **options}
            found.append(load(extra_ff=extra, **given))
        return found

    return load_both


CASES = {
    "nvt": {},
    "nve": {"mode": "nve", "dynamics": ""},
    "fixcom": {"fixcom": True},
    "hydrogen friction": {"dynamics": LANGEVIN + FRICTION, "fixcom": True},
    "two outer steps": {"nmts": "[2, 2]"},
    "coloured noise": {"dynamics": GLE, "fixcom": True},
    "constraints": {"dynamics": LANGEVIN + HELD, "fixcom": True, "timestep_fs": 1.0},
    "both": {"dynamics": GLE + HELD, "fixcom": True, "timestep_fs": 1.0},
    "constraints, nve": {"mode": "nve", "dynamics": HELD, "timestep_fs": 1.0},
    "beads": {"beads": 4, "dynamics": PILE},
    "three beads, nve": {"beads": 3, "mode": "nve", "dynamics": ""},
    "contraction": {"beads": 4, "dynamics": PILE, "weights": RPC, "nbeads": (2, 2, 4)},
    "beads, hydrogens": {"beads": 4, "dynamics": PILE + FRICTION, "fixcom": True},
}


@pytest.mark.parametrize("case", CASES)
def test_the_driver_takes_the_same_steps(both, student, case, capfd):
    options = {"timestep_fs": 2.0, "nmts": "[1, 4]", "teacher": "k: 0.10, q: 0.02", **CASES[case]}
    simulations = both(**options)
    said = capfd.readouterr().out
    assert said.count("inner steps are taken in the driver") == 1
    calls = []
    for simulation in simulations:
        before = student[1].calls
        advance(simulation, 25)
        calls.append(student[1].calls - before)
    ours, native = simulations
    inner = 4 * 25
    # all beads start at the same place, which i-PI asks for by itself
    beads = options.get("beads", 1)
    contracted = 2 * 25 + 1 if case == "contraction" else 0
    assert calls == [inner + 1 + (beads > 1) + contracted, beads * inner + 1 + contracted]
    for name in ("q", "p"):
        a, b = (np.array(dstrip(getattr(s.syslist[0].beads, name))) for s in simulations)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    a, b = (s.syslist[0].ensemble.econs for s in simulations)
    assert a == pytest.approx(b, rel=1e-10)
    ours, native = (s.syslist[0].motion.integrator.monitor for s in simulations)
    assert ours.ou_steps == native.ou_steps == (0 if "nve" in case else inner)
    for name, kelvin in native.temperatures_K.items():
        assert ours.temperatures_K[name] == pytest.approx(kelvin, rel=1e-9)


OBSTACLES = {
    "fewer beads": (
        {"beads": 4, "dynamics": PILE, "nbeads": (4, 2)},
        "the student is on fewer beads",
    ),
    "beads": ({"beads": 2, "dynamics": LANGEVIN}, "not 'pile_l'"),
    "thermostat": ({"dynamics": LANGEVIN.replace("langevin", "svr")}, "not 'langevin'"),
    "npt": ({"mode": "npt", "dynamics": LANGEVIN + BAROSTAT}, "the ensemble is npt"),
    "noise and friction": ({"dynamics": GLE + FRICTION}, "hydrogens have a friction beside"),
    "covariance": (
        {"dynamics": GLE.replace("</A>", f"</A><C shape='(3,3)'>{COVARIANCE}</C>")},
        "the coloured noise has a covariance of its own",
    ),
    "fixed": ({"fixatoms": "<fixatoms>[1]</fixatoms>"}, "fixed atoms"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_a_driver_cannot_do_stays_in_ipi(both, case, capfd):
    options, reason = OBSTACLES[case]
    simulation, _ = both(timestep_fs=1.0, **options)
    assert f"inner steps are taken in i-PI, since {reason}" in capfd.readouterr().out.replace(
        "there are ", ""
    ).replace("the thermostat is ", "")
    assert simulation.syslist[0].motion.integrator.handover is None
    advance(simulation, 3)


def test_wrong_requests_are_answered_with_what_is_wrong(student):
    client = Client(student[0])
    assert client.ask(Message("hello")).values["natoms"] == ATOMS
    with pytest.raises(UserError, match="asks for 'dance'"):
        client.ask(Message("dance"))
    with pytest.raises(UserError, match="lacks q, p, masses"):
        values = {"n": 2, "timestep": 1.0, "kT": 1e-3, "fixcom": True}
        client.ask(Message("propagate", values))
    with pytest.raises(UserError, match="--structure has 6"):
        client.ask(Message("evaluate", {}, {"q": np.zeros((5, 3)), "cell": np.eye(3)}))
    # and the server is still there
    found = client.ask(Message("evaluate", {}, {"q": np.zeros((6, 3)), "cell": 20 * np.eye(3)}))
    assert found.arrays["forces"].shape == (6, 3) and float(found.arrays["energy"]) == 0.0
    client.close()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([b"not JSON"], "no message of mts-driver"),
        ([b'{"version": 9, "kind": "hello"}'], "version 9, not 2"),
        (Message("a", {}, {"x": np.zeros(3)}).pack()[:1], "cut short"),
        (
            [*Message("a", {}, {"x": np.zeros(3)}).pack()[:1], b"12"],
            "announces 24 bytes of arrays and has",
        ),
    ],
)
def test_messages_that_cannot_be_read(frames, message):
    with pytest.raises(UserError, match=message):
        Message.unpack(frames)


def test_messages_survive_the_wire():
    arrays = {
        "x": np.arange(6.0).reshape(2, 3),
        "mask": np.array([True, False]),
        "e": np.array(2.5),
    }
    found = Message.unpack(Message("a", {"n": 3}, arrays).pack())
    assert (found.kind, found.values) == ("a", {"n": 3})
    for name, value in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value)
        assert found.arrays[name].shape == value.shape


def test_nobody_answers_and_nobody_outside_may_ask(tmp_path):
    with pytest.raises(UserError, match=r"has not answered for 0\.5 s"):
        Client(f"ipc://{tmp_path}/nobody", timeout_s=0.5).ask(Message("hello"))
    with pytest.raises(UserError, match="could be reached from other machines"):
        check_address("tcp://0.0.0.0:5555")
    for address in ("ipc://", "udp://x", "student", "tcp://127.0.0.1"):
        with pytest.raises(UserError, match="no address"):
            check_address(address)


def test_a_server_that_comes_back_is_asked_again(tmp_path):
    address = f"ipc://{tmp_path}/student"
    client, answers = Client(address, timeout_s=60.0), []
    asking = threading.Thread(target=lambda: answers.append(client.ask(Message("hello"))))
    # the first server takes the question and dies
    context = zmq.Context()
    first = context.socket(zmq.ROUTER)
    first.bind(address)
    asking.start()
    first.recv_multipart()
    first.close(linger=0)
    context.term()
    assert not answers
    well = Analytic(lambda x: x.square().sum((-2, -1)))
    second = Server(Model("student:second", Evaluator(well, 1, stats=Stats("w"))), address)
    with serving(second):
        asking.join(timeout=60)
        assert answers and answers[0].values["model"] == "student:second"
        client.close()
