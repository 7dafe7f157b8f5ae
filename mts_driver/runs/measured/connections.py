"""Drivers that somebody else starts: who comes, and that i-PI waits where nobody is left.

i-PI waits for a driver for ever, and says so in its log only.
"""

import threading
from collections.abc import Callable, Container
from typing import Any

_LOOK_S = 0.2


def watch_connections(
    simulation: Any, started: Container[str], send: Callable[[dict[str, Any]], None]
) -> None:
    """Report, from now on, the drivers that connect and leave, as events ``drivers``.

    Parameters
    ----------
    simulation : ipi.engine.simulation.Simulation
        Its sockets are open.
    started : container of str
        Force fields whose drivers ``mts run`` starts, and watches itself.
    send : callable
        Takes an event: ``name`` of the force field, ``hosts`` that are connected, ``at`` where i-PI
        listens.
    """
    servers = {
        name: forcefield.socket
        for name, forcefield in simulation.fflist.items()
        if name not in started and hasattr(forcefield, "socket")
    }
    if servers:
        threading.Thread(
            target=_watch, args=(servers, send), name="connections", daemon=True
        ).start()


def _watch(servers: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    from ipi.utils.softexit import softexit

    before: dict[str, list[str]] = {name: [] for name in servers}
    ended = threading.Event()
    while not ended.wait(_LOOK_S):
        now = {name: sorted(map(_host, server.clients)) for name, server in servers.items()}
        if softexit.triggered:  # i-PI itself sends them away
            return
        for name, hosts in now.items():
            if hosts != before[name]:
                send({"event": "drivers", "name": name, "hosts": hosts, "at": _at(servers[name])})
        before = now


def _host(client: Any) -> str:
    peer = client.peername
    return str(peer[0]) if isinstance(peer, tuple) else "this machine"


def _at(server: Any) -> str:
    return f"{server.address}:{server.port}" if server.mode == "inet" else str(server.address)


def in_words(event: dict[str, Any]) -> str:
    """Say who is there, or what to do where nobody is left."""
    hosts: list[str] = event["hosts"]
    if hosts:
        counted = [
            f"{hosts.count(one)} on {one}" if hosts.count(one) > 1 else one
            for one in dict.fromkeys(hosts)
        ]
        what = "driver" if len(hosts) == 1 else f"{len(hosts)} drivers"
        return f"{event['name']}: {what} connected ({', '.join(counted)})"
    return (
        f"{event['name']}: no driver is left, and i-PI waits for one at {event['at']}: start it "
        "again, or stop the run (Ctrl-C, SIGTERM), which writes RESTART"
    )
