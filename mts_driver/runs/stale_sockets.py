"""Stale and busy sockets, and busy folders: settled before i-PI starts."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mts_driver.drivers.ipi_socket.transport import Address
from mts_driver.errors import UserError
from mts_driver.processes import somebody_listens


def free_address(address: Address) -> bool:
    """Remove the socket file of a dead server.

    Returns
    -------
    bool
        Whether a stale file was removed.

    Raises
    ------
    UserError
        If a live server uses the address.
    """
    if address.mode == "inet":
        _check_port(address)
        return False
    if not os.path.lexists(address.path):
        return False
    if somebody_listens(address.path):
        raise UserError(
            f"the socket {address.path} is in use by another run: wait for it or stop it, or give "
            "this input another <address>."
        )
    os.unlink(address.path)
    return True


def _check_port(address: Address) -> None:
    probe = socket.socket(socket.AF_INET)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((address.host, address.port))
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"is refused ({error})"
        raise UserError(
            f"port {address} {reason}: give the <ffsocket> another <port> or <address>."
        ) from error
    finally:
        probe.close()


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Have a folder for one run, whose files another would move aside or write to.

    Raises
    ------
    UserError
        If another run is there.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the folder {str(folder.resolve())!r} is in use by another `mts run`: wait for "
                "its end or stop it, or prepare a folder for this one."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
