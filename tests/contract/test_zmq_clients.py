"""Several clients of one ZeroMQ server: batches, bounds, clients that misbehave, keys."""

import os
import shutil
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from analytic import Analytic
from running import mts, wait_for

from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.zmq.batching import Rhythm
from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.ipi_pes import ZmqPES
from mts_driver.drivers.zmq.keys import check_keys, make_keys
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.server import Limits, Model, Server
from mts_driver.drivers.zmq.sockets import CONNECTION_QUEUE, check_address, new_socket
from mts_driver.errors import UserError

ATOMS = 5
HELLO = Message("hello")


NET_S = 120
"""What hangs ends after this; nothing depends on how long it takes."""


class Slow(Analytic):
    """A quartic well that takes a while, as models do, or until its gate is opened."""

    def __init__(self, seconds=0.003):
        super().__init__(lambda x: (0.7 * x**2 + 0.1 * x**4).sum((-2, -1)))
        self.seconds, self.gate = seconds, threading.Event()
        self.gate.set()

    def __call__(self, positions, cell):
        self.gate.wait(NET_S)
        time.sleep(self.seconds)
        return super().__call__(positions, cell)


class Ended(Exception):
    """Raised in the server's thread, as the signal is in a process."""


@contextmanager
def serving(address, *, model=None, limits=None, keys=None):
    """A server in a thread; yields it and its counters."""
    stats, end = Stats("well"), threading.Event()
    server = Server(
        Model("well", Evaluator(model or Slow(), ATOMS, stats=stats)),
        address,
        keys=keys,
        limits=limits,
    )

    def check():
        if end.is_set():
            raise Ended

    def serve():
        with pytest.raises(Ended):
            server.serve(after_call=check)
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server, stats
    finally:
        end.set()
        thread.join(NET_S)
        assert not thread.is_alive()


@pytest.fixture
def address(tmp_path):
    return f"ipc://{tmp_path}/driver"


def energy_of(q):
    """By hand, Hartree of positions in Bohr."""
    x = q * 0.529177210903
    return float((0.7 * x**2 + 0.1 * x**4).sum()) / 27.211386245988


def run_client(address, seed, questions):
    """Ask for a walk of one's own and compare every answer."""
    client, rng = Client(address, timeout_s=NET_S), np.random.default_rng(seed)
    q = rng.normal(size=(ATOMS, 3))
    for _ in range(questions):
        q = q + 0.1 * rng.normal(size=q.shape)
        found = client.ask(Message("evaluate", {}, {"q": q, "cell": np.zeros((3, 3))})).arrays
        assert float(found["energy"]) == pytest.approx(energy_of(q), rel=1e-8)
        assert found["forces"].shape == (ATOMS, 3)
    client.close()


def test_replicas_share_batches_and_get_their_own_answers(address):
    # a second is far more than it takes to come back, beside other work as well
    with (
        serving(address, limits=Limits(batch_wait_ms=1000.0)) as (_, stats),
        ThreadPoolExecutor() as pool,
    ):
        for future in [pool.submit(run_client, address, seed, 30) for seed in range(4)]:
            future.result(NET_S)
        assert stats.structures == 4 * 30
        assert stats.calls < 0.5 * stats.structures


def test_an_answer_can_be_taken_later(address):
    """Also behind that to another question, and behind one that failed."""
    model = Slow(0.0)
    with serving(address, model=model):
        client, rng = Client(address, timeout_s=NET_S), np.random.default_rng(0)
        client.ask(HELLO)
        first, second = rng.normal(size=(2, ATOMS, 3))
        model.gate.clear()  # begin() returns all the same
        question = client.begin(Message("evaluate", {}, {"q": first, "cell": np.zeros((3, 3))}))
        model.gate.set()
        found = client.ask(Message("evaluate", {}, {"q": second, "cell": np.zeros((3, 3))}))
        assert float(found.arrays["energy"]) == pytest.approx(energy_of(second), rel=1e-8)
        for _ in range(2):
            energy = float(client.finish(question).arrays["energy"])
            assert energy == pytest.approx(energy_of(first), rel=1e-8)
        wrong = client.begin(Message("nonsense"))
        client.ask(HELLO)
        with pytest.raises(UserError, match="nonsense"):
            client.finish(wrong)
        client.close()


def test_batches_can_be_turned_off(address):
    limits = Limits(batch=1)
    with serving(address, limits=limits) as (_, stats), ThreadPoolExecutor() as pool:
        for future in [pool.submit(run_client, address, seed, 5) for seed in range(3)]:
            future.result(NET_S)
        assert stats.structures == stats.calls == 3 * 5


