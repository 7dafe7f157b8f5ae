"""How requests get from i-PI to a driver faster than by i-PI's own polling.

i-PI hands every request to a polling thread that looks for work every ``latency`` seconds, and
waits for it: two changes of thread and a nap, several times an outer step. With one bead there is
one request at a time, and the thread that waits can as well do the talking. With several beads the
polling thread must not run off with the first of them: a batch is sent when it is complete.
"""

import select
from typing import Any


def ask_directly(simulation: Any, ours: set[str]) -> None:
    """Let each ``<ffsocket>`` evaluate a request as soon as it is made, or a batch as a whole.

    The first only for runs with one system of one bead: beads and replicas are queued together, so
    that several drivers, or a batch, can work on them at the same time.

    Parameters
    ----------
    simulation : ipi.engine.simulation.Simulation
        Not bound yet.
    ours : set of str
        Force fields that are served by `mts_driver.drivers.ipi_socket.client`.
    """
    from ipi.engine.forcefields import FFDirect, FFSocket

    from integrators.ipi.replacements import poll_only, stop_polling

    alone = len(simulation.syslist) == 1 and simulation.syslist[0].beads.nbeads == 1
    for name, forcefield in simulation.fflist.items():
        whole = not forcefield.threaded and getattr(forcefield, "batch_size", 1) == 1
        if type(forcefield) is FFDirect and whole:  # evaluated where it is asked for
            stop_polling(forcefield)
        if type(forcefield) is not FFSocket or not forcefield.socket.consolidate_messages:
            continue
        if alone:
            _answer_at_once(forcefield, known=name in ours)
        elif forcefield.socket.batch_size > 1:
            poll_only(forcefield.socket, _Batches(forcefield.socket).are_due)


class _Batches:
    """Send fewer structures than fit into a batch only if no more came since the last look."""

    def __init__(self, server: Any) -> None:
        self._server, self._before = server, 0

    def are_due(self) -> bool:
        waiting = sum(request["status"] == "Queued" for request in self._server.requests)
        due = waiting >= self._server.batch_size or waiting == self._before
        self._before = 0 if due else waiting
        return due


def _answer_at_once(forcefield: Any, *, known: bool) -> None:
    from ipi.utils.softexit import softexit

    from integrators.ipi.replacements import answer_in_queue, take_for_ready

    server = forcefield.socket

    def answer(request: Any) -> None:
        _ask_the_only_client(server, request)
        # poll() returns without an answer while no driver has connected, or after one has died;
        # a soft exit, requested from another thread, ends the wait
        while request["status"] in ("Queued", "Running") and not softexit.triggered:
            server.poll()
        if known:
            for client in server.clients:
                take_for_ready(client)

    answer_in_queue(forcefield, answer)


def _ask_the_only_client(server: Any, request: Any) -> None:
    """Send, wait, receive; whatever else there is to do is left to i-PI's own loop."""
    from ipi.interfaces.sockets import Status

    if len(server.clients) != 1 or server.jobs or server.batch_size > 1:
        return
    (client,) = server.clients
    if client.status != Status.Up | Status.Ready:
        return
    request["offset"], request["status"] = server.offset, "Running"
    try:
        alive = client.dispatch_send(request)
        if alive and not select.select([client], [], [], server.timeout or None)[0]:
            # a request that takes too long is i-PI's to give up
            server.jobs.append([request, client, None])
            return
        alive = alive and client.dispatch_recv(request)
    except ConnectionError:  # i-PI only knows its own Disconnected
        alive = False
    if not alive:
        server._requeue_disconnected(request, client)
