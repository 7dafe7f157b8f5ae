"""Each replacement of something of i-PI's, with the i-PI that is installed.

Other supported versions: ``pip install --no-deps --target FOLDER ipi==3.3.0``, then
``PYTHONPATH=FOLDER pytest tests/contract/test_ipi_replacements.py tests/contract/test_ipi_*.py``.
"""

import ast
import inspect
import socket
import threading
from pathlib import Path

import ipi
import ipi.inputs.motion.dynamics as dynamics_input
import ipi.inputs.motion.motion as motion_input
import ipi.utils.inputvalue as input_values
import numpy as np
import pytest
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.engine.forcefields import FFDirect, FFSocket
from ipi.engine.outputs import CheckpointOutput
from ipi.interfaces.sockets import Disconnected, Driver, DriverSocket, InterfaceSocket, Status
from ipi.utils.softexit import softexit
from ipi.utils.units import UnitMap, unit_to_internal

import integrators
import mts_driver
from integrators.ipi import replacements


@pytest.fixture
def forcefield(tmp_path):
    """A force field with a socket that is not open."""
    return FFSocket(interface=InterfaceSocket(address="none", mode="unix"))


def queue_one(forcefield):
    return forcefield.queue(Atoms(1), Cell(np.eye(3)))


def test_another_ipi_is_refused_by_name():
    class InterfaceSocket:
        def poll(self, timeout):
            raise AssertionError

    with pytest.raises(RuntimeError, match=r"poll\(\).*has one of \(timeout\).*supported"):
        replacements.native(InterfaceSocket(), "poll")
    with pytest.raises(RuntimeError, match=rf"i-PI {ipi.__version__} has none"):
        replacements.native(InterfaceSocket(), "queue", "atoms")


def test_splittings_and_units_are_offered_once(monkeypatch):
    options = dynamics_input.InputDynamics.attribs["splitting"][1]["options"]
    monkeypatch.setitem(
        dynamics_input.InputDynamics.attribs["splitting"][1], "options", list(options)
    )
    for tag in (motion_input.InputMotionBase, motion_input.InputMotion):
        monkeypatch.setitem(tag.fields, "dynamics", tag.fields["dynamics"])
    monkeypatch.setattr(motion_input, "Dynamics", motion_input.Dynamics)
    monkeypatch.setitem(UnitMap["frequency"], "perhour", 0.0)

    class Dynamics(motion_input.Dynamics):
        pass

    class Tag(dynamics_input.InputDynamics):
        pass

    for _ in range(2):
        replacements.offer_splitting("sesqui", Dynamics, Tag)
    replacements.offer_unit("frequency", "perhour", 2.0)
    now = dynamics_input.InputDynamics.attribs["splitting"][1]["options"]
    assert now == [*options, "sesqui"]
    assert motion_input.Dynamics is Dynamics
    assert motion_input.InputMotion.fields["dynamics"][0] is Tag
    assert unit_to_internal("frequency", "perhour", 3.0) == 6.0


@pytest.mark.parametrize("kind", [FFSocket, FFDirect])
def test_a_polling_thread_waits_for_its_end(kind, forcefield, monkeypatch):
    if kind is FFDirect:
        forcefield = FFDirect(pes="dummy")
    monkeypatch.setattr(type(forcefield), "poll", lambda self: pytest.fail("it has polled"))
    replacements.stop_polling(forcefield)
    forcefield._doloop[0] = True
    thread = threading.Thread(target=forcefield._poll_loop)
    thread.start()
    forcefield._doloop[0] = False
    thread.join(60)
    assert not thread.is_alive()


def test_a_request_is_answered_where_it_is_made(forcefield):
    def answer(request):
        assert request in forcefield.requests and request["status"] == "Queued"
        request["status"] = "Done"
        request["thread"] = threading.get_ident()

    replacements.answer_in_queue(forcefield, answer)
    request = queue_one(forcefield)
    assert request["status"] == "Done" and request["thread"] == threading.get_ident()


def test_polls_when_it_is_time(monkeypatch):
    polled = []
    monkeypatch.setattr(InterfaceSocket, "poll", lambda self: polled.append(self))
    server = InterfaceSocket(address="none", mode="unix")
    due = iter([False, True, False])
    replacements.poll_only(server, lambda: next(due))
    for _ in range(3):
        server.poll()
    assert polled == [server]


def test_a_client_is_taken_for_ready():
    # closed: i-PI's own question would find it disconnected
    client = Driver.__new__(Driver)
    for _ in range(2):
        replacements.take_for_ready(client)
    client.status = Status.Up | Status.Busy
    assert client.get_status() == client.status == Status.Up | Status.Ready


def test_a_driver_that_was_killed_is_taken_for_one_that_has_left(monkeypatch):
    monkeypatch.setattr(DriverSocket, "recv_into", DriverSocket.recv_into)
    replacements.take_resets_for_ends()
    ours, theirs = socket.socketpair()
    client = Driver(ours)
    ours.close()
    client.send_msg("status")
    theirs.close()  # with a message that was never read: a reset
    with pytest.raises(Disconnected):
        client.recvall(np.zeros(3))


def test_a_soft_exit_is_heard_of_first(monkeypatch):
    heard = []
    by_ipi = softexit.trigger
    monkeypatch.setattr(softexit, "trigger", lambda status, message: heard.append("ended"))
    # the parameters are those of i-PI's
    monkeypatch.setattr(softexit.trigger, "__signature__", inspect.signature(by_ipi), raising=False)
    replacements.hear_of_soft_exits(lambda *what: heard.append(what))
    softexit.trigger("bad", "no more steps")
    assert heard == [("bad", "no more steps"), "ended"]


def test_checkpoints_are_written_by_what_was_given_first(monkeypatch):
    by_ipi = CheckpointOutput.write
    monkeypatch.setattr(CheckpointOutput, "write", by_ipi)
    written = []
    replacements.write_checkpoints_by(lambda *what: written.append(what))
    replacements.write_checkpoints_by(lambda *what: pytest.fail("replaced twice"))
    output = CheckpointOutput.__new__(CheckpointOutput)
    output.write(store=False)
    assert written == [(output, False, by_ipi)]


def test_values_are_printed_by_what_was_given(monkeypatch):
    by_ipi = input_values.write_type
    monkeypatch.setattr(input_values, "write_type", by_ipi)
    replacements.print_values_by(
        lambda kind, value, text: f"{kind.__name__} {value} {text.strip()}"
    )
    assert input_values.write_type(int, 3) == "int 3 3"
    value = input_values.InputValue(dtype=int)
    value.store(4)
    assert "int 4 4" in value.write("steps")


def test_nothing_else_assigns_to_names_of_ipi():
    """Assignments to attributes of what was imported from i-PI."""
    folders = [Path(package.__file__).parent for package in (integrators, mts_driver)]
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        theirs = {
            (alias.asname or alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
            if (getattr(node, "module", None) or alias.name).split(".")[0] == "ipi"
        }
        targets = [
            target
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
        ]
        names = {
            ast.unparse(target)
            for target in targets
            if isinstance(target, ast.Attribute | ast.Subscript)
            and ast.unparse(target).split(".")[0].split("[")[0] in theirs
        }
        if names:
            found[path.name] = names
    replaced = found.pop("replacements.py")
    assert "softexit.trigger" in replaced and "CheckpointOutput.write" in replaced
    # a switch of i-PI's own, not a replacement
    assert found == {"ipi_process.py": {"softexit.hard_exit"}}
