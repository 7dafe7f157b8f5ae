"""i-PI's protocol from servers that break it anywhere: no hang, no traceback, no wrong number."""

import contextlib
import os
import re
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from peers import (
    ATOMS,
    LOST,
    MemoryLink,
    Reference,
    check_answers,
    direct,
    evaluator,
    same,
    usable,
)
from strategies import (
    MODEL,
    ODD_COUNTS,
    cases,
    damaged,
    header,
    init,
    parts,
    structures,
    talks,
)

from mts_driver.drivers.ipi_socket import client
from mts_driver.drivers.ipi_socket.protocol import SEGMENTS, segment_shapes
from mts_driver.drivers.ipi_socket.transport import (
    MODES,
    Address,
    SharedMemoryStream,
    Stream,
    connect,
)
from mts_driver.errors import UserError

SHM = Path("/dev/shm")
ENDINGS = st.sampled_from(["closed", "reset", *LOST])


def answered(stream: Stream, *, periodic: bool | None = None) -> str:
    """How the driver ends."""
    try:
        return client.answer(evaluator(periodic=periodic), stream, model=MODEL)
    except UserError as error:
        assert 20 < len(str(error)) < 2000
        return "error"


@cases(200)
@given(
    data=talks(ATOMS),
    sizes=parts(),
    ending=ENDINGS,
    periodic=st.sampled_from([None, None, True, False]),
)
def test_whatever_a_server_says_is_answered_as_it_should_be(data, sizes, ending, periodic):
    link = MemoryLink(data, sizes, ending)
    expected = Reference(data, ending=ending, periodic=periodic)
    assert answered(Stream(link), periodic=periodic) == expected.how
    check_answers(link.sent, expected.answers)
    assert link.closed
    event(f"{expected.how}, {sum(isinstance(a, tuple) for a in expected.answers)} answers")


@cases(30)
@given(data=talks(ATOMS), takes=st.integers(0, 700))
def test_a_server_may_be_gone_at_any_answer(data, takes):
    link = MemoryLink(data, takes=takes)
    expected = Reference(data, takes=takes)
    assert answered(Stream(link)) == expected.how
    check_answers(link.sent, expected.answers)


class _Flood(MemoryLink):
    """A server that never stops talking."""

    def recv(self, count: int) -> bytes:
        self.ends += 1
        assert self.ends < 1 << 16, "it listens for ever"
        return b"noise"


def test_a_server_that_never_stops_talking_is_left():
    link = _Flood(b"nonsense    ")
    assert answered(Stream(link)) == "error"
    assert link.closed


ODD_NAMES = ("", "/", "a/b", "../shm", "\0", "a\0b", "x" * 300, "größe", ".", "no-such-segment")


@st.composite
def shared_talks(draw: st.DrawFn) -> dict[str, Any]:
    """What a server with shared memory says and holds, with one fault at most."""
    batch = draw(st.sampled_from([1, 1, 2]))
    right = {kind: 8 * int(np.prod(a)) for kind, a in segment_shapes(ATOMS, batch).items()}
    faults = ["size", "name", "count", "length", "numbers", "batch", "natoms", "damage"]
    fault = draw(st.sampled_from(["none"] * 4 + faults))
    odd = draw(st.sampled_from(SEGMENTS))
    one_less = [n for n in ODD_COUNTS if n != ATOMS]
    h, q = draw(structures(ATOMS, batch, odd=fault == "numbers"))
    sizes: dict[str, int | None] = {
        k: n + draw(st.sampled_from([0, 0, 8])) for k, n in right.items()
    }
    if fault == "size":
        sizes[odd] = draw(st.sampled_from([None, 0, 8 * (batch > 1), right[odd] - 1]))
    names = {kind: f"mts-fuzz-{os.getpid()}-{kind}" for kind in SEGMENTS}
    told = dict(names)
    if fault == "name":
        told[odd] = draw(st.sampled_from((*ODD_NAMES, names["h" if odd == "pos" else "pos"])))
    count = draw(st.sampled_from(one_less)) if fault == "count" else ATOMS
    said = init(0, f"batch_size:{batch}") + header("POSDATA") + struct.pack("=i", count)
    for kind in SEGMENTS:
        raw = told[kind].encode()
        wrong = fault == "length" and kind == odd
        length = draw(st.sampled_from(one_less)) if wrong else len(raw)
        said += struct.pack("=i", length) + raw
    said += header("GETFORCE")
    if fault == "batch":
        said += init(0, "batch_size:3")
    again = draw(st.sampled_from(one_less)) if fault == "natoms" else ATOMS
    said += header("POSDATA") + struct.pack("=i", again) + header("GETFORCE")
    if fault == "damage":
        said = draw(damaged(said))
    return {"fault": fault, "q": q, "h": h, "sizes": sizes, "names": names, "said": said}