def test_one_client_alone_never_waits(address, monkeypatch):
    waited, native = [], Rhythm.missed

    def missed(self, here, start_s, now_s):
        waited.append(now_s > start_s)  # the time is only read again after a wait
        native(self, here, start_s, now_s)

    monkeypatch.setattr(Rhythm, "missed", missed)
    with serving(address, model=Slow(0.0), limits=Limits(batch_wait_ms=500.0)):
        run_client(address, 1, 20)
        assert waited == 20 * [False]
        # after another one has left it is missed once, not again and again
        run_client(address, 2, 1)
        run_client(address, 1, 15)
        # each waits once for the one before it, which has gone, unless it comes too late for that
        assert len(waited) == 36 and sum(waited) <= 2


def test_a_client_that_floods_is_stopped_and_the_others_are_not(address):
    held = []

    class Watched(Slow):
        def __call__(self, positions, cell):
            held.append(len(server._waiting))
            return super().__call__(positions, cell)

    model = Watched(0.0)
    frames = Message("evaluate", {}, {"q": np.zeros((1000, 3)), "cell": np.eye(3)}).pack()
    with serving(address, model=model, limits=Limits(queue=4, batch=2)) as (server, _):
        model.gate.clear()
        context = zmq.Context()
        flood = context.socket(zmq.DEALER)
        flood.setsockopt(zmq.SNDHWM, 1)
        flood.setsockopt(zmq.LINGER, 0)
        flood.connect(address)
        busy = threading.Thread(target=run_client, args=(address, 1, 1))
        busy.start()
        wait_for(lambda: held)  # the server reads nothing until the model is done
        flood.send_multipart([b"", *frames])  # never reads an answer
        sent, refused = 1, 0
        while refused < 100:
            try:
                flood.send_multipart([b"", *frames], zmq.NOBLOCK)
                sent, refused = sent + 1, 0
            except zmq.Again:
                refused += 1
                time.sleep(0.001)
        # 24 kB each: what the connection holds, and the kernel
        assert sent <= 4 * CONNECTION_QUEUE
        model.gate.set()
        busy.join(NET_S)
        run_client(address, 3, 5)
        flood.close()
        context.term()
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(run_client, address, seed, 5) for seed in range(8)]:
                future.result(NET_S)
    assert max(held) <= 4


def test_clients_that_vanish_or_talk_nonsense_do_not_stop_the_server(address):
    with serving(address, model=Slow(0.05)):
        context = zmq.Context()
        question = Message("evaluate", {}, {"q": np.zeros((ATOMS, 3)), "cell": np.zeros((3, 3))})
        for frames in (
            question.pack(),
            [b""],
            [b"\xff\xfe", b""],
            [b"{}", b"", b""],
            Message("propagate", {"n": "x"}, {}).pack(),
        ):
            for kind, first in ((zmq.REQ, []), (zmq.DEALER, [b""]), (zmq.DEALER, [])):
                one = context.socket(kind)
                one.connect(address)
                one.send_multipart([*first, *frames])
                time.sleep(0.005)
                one.close(linger=0)
        context.term()
        run_client(address, 1, 3)


def test_a_server_that_talks_nonsense_between_questions_is_asked_anew(address):
    """ZeroMQ gives it up for good then, and would have a client wait for ever to send.

    An answer that comes together with the nonsense may be lost with the connection; it is then
    asked for again at once.
    """
    server, numbers = new_socket(zmq.Context.instance(), zmq.ROUTER), (1.0, 2.0, 3.0)
    server.rcvtimeo = 1000 * NET_S
    server.bind(address)
    asked: list[float] = []

    def serve():
        while numbers[-1] not in asked:
            *envelope, header, data = server.recv_multipart()
            arrays = Message.unpack([header, data]).arrays
            asked.append(float(arrays["q"]))
            server.send_multipart([*envelope, *Message("evaluated", {}, arrays).pack()])
            if asked.count(asked[-1]) == 1 and asked[-1] != numbers[-1]:
                server.send_multipart([envelope[0], b"nonsense"])

    client = Client(address, timeout_s=NET_S)
    with ThreadPoolExecutor() as pool:
        served = pool.submit(serve)
        try:
            for number in numbers:
                question = Message("evaluate", {}, {"q": np.array(number)})
                assert float(client.ask(question).arrays["q"]) == number
                if number != numbers[-1] and asked.count(number) == 1:
                    # the disconnection: the next question comes after it
                    assert client._monitor.poll(1000 * NET_S)
            served.result(NET_S)
        finally:
            client.close()
    server.close(linger=0)
    assert sorted(set(asked)) == list(numbers)


