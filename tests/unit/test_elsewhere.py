"""Drivers on other machines: what the input becomes, and what a user is told."""

import shutil
import socket
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest
from ipi.utils.softexit import softexit

from mts_driver.drivers.ipi_socket import transport
from mts_driver.drivers.ipi_socket.transport import Address, connect
from mts_driver.errors import UserError
from mts_driver.runs.input.elsewhere import parse_elsewhere, put_elsewhere
from mts_driver.runs.input.read import read_input
from mts_driver.runs.measured.connections import in_words, watch_connections

INPUTS = Path(__file__).parents[2] / "inputs"


def test_a_socket_listens_where_it_is_told_and_keeps_its_model():
    file = INPUTS / "water64_two_drivers" / "input.xml"
    before = read_input(file)
    after = read_input(file, {"teacher": "10.0.0.1:31415"})
    assert [one.name for one in before.drivers] == ["teacher", "student"]
    assert [one.name for one in after.drivers] == ["student"]
    assert after.models == before.models == {"teacher": "so3lr", "student": "student:water"}
    assert after.addresses == (
        Address("inet", host="10.0.0.1", port=31415),
        before.addresses[1],
    )
    assert after.teachers == before.teachers


def test_what_a_checkpoint_says_of_another_node_gives_way():
    root = ET.fromstring(
        "<simulation><ffsocket name='teacher' mode='inet'><address>old</address><port>1</port>"
        "<parameters>{model : so3lr, start : no}</parameters></ffsocket>"
        "<ffdirect name='student'><parameters>{address:tcp://old:1,keys:k}</parameters></ffdirect>"
        "</simulation>"
    )
    put_elsewhere(root, {"teacher": "new:2", "student": "tcp://new:3"})
    (teacher, student) = root
    assert [teacher.findtext(tag).strip() for tag in ("address", "port")] == ["new", "2"]
    assert teacher.findtext("parameters").strip() == "{ model : so3lr, start: no }"
    assert student.findtext("parameters").strip() == "{ keys:k, address: tcp://new:3 }"


@pytest.mark.parametrize(
    ("elsewhere", "what"),
    [
        ({"other": "a:1"}, "no <ffsocket> or <ffdirect> of this name: use teacher, student"),
        ({"teacher": "a"}, "--elsewhere 'a' has no port"),
        ({"teacher": "a:99999"}, "--elsewhere 'a:99999' has no port"),
        ({"teacher": "tcp://a:1"}, "'teacher' is an <ffsocket>: NAME=HOST:PORT"),
    ],
)
def test_places_that_cannot_be_are_refused_by_name(elsewhere, what):
    with pytest.raises(UserError, match=what):
        read_input(INPUTS / "water64_two_drivers" / "input.xml", elsewhere)


@pytest.mark.parametrize("texts", [["teacher"], ["=a:1"], ["teacher="], ["t=a:1", "t=b:1"]])
def test_words_that_are_no_places(texts):
    with pytest.raises(UserError, match="once for each"):
        parse_elsewhere(texts)


def test_start_is_yes_or_no(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(INPUTS / "water64_two_drivers", folder)
    file = folder / "input.xml"
    text = file.read_text()
    file.write_text(text.replace("model: so3lr,", "model: so3lr, start: no,"))
    assert [one.name for one in read_input(file).drivers] == ["student"]
    file.write_text(text.replace("model: so3lr,", "model: so3lr, start: never,"))
    with pytest.raises(UserError, match="has start: 'never': write yes or no"):
        read_input(file)


def test_who_connects_and_who_is_left_is_reported():
    server = SimpleNamespace(clients=[], mode="inet", address="node1", port=5)
    field = SimpleNamespace(socket=server)
    simulation = SimpleNamespace(fflist={"teacher": field, "student": field})
    said, heard = [], threading.Event()

    def hear(event):
        said.append(in_words(event))
        heard.set()

    watch_connections(simulation, ["student"], hear)
    try:
        for clients in (["10.0.0.2"], ["10.0.0.2", "10.0.0.2", "10.0.0.3"], []):
            heard.clear()
            server.clients = [SimpleNamespace(peername=(host, 1)) for host in clients]
            assert heard.wait(60)
    finally:
        softexit.triggered = True  # ends the thread
        for thread in threading.enumerate():
            if thread.name == "connections":
                thread.join(60)
        softexit.triggered = False
    assert said[0] == "teacher: driver connected (10.0.0.2)"
    assert said[1] == "teacher: 3 drivers connected (2 on 10.0.0.2, 10.0.0.3)"
    assert said[2].startswith("teacher: no driver is left, and i-PI waits for one at node1:5:")


def test_a_machine_that_is_not_there_yet_is_waited_for(monkeypatch):
    """No route, or no answer at all, may be a node that boots; a wrong name is none."""
    monkeypatch.setattr(transport, "_ATTEMPT_S", 0.1)
    with pytest.raises(UserError, match=r"no i-PI server at 192\.0\.2\.1:9 after"):
        connect(Address("inet", host="192.0.2.1", port=9), timeout=0.3)
    with pytest.raises(UserError, match=r"cannot connect to no\.such\.host\.invalid:9"):
        connect(Address("inet", host="no.such.host.invalid", port=9), timeout=0.3)


def test_the_kernel_asks_whether_the_other_machine_is_there():
    with socket.create_server(("localhost", 0)) as server:
        address = Address("inet", host="localhost", port=server.getsockname()[1])
        with connect(address, timeout=5) as link:
            assert link.gettimeout() is None
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                idle, every, times = (
                    link.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"))
                    for name in ("IDLE", "INTVL", "CNT")
                )
                assert 0.8 * transport.SILENT_S < idle + every * times <= transport.SILENT_S