@pytest.mark.skipif(not SHM.is_dir(), reason="shared memory has no folder here")
@cases(60)
@given(talk=shared_talks(), sizes=parts())
def test_shared_memory_that_is_not_there_or_too_small(talk, sizes):
    q, names, fault = talk["q"], talk["names"], talk["fault"]
    filling = {"h": talk["h"].tobytes(), "pos": q.tobytes()}
    link = MemoryLink(talk["said"], sizes)
    try:
        for kind, size in talk["sizes"].items():
            if size is not None:
                filled = filling.get(kind, b"")[:size].ljust(size, b"\0")
                (SHM / names[kind]).write_bytes(filled)
        how = answered(SharedMemoryStream(link))
        files = {kind: SHM / names[kind] for kind in SEGMENTS}
        read = {k: np.frombuffer(f.read_bytes()) for k, f in files.items() if fault != "size"}
    finally:
        for name in names.values():
            (SHM / name).unlink(missing_ok=True)
    answers = link.sent.count(header("FORCEREADY"))
    event(f"{fault}: {how}, {answers} answers")
    if fault == "damage":
        return
    cell = talk["h"].swapaxes(1, 2)
    fine = (np.abs(q) < 1e9).all() and all(map(usable, cell))
    right = {"none": 2, "numbers": 2 * fine, "batch": 1, "natoms": 1}.get(fault, 0)
    assert answers == right
    # the server closes in good order, or in the middle of a name that it announced too long
    assert how in (("closed",) if right == 2 else ("error", "closed"))
    assert fault == "length" or how == ("closed" if right == 2 else "error")
    if answers:
        for kind, expected in zip(("pot", "force", "vir"), direct(q, cell), strict=True):
            same(read[kind][: expected.size].reshape(expected.shape), expected)


@cases(10)
@given(data=st.data())
def test_two_drivers_of_one_server_that_are_asked_in_any_order(data, tmp_path_factory):
    """Each over a socket of its own, where bytes for one come between those for the other."""
    folder = tmp_path_factory.mktemp("two")
    talk = [data.draw(talks(ATOMS)) for _ in range(2)]
    order = data.draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 200)), max_size=30))
    ends, heard = {}, {}
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(folder / "server"))
        listening.listen(2)
        listening.settimeout(30)

        def drive(k: int) -> None:
            try:
                address = Address("unix", str(folder / "server"))
                ends[k] = client.serve(evaluator(), address, model=MODEL, timeout=30)
            except UserError:
                ends[k] = "error"

        threads, links = [], []
        for k in range(2):  # one after the other, so that it is known who is who
            threads.append(threading.Thread(target=drive, args=(k,)))
            threads[-1].start()
            links.append(stack.enter_context(listening.accept()[0]))
            links[-1].settimeout(30)
        left = [bytes(one) for one in talk]

        def say(k: int, count: int) -> None:
            part, left[k] = left[k][:count], left[k][count:]
            with contextlib.suppress(ConnectionError):  # it has given up already
                links[k].sendall(part)

        for k, count in order:
            say(k, count)
        for k in range(2):
            say(k, len(left[k]))
            with contextlib.suppress(OSError):
                links[k].shutdown(socket.SHUT_WR)
        for k in range(2):
            heard[k] = b""
            with contextlib.suppress(ConnectionError):
                while found := links[k].recv(1 << 16):
                    heard[k] += found
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    for k in range(2):
        expected = Reference(talk[k])
        assert ends[k] == expected.how
        check_answers(heard[k], expected.answers)


@cases(20)
@given(
    text=st.one_of(
        st.text(max_size=30),
        st.from_regex(r"[a-z.\[\]:]{0,9}:[0-9²٣]{1,6}", fullmatch=True),
    ),
    mode=st.sampled_from([*MODES, "tcp"]),
)
@example(text="localhost:²", mode="inet")
@example(text="localhost:٣١٤١٥", mode="inet")
def test_addresses_are_read_or_refused(text, mode):
    try:
        address = Address.parse(text, mode)
    except UserError:
        return
    assert str(address) and (address.path or 0 < address.port < 65536)
    if mode == "inet" and ":" in text:
        assert re.fullmatch("[0-9]+", text.rpartition(":")[2])


@pytest.mark.parametrize(
    "address",
    [
        Address("inet", host="a" * 64 + ".example", port=1),
        Address("inet", host="", port=1, path=""),
        Address("unix", "/tmp/" + "x" * 200),
        Address("unix", "/tmp/a\0b"),
    ],
    ids=["label", "empty", "long", "null"],
)
def test_names_that_no_server_can_have(address):
    with pytest.raises(UserError, match=r"cannot connect|no i-PI server"):
        connect(address, timeout=0.01)