def test_keys_say_who_may_ask(tmp_path):
    keys, stranger = tmp_path / "keys", tmp_path / "stranger"
    make_keys(stranger, "client")
    done = mts("keys", keys)
    assert done.returncode == 0 and "client.key_secret (secret)" in done.stdout
    make_keys(keys, "second")
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in keys.glob("*.key_secret"))
    assert sorted(f.name for f in keys.rglob("*.key")) == ["client.key", "second.key", "server.key"]
    with pytest.raises(UserError, match="has keys of that name"):
        make_keys(keys, "client")
    with socket_of_a_free_port() as port:
        listen, ask = f"tcp://0.0.0.0:{port}", f"tcp://127.0.0.1:{port}"
    with pytest.raises(UserError, match=r"--keys DIR"):
        check_address(listen)
    with serving(listen, keys=keys):
        for name in ("client", "second"):
            known = Client(ask, keys=keys / f"{name}.key_secret", timeout_s=NET_S)
            assert known.ask(HELLO).values["natoms"] == ATOMS
            known.close()
        pes = ZmqPES(address=ask, model="well", keys=str(keys / "client.key_secret"))
        q = np.ones((ATOMS, 3))
        assert pes.compute_structure(np.zeros((3, 3)), q)[0] == pytest.approx(energy_of(q))
        with pytest.raises(UserError, match="name the file, such as"):
            Client(ask, keys=keys).ask(HELLO)
        with pytest.raises(UserError, match=r"has not answered.*server has keys"):
            Client(ask, timeout_s=0.5).ask(HELLO)
        with pytest.raises(UserError, match=r"has not answered.*server\.key"):
            Client(ask, keys=stranger, timeout_s=0.5).ask(HELLO)
        # it knows the server, but the server does not know it
        shutil.copy(keys / "server.key", stranger)
        with pytest.raises(UserError, match="does not know the key"):
            Client(ask, keys=stranger, timeout_s=NET_S).ask(HELLO)


@contextmanager
def socket_of_a_free_port():
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


@pytest.mark.parametrize("cut", ["server.key", "server.key_secret"])
def test_keys_whose_writing_was_cut_off_are_made_again(tmp_path, monkeypatch, cut):
    keys, rename = tmp_path / "keys", os.replace

    def interrupted(source, target):
        if Path(target).name == cut:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_keys(keys, "client")
    assert not [f for f in keys.rglob("*") if f.is_file() and not f.stat().st_size]
    make_keys(keys, "client")
    assert all(check_keys(keys))


def test_keys_are_checked_before_a_model_is_loaded(tmp_path):
    done = mts(
        *("serve", "student:none", "--structure", tmp_path / "none.xyz"),
        *("--zmq", "tcp://127.0.0.1:45999", "--keys", tmp_path),
    )
    assert done.returncode == 2 and "cannot read the key" in done.stderr


def test_keys_that_cannot_be_used(tmp_path):
    keys = tmp_path / "keys"
    make_keys(keys, "client")
    evaluate = Evaluator(Slow(), ATOMS, stats=Stats("w"))

    def refused(message):
        with pytest.raises(UserError, match=message):
            Server(Model("w", evaluate), "tcp://127.0.0.1:45999", keys=keys)

    (keys / "server.key_secret").chmod(0o644)
    refused("chmod 600")
    (keys / "server.key_secret").chmod(0o600)
    (keys / "clients" / "client.key").unlink()
    refused("no public key of a client")
    (keys / "server.key_secret").unlink()
    refused("cannot read the key")
    with pytest.raises(UserError, match="permissions of the socket's file"):
        check_address("ipc:///tmp/x", keys=keys)
    (keys / "client.key_secret").unlink()
    client = Client("tcp://127.0.0.1:45999", keys=keys)
    for _ in range(2):  # the first one leaves no connection half made
        with pytest.raises(UserError, match="one client's secret key"):
            client.ask(HELLO)
    for name in ("server", "a/b", ""):
        with pytest.raises(UserError, match="give a name of letters"):
            make_keys(tmp_path / "other", name)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:abc", "no address"),
        ("tcp://127.0.0.1:99999", "no address"),
        ("tcp://[::1", "no address"),
        ("tcp://*:5555", "other machines"),
        ("tcp://[2001:db8::1]:5555", "other machines"),
    ],
)
def test_addresses_that_are_refused(address, words):
    with pytest.raises(UserError, match=words):
        check_address(address)


def test_the_loopback_of_ipv6():
    with socket_of_a_free_port() as port:
        address = f"tcp://[::1]:{port}"
    try:
        with serving(address):
            run_client(address, 1, 2)
    except UserError as error:
        if "cannot listen" in str(error):
            pytest.skip("no IPv6 on this machine")
        raise
