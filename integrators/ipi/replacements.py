"""Every place where something of i-PI's is replaced; nothing elsewhere assigns to i-PI's names.

i-PI has no entry points for what is replaced here. Each function says what i-PI does by itself and
what comes in its place, and refuses an i-PI whose function of that name takes other parameters: one
that was called otherwise would be replaced by something that is never, or wrongly, called.
``tests/contract/test_ipi_replacements.py`` has a test of each, run with every supported version.
"""

from __future__ import annotations

import ctypes
import inspect
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ipi
import ipi.inputs.motion.dynamics as dynamics_input
import ipi.inputs.motion.motion as motion_input
import ipi.utils.inputvalue as input_values
from ipi.engine.outputs import CheckpointOutput
from ipi.engine.properties import Properties
from ipi.interfaces.sockets import DriverSocket, Status
from ipi.utils.softexit import softexit
from ipi.utils.units import UnitMap

_NAP_S = 0.2


def native(owner: Any, name: str, *parameters: str) -> Callable[..., Any]:
    """Return a function of i-PI's that is about to be replaced.

    Raises
    ------
    RuntimeError
        If this i-PI has none of that name, or one of other parameters.
    """
    function = getattr(owner, name, None)
    found = tuple(inspect.signature(function).parameters) if callable(function) else None
    if function is None or found != parameters:
        where = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", type(owner))
        has = "has none" if found is None else f"has one of ({', '.join(found)})"
        raise RuntimeError(
            f"{name}({', '.join(parameters)}) of i-PI's {where} is to be replaced, and i-PI "
            f"{ipi.__version__} {has}: install a version that is supported."
        )
    return function


def offer_splitting(name: str, dynamics: type, dynamics_tag: type) -> None:
    """Let ``<dynamics splitting=NAME>`` be understood; harmless if repeated.

    i-PI builds and stores dynamics through one name, and requires the type to be exactly it: both
    classes are to run i-PI's own code for its own splittings.
    """
    # in place: inputs that are already parsed, but not yet checked, see the option as well
    options = dynamics_input.InputDynamics.attribs["splitting"][1]["options"]
    if name not in options:
        options.append(name)
    motion_input.Dynamics = dynamics
    for tag in (motion_input.InputMotionBase, motion_input.InputMotion):
        tag.fields["dynamics"] = (dynamics_tag, tag.fields["dynamics"][1])


def offer_unit(dimension: str, name: str, in_atomic_units: float) -> None:
    """Let ``units=NAME`` be understood."""
    UnitMap[dimension][name] = in_atomic_units


def count_held_degrees(lost_degrees: Callable[[Any], Any]) -> None:
    """Have the property ``temperature`` know of distances that are held; once.

    i-PI divides by 3N and gives degrees of freedom that are fixed the target temperature; those
    that a bond of fixed length takes would be missing, and two thirds of 300 K be printed.

    Parameters
    ----------
    lost_degrees : callable
        Takes the motion of a system; returns what each atom has lost, (N,), or None.
    """
    by_ipi = native(Properties, "get_temp", "self", "atom", "bead", "nm")
    if hasattr(by_ipi, "replaced"):
        return

    def temperature(self: Any, atom: str = "", bead: str = "", nm: str = "") -> Any:
        found, lost = by_ipi(self, atom, bead, nm), lost_degrees(self.motion)
        if lost is None:
            return found
        if atom == "":
            of_them = lost
        elif atom.lstrip("-").isdigit():
            of_them = lost[[int(atom)]]
        else:
            of_them = lost[[name == atom for name in self.beads.names]]
        return found + self.ensemble.temp * float(of_them.sum()) / (3.0 * len(of_them))

    temperature.replaced = True  # type: ignore[attr-defined]
    Properties.get_temp = temperature


def stop_polling(forcefield: Any) -> None:
    """Have the polling thread of a force field do nothing but wait for its end.

    i-PI's looks for requests every ``latency`` seconds, which takes a tenth of a core, and must
    not touch the sockets where another thread does.
    """
    native(forcefield, "_poll_loop")

    def sleep_until_the_end() -> None:
        while forcefield._doloop[0]:
            time.sleep(_NAP_S)

    forcefield._poll_loop = sleep_until_the_end


