"""How requests get from i-PI to a driver faster than by i-PI's own polling.

i-PI hands every request to a polling thread that looks for work every ``latency`` seconds, and
waits for it: two changes of thread and a nap, several times an outer step. With one bead there is
one request at a time, and the thread that waits can as well do the talking. With several beads the
polling thread must not run off with the first of them: a batch is sent when it is complete.
"""

import select
import time
from functools import partial
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

    alone = len(simulation.syslist) == 1 and simulation.syslist[0].beads.nbeads == 1
    for name, forcefield in simulation.fflist.items():
        whole = not forcefield.threaded and getattr(forcefield, "batch_size", 1) == 1
        if type(forcefield) is FFDirect and whole:  # evaluated where it is asked for
            forcefield._poll_loop = partial(_sleep_until_the_end, forcefield)
        if type(forcefield) is not FFSocket or not forcefield.socket.consolidate_messages:
            continue
        if alone:
            _patch(forcefield, known=name in ours)
        elif forcefield.socket.batch_size > 1:
            _wait_for_batches(forcefield.socket)


def _wait_for_batches(server: Any) -> None:
    """Send fewer structures than fit into a batch only if no more came since the last look."""
    native_poll, before = server.poll, 0

    def poll() -> None:
        nonlocal before
        waiting = sum(request["status"] == "Queued" for request in server.requests)
        if waiting < server.batch_size and waiting != before:
            before = waiting
            return
        before = 0
        native_poll()

    server.poll = poll


def _patch(forcefield: Any, *, known: bool) -> None:
    from ipi.utils.softexit import softexit

    native_queue, server = forcefield.queue, forcefield.socket

    def queue(*arguments: Any, **keywords: Any) -> Any:
        request = native_queue(*arguments, **keywords)
        _ask_the_only_client(server, request)
        # poll() returns without an answer while no driver has connected, or after one has died;
        # a soft exit, requested from another thread, ends the wait
        while request["status"] in ("Queued", "Running") and not softexit.triggered:
            server.poll()
        if known:
            for client in server.clients:
                client.get_status = partial(_is_ready, client)
        return request

    forcefield.queue = queue
    # the polling thread must not touch the sockets at the same time
    forcefield._poll_loop = partial(_sleep_until_the_end, forcefield)


def _sleep_until_the_end(forcefield: Any) -> None:
    """Replace a polling thread whose thousands of naps a second would take a tenth of a core."""
    while forcefield._doloop[0]:
        time.sleep(0.2)


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


def _is_ready(client: Any) -> int:
    """Know what i-PI would ask: once it has answered, our client is ready for the next structure.

    A client that has died is noticed where its answer is read.
    """
    from ipi.interfaces.sockets import Status

    client.status = Status.Up | Status.Ready
    return int(client.status)
