"""Beads are sent to a driver as whole batches, however long i-PI takes to queue them."""

import threading
import time

import pytest

pytest.importorskip("ipi")
from ipi.engine.forces import ForceComponent, Forces

from mts_driver.drivers.direct import _queue_beads_together, _wait_for_batches

SLOW_S = 0.002
"""Between two beads: far longer than the nap between two looks."""


class Server:
    """The parts of i-PI's socket server that batches go through."""

    batch_size = 8

    def __init__(self):
        self.requests, self.jobs, self.sent = [], [], []

    def poll(self):
        queued = [r for r in self.requests if r["status"] == "Queued"][: self.batch_size]
        if queued:
            self.sent.append(len(queued))
        for request in queued:
            request["status"] = "Done"


class Bead:
    def __init__(self, server):
        self.server = server

    def queue(self):
        time.sleep(SLOW_S)
        self.server.requests.append({"status": "Queued"})
        return True


class Component:
    weight = 1.0

    def __init__(self, server, nbeads):
        self.nbeads, self._forces = nbeads, [Bead(server) for _ in range(nbeads)]

    def queue(self):
        return ForceComponent.queue(self)


class Both:
    """A force on two contracted beads and one on all eight, by the same model."""

    def __init__(self, server):
        self.mforces = [Component(server, 2), Component(server, 8)]

    def queue(self):
        return Forces.queue(self)


@pytest.fixture
def server():
    server, end = Server(), threading.Event()
    _queue_beads_together()
    _wait_for_batches(server)

    def look():
        while not end.is_set():
            time.sleep(1e-4)
            server.poll()

    thread = threading.Thread(target=look)
    thread.start()
    yield server
    end.set()
    thread.join()


@pytest.mark.parametrize(
    ("forces", "sent"),
    [(lambda s: Component(s, 8), [8]), (lambda s: Component(s, 3), [3]), (Both, [8, 2])],
)
def test_beads_are_sent_together(server, forces, sent):
    for _ in range(5):
        server.requests.clear()
        server.sent.clear()
        forces(server).queue()
        while not all(request["status"] == "Done" for request in server.requests):
            time.sleep(SLOW_S)
        assert server.sent == sent
