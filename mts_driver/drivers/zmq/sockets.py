"""Addresses and sockets of ZeroMQ: who may listen where, and what every connection is set to."""

from pathlib import Path
from urllib.parse import urlparse

import zmq

from mts_driver.drivers.zmq.messages import LARGEST
from mts_driver.errors import UserError

HEARTBEAT_MS = 5000
"""A peer that has not answered a ping for so long is gone."""
CONNECTION_QUEUE = 16
"""Messages that ZeroMQ holds for one connection and direction.

A client has one question open. One that floods the server is stopped by its own full connection,
and one that never reads loses answers: neither takes memory or time from the others.
"""
READY = b"ready"
"""All that a worker says to its front before it answers."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ALLOWED = "write ipc:///PATH, tcp://127.0.0.1:PORT, or, with --keys, tcp://HOST:PORT"


def check_address(address: str, *, keys: Path | None = None) -> None:
    """Refuse what ZeroMQ cannot use, and without keys what others could reach.

    Raises
    ------
    UserError
        If the address is neither ``ipc://PATH`` nor ``tcp://HOST:PORT``, the latter of this machine
        or with keys.
    """
    try:
        found = urlparse(address)
        complete = found.scheme == "tcp" and found.hostname and found.port
    except ValueError as error:
        raise UserError(f"--zmq {address!r} is no address ({error}): {_ALLOWED}.") from None
    if found.scheme == "ipc" and (path := address.removeprefix("ipc://")):
        if len(path) > 100:
            raise UserError(f"--zmq {address}: sockets have at most 100 characters; shorten it.")
        if keys is not None:
            raise UserError(
                f"--zmq {address} with --keys {keys}: keys are for tcp:// addresses; the "
                "permissions of the socket's file protect this one. Leave them out."
            )
        return
    if not complete:
        raise UserError(f"--zmq {address!r} is no address: {_ALLOWED}.")
    if keys is None and found.hostname not in _LOOPBACK:
        raise UserError(
            f"--zmq {address} could be reached from other machines, which anybody could then use: "
            "make keys with `mts keys DIR` and give --keys DIR, or bind to tcp://127.0.0.1:PORT "
            "and reach it from there with `ssh -L PORT:localhost:PORT`."
        )


def new_socket(
    context: "zmq.Context[zmq.Socket[bytes]]", kind: int, *, inside: bool = False
) -> "zmq.Socket[bytes]":
    """Return a socket with heart-beats, bounded queues and bounded messages.

    Parameters
    ----------
    kind : int
        ``zmq.ROUTER``, ``zmq.REQ`` or ``zmq.DEALER``.
    inside : bool
        Between a front and its workers, where nothing may be lost: the front bounds what is under
        way, and watches the processes.
    """
    socket = context.socket(kind)
    # what is still to be sent at the end gets a second; a question that is given up gets none
    socket.setsockopt(zmq.LINGER, 0 if kind == zmq.REQ else 1000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0 if inside else HEARTBEAT_MS)
    socket.setsockopt(zmq.SNDHWM, 0 if inside else CONNECTION_QUEUE)
    socket.setsockopt(zmq.RCVHWM, 0 if inside else CONNECTION_QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
    socket.setsockopt(zmq.IPV6, 1)
    if kind == zmq.REQ:  # an answer to anything but the last question is dropped
        socket.setsockopt(zmq.REQ_CORRELATE, 1)
    return socket


def bind(socket: "zmq.Socket[bytes]", address: str) -> None:
    """Listen at an address.

    Raises
    ------
    UserError
        If that is not possible; the socket is closed then.
    """
    try:
        socket.bind(address)
    except (zmq.ZMQError, ValueError) as error:
        socket.close()
        raise UserError(f"cannot listen at --zmq {address} ({error}): choose another.") from None


def try_to_listen(address: str) -> None:
    """Listen at an address for a moment.

    Raises
    ------
    UserError
        If that is not possible.
    """
    with zmq.Context() as context, new_socket(context, zmq.REP) as socket:
        bind(socket, address)


def connect(socket: "zmq.Socket[bytes]", address: str) -> None:
    """Connect to an address, where somebody may listen later.

    Raises
    ------
    UserError
        If nobody ever can.
    """
    try:
        socket.connect(address)
    except (zmq.ZMQError, ValueError) as error:
        raise UserError(f"cannot connect to {address} ({error}): {_ALLOWED}.") from None