def answer_in_queue(forcefield: Any, answer: Callable[[dict[str, Any]], None]) -> None:
    """Have requests answered by the thread that makes them, where i-PI only puts them in a list.

    Parameters
    ----------
    forcefield : ipi.engine.forcefields.FFSocket
        Its polling thread is stopped.
    answer : callable
        Takes the request that i-PI has just put into the list.
    """
    queue = native(forcefield, "queue", "atoms", "cell", "reqid", "template")

    def queue_and_answer(*arguments: Any, **keywords: Any) -> Any:
        request = queue(*arguments, **keywords)
        answer(request)
        return request

    forcefield.queue = queue_and_answer
    stop_polling(forcefield)


def poll_only(server: Any, when: Callable[[], bool]) -> None:
    """Have requests sent only ``when`` it is time; i-PI's sends whatever has come so far.

    Parameters
    ----------
    server : ipi.interfaces.sockets.InterfaceSocket
        Its polling goes on, and asks ``when`` each time.
    when : callable
        Returns whether to send now.
    """
    poll = native(server, "poll")

    def poll_if_due() -> None:
        if when():
            poll()

    server.poll = poll_if_due


def take_for_ready(client: Any) -> None:
    """Spare a client the question whether it is ready, which i-PI asks before each request.

    For clients that are ready as soon as they have answered; one that has died is noticed where
    its answer is read.
    """
    if "get_status" not in vars(client):
        native(client, "get_status")
        client.get_status = partial(_is_ready, client)


def _is_ready(client: Any) -> int:
    client.status = Status.Up | Status.Ready
    return int(client.status)


def take_resets_for_ends() -> None:
    """Have a driver that was killed be found gone, like one that has closed its connection.

    i-PI gives the request of the latter to another driver. The former may leave a reset, which
    ends i-PI's polling thread, and with it the run.
    """
    native(DriverSocket, "recvall", "self", "dest")  # reads by recv_into

    def receive(self: Any, *arguments: Any) -> int:
        try:
            return socket.socket.recv_into(self, *arguments)
        except ConnectionError:
            return 0

    DriverSocket.recv_into = receive


def hear_of_soft_exits(hear: Callable[[str, str], None]) -> None:
    """Have ``hear(status, message)`` called by whatever asks i-PI to end, before it does."""
    trigger = native(softexit, "trigger", "status", "message")

    def hear_and_trigger(status: str = "restartable", message: str = "") -> None:
        hear(status, message)
        trigger(status, message)

    softexit.trigger = hear_and_trigger


def leave_mpi_in_order() -> None:
    """Have the MPI library's own end of process run where i-PI is a process of an MPI job; once.

    i-PI finalizes MPI and ends by ``os._exit``. MPICH parts from mpiexec only afterwards, when the
    C library ends the process: it takes the end for a crash and kills the drivers that are still
    about to leave. That Python's own end is left out, as i-PI means it to be, stays.
    """
    kill = getattr(softexit, "kill", None)
    if not hasattr(softexit, "hard_exit") or hasattr(kill, "replaced"):
        return
    by_ipi = native(softexit, "kill")

    def kill_in_order() -> None:
        mpi = sys.modules.get("mpi4py.MPI")
        cleaned_up = softexit.triggered and not (softexit.flist or softexit.exiting)
        if not (softexit.hard_exit and cleaned_up and mpi and mpi.Is_initialized()):
            return by_ipi()
        if not mpi.Is_finalized():
            mpi.Finalize()
        sys.stdout.flush()
        sys.stderr.flush()
        ctypes.CDLL(None).exit(0)

    kill_in_order.replaced = True  # type: ignore[attr-defined]
    softexit.kill = kill_in_order


def write_checkpoints_by(write: Callable[[Any, bool, Callable[[Any, bool], None]], None]) -> None:
    """Have checkpoints written by ``write(output, store, native)``; once, for all of the process.

    i-PI opens the file, which is empty then, and writes; a kill leaves half a checkpoint, or none.
    """
    by_ipi = native(CheckpointOutput, "write", "self", "store")
    if hasattr(by_ipi, "replaced"):
        return

    def write_well(self: Any, store: bool = True) -> None:
        write(self, store, by_ipi)

    write_well.replaced = True  # type: ignore[attr-defined]
    CheckpointOutput.write = write_well


def print_values_by(show: Callable[[type, Any, str], str]) -> None:
    """Have values in checkpoints printed as ``show(type, value, i-PI's text)``; once."""
    by_ipi = native(input_values, "write_type", "type", "data")
    if hasattr(by_ipi, "replaced"):
        return

    def write_type(type: type, data: Any) -> str:
        return show(type, data, by_ipi(type, data))

    write_type.replaced = True  # type: ignore[attr-defined]
    input_values.write_type = write_type
