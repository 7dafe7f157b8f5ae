"""Several workers behind one ZeroMQ address: real processes, and what happens when they die."""

import contextlib
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from running import LONG_S, kill, mts, start, toy_water, wait_for

from mts_driver.cli.serve_zmq import Options, serve_zmq
from mts_driver.drivers.counters import Stats, read_stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.messages import Message
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.structures.files import write_start
from mts_driver.units import BOHR_A

MODEL = "student:water"
INNER = 2


class Served:
    """``mts serve`` and what it has said so far."""

    def __init__(self, folder, *options):
        self.folder, self.address = folder, f"ipc://{folder}/driver"
        self.stats = folder / "stats.json"
        arguments = ["--structure", folder / "start.extxyz", "--zmq", self.address]
        arguments += ["--threads", 1, "--stats", self.stats, *options]
        self.process, self.lines = start("serve", MODEL, *arguments), []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(lambda: "listening" in self.said or self.process.poll() is not None)

    def _read(self):
        self.lines += self.process.stdout

    @property
    def said(self):
        return "".join(self.lines)

    @property
    def workers(self):
        """Process ids by name."""
        found = re.findall(r"(worker \d+) is process (\d+)", self.said)
        return {name: int(process) for name, process in found}

    @property
    def counted(self):
        return read_stats(self.stats)["structures"]

    def wait(self):
        code = self.process.wait(LONG_S)
        self._reader.join(LONG_S)
        self.process.stdout.close()
        return code

    def kill(self):
        for worker in self.workers.values():  # one that stands still would hold the pipe open
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if self.process.poll() is None:
            kill(self.process.pid)
            self.wait()


@pytest.fixture
def serve(water):
    """Start servers in the folder of the water; none is left at the end."""
    started = []
    yield lambda *options: started.append(Served(water[2], *options)) or started[-1]
    for one in started:
        one.kill()


@pytest.fixture
def water(tmp_path):
    """81 atoms, their evaluator, and their folder."""
    atoms = toy_water(3)
    write_start(tmp_path / "start.extxyz", atoms, atoms.get_masses())
    torch.set_num_threads(1)
    potential = load_potential(MODEL, atoms.numbers.tolist())
    return atoms, Evaluator(potential, len(atoms), stats=Stats("here")), tmp_path


def structure(atoms, seed):
    """Positions, Bohr, unlike those of another seed."""
    moved = atoms.positions + np.random.default_rng(seed).normal(0, 0.05, atoms.positions.shape)
    return moved / BOHR_A


def ask(client, atoms, q):
    arrays = {"q": q, "cell": atoms.cell.array / BOHR_A}
    return client.ask(Message("evaluate", {}, arrays)).arrays["forces"]


def propagate(client, atoms, q):
    """Two steps from rest without a thermostat; the positions that they lead to."""
    n = len(atoms)
    arrays = {"q": q[None], "p": np.zeros((1, n, 3)), "masses": atoms.get_masses() * 1822.9}
    arrays |= {"cell": atoms.cell.array / BOHR_A, "groups": np.ones((1, n), bool)}
    arrays |= {name: np.zeros(0) for name in ("noise", "friction", "modes", "omega")}
    values = {"n": INNER, "timestep": 40.0, "kT": 0.0, "fixcom": False}
    return client.ask(Message("propagate", values, arrays)).arrays["q"][0]


def check_answers(served, atoms, here):
    """Four replicas, each with structures of its own, at the same time."""
    cell = atoms.cell.array[None] / BOHR_A

    def run(seed):
        client = Client(served.address, timeout_s=LONG_S)
        for k in range(5):
            q = structure(atoms, 10 * seed + k)
            forces = ask(client, atoms, q)
            with lock:  # one evaluator for all threads
                expected = here(q[None], cell)[1][0]
            np.testing.assert_allclose(forces, expected, atol=2e-6)
        client.close()

    lock = threading.Lock()
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(run, seed) for seed in range(4)]:
            future.result(LONG_S)


def check_remembered(served, atoms, clients):
    """A client comes back to the worker that knows its forces."""
    ends = [structure(atoms, seed) for seed in range(len(clients))]
    before = served.counted
    for _ in range(3):
        ends = [propagate(c, atoms, q) for c, q in zip(clients, ends, strict=True)]
    assert served.counted - before == len(clients) * (3 * INNER + 1)


def open_a_question(pool, client, atoms, seed):
    return pool.submit(ask, client, atoms, structure(atoms, seed))


def test_workers_share_the_work_and_survive_each_other(water, serve):
    atoms, here, _ = water
    served = serve("--workers", 2)
    assert len(served.workers) == 2, served.said
    check_answers(served, atoms, here)
    assert served.counted == 4 * 5
    clients = [Client(served.address, timeout_s=LONG_S) for _ in range(2)]
    check_remembered(served, atoms, clients)

    # one worker stands still with a question, which the other then answers; clients that have
    # gone are still counted, so that it takes some to have one at each worker
    first, second = served.workers.values()
    clients += [Client(served.address, timeout_s=LONG_S) for _ in range(4)]
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        questions = [open_a_question(pool, c, atoms, 50 + k) for k, c in enumerate(clients)]
        wait_for(lambda: any(one.done() for one in questions))
        time.sleep(0.5)
        assert not all(one.done() for one in questions)
        kill(first)
        for k, one in enumerate(questions):
            cell = atoms.cell.array[None] / BOHR_A
            expected = here(structure(atoms, 50 + k)[None], cell)[1][0]
            np.testing.assert_allclose(one.result(LONG_S), expected, atol=2e-6)
    says = rf"worker 0 \(process {first}\) was killed by signal 9 .*; \d open requests, 1 worker"
    wait_for(lambda: re.search(says, served.said), what=says)
    before = served.counted
    ask(clients[0], atoms, structure(atoms, 60))
    assert served.counted == before + 1

    # the last one: the server ends, and another takes its place
    os.kill(second, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        question = open_a_question(pool, clients[1], atoms, 70)
        kill(second)
        assert served.wait() == 2
        assert "no worker is left: the last one, worker 1, was killed by signal 9" in served.said
        assert not question.done()
        another = serve()
        assert question.result(LONG_S).shape == (len(atoms), 3)
    another.process.terminate()
    assert another.wait() == 143
    for client in clients:
        client.close()


def test_a_worker_that_cannot_start_ends_the_server(water):
    arguments = ("--structure", water[2] / "start.extxyz", "--zmq", f"ipc://{water[2]}/driver")
    done = mts("serve", "student:none", *arguments, "--workers", 2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "student 'none'" in done.stderr and "before it was ready" in done.stderr


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("one worker a device", {"device": "cuda:0,cuda:1", "workers": 1}),
        ("no address", {"address": "tcp://127.0.0.1:abc"}),
        ("cannot listen", {"address": "ipc:///no/such/folder/x", "workers": 2}),
        ("--keys DIR", {"address": "tcp://0.0.0.0:5555"}),
    ],
)
def test_options_that_do_not_fit_are_refused_before_a_model_is_loaded(words, changes):
    shared = {"spec": MODEL, "structure": Path("start.extxyz"), "dtype": "float32", "keys": None}
    shared |= {"device": "cpu", "threads": 1, "workers": 1, "queue": 64, "batch": 16}
    options = Options(**{**shared, "address": "ipc://x", "batch_wait_ms": 0.5, **changes})

    def load(device, threads):
        raise AssertionError("a model was loaded")

    with pytest.raises(UserError, match=words):
        serve_zmq(options, load, Stats(MODEL), Console(quiet=True))
