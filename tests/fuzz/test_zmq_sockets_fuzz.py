"""ZeroMQ over real sockets: servers, clients and fronts among peers that send anything, or die."""

import itertools
import socket
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import event, given
from hypothesis import strategies as st
from peers import ATOMS, evaluator
from peers_zmq import both, check_answer, is_equal, model
from strategies import MODEL, cases, damaged
from strategies_zmq import ODD_JSON, odd_frames, questions

from mts_driver.drivers.counters import Stats
from mts_driver.drivers.zmq import client as zmq_client
from mts_driver.drivers.zmq import worker_pool
from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.requests import Model, Request
from mts_driver.drivers.zmq.server import Limits, Server
from mts_driver.drivers.zmq.sockets import READY, new_socket
from mts_driver.drivers.zmq.worker_pool import Front, _Worker
from mts_driver.errors import UserError

PATIENCE = 100
"""Looks, of 0.2 s at most, after which somebody has been forgotten; far more than any takes."""


class _Done(Exception):
    """Raised in a server's loop once everybody has what was asked for."""


def serve_until(server: Any, done: Any) -> None:
    """Let a server work in this thread until ``done()`` is true."""
    looks = itertools.count()

    def look() -> None:
        if done():
            raise _Done
        assert next(looks) < PATIENCE, "somebody waits in vain"

    with pytest.raises(_Done):
        server.serve(after_call=look)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One that all examples ask: none of them may spoil it for the next."""
    address = f"ipc://{tmp_path_factory.mktemp('server')}/driver"
    made = Server(
        model(),
        address,
        student=Model("student:water", evaluator()),
        limits=Limits(batch_wait_ms=0),
    )
    yield made, address
    made.close()


@contextmanager
def dealers(address: str, number: int):
    """Clients that may send what they like."""
    made = [zmq.Context.instance().socket(zmq.DEALER) for _ in range(number)]
    try:
        for one in made:
            one.linger = 0
            one.connect(address)
        yield made
    finally:
        for one in made:
            one.close()


@cases(25)
@given(
    talks=st.lists(st.lists(odd_frames(ATOMS), max_size=3), min_size=1, max_size=3),
    empty=st.booleans(),
    leaves=st.integers(0, 3),
    good=questions(ATOMS, odd=False, kinds=["evaluate"]),
)
def test_a_server_answers_everybody_whatever_others_send(server, talks, empty, leaves, good):
    """Each message gets one answer; one of the clients may leave before it has its own."""
    listening, address = server
    good = Message(good.kind, {"model": MODEL}, good.arrays)
    with dealers(address, len(talks)) as clients:
        waiting = dict.fromkeys(clients, 0)
        for client, messages in zip(clients, talks, strict=True):
            for frames in messages:
                if sent := [*([b""] if empty else []), *frames]:
                    client.send_multipart(sent)
                    waiting[client] += 1
        asking = Client(address, timeout_s=60)
        question = asking.begin(good)
        if leaves < len(clients):
            clients[leaves].close()
            del waiting[clients[leaves]]
        answers: list[Message] = []

        def done() -> bool:
            for client in waiting:
                while client.poll(0):
                    answers.append(Message.unpack(client.recv_multipart()[-2:]))
                    waiting[client] -= 1
            return not any(waiting.values()) and bool(asking._connected()[0].poll(0))

        serve_until(listening, done)
        check_answer(good, asking.finish(question))
        asking.close()
    assert all(number == 0 for number in waiting.values())
    event(f"{sum(answer.kind == 'error' for answer in answers)} errors of {len(answers)}")


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY_COMMAND = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
HELLO = b"\x04" + bytes([len(READY_COMMAND)]) + READY_COMMAND
PIECES = (
    *(b"\x00\x05hello", b"\x01\x00", b"\x02" + b"\x7f" + b"\xff" * 7, b"\x02" + b"\xff" * 8),
    *(b"\x02" + (2**31 + 1).to_bytes(8), b"\x02" + (2**31).to_bytes(8) + b"x", b"\x03" + bytes(8)),
    *(b"\x04\x07\x04PING\x00\x00", b"\x04\x00", b"\xff" * 20, b"GET / HTTP/1.1\r\n\r\n"),
)


@cases(10)
@given(
    said=st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=30)), max_size=5).flatmap(
        lambda pieces: damaged(GREETING + HELLO + b"".join(pieces))
    ),
    good=questions(ATOMS, odd=False, kinds=["evaluate"]),
)
def test_bytes_that_are_not_even_zeromq(server, said, good):
    """Of lengths up to 2⁶⁴, from a peer that stays connected."""
    listening, address = server
    good = Message(good.kind, {"model": MODEL}, good.arrays)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(address.removeprefix("ipc://"))
        raw.sendall(said)
        asking = Client(address, timeout_s=60)
        question = asking.begin(good)
        serve_until(listening, lambda: bool(asking._connected()[0].poll(0)))
        check_answer(good, asking.finish(question))
        asking.close()


@st.composite
def replies(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What a server sends instead of one answer."""
    kinds = ("right", "frames", "kind", "error", "stray", "late", "other")
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    odd = {"frames": odd_frames(ATOMS), "error": st.sampled_from([*ODD_JSON, "no such atoms"])}
    odd |= {"kind": st.sampled_from(["welcome", "", "propagate"]), "stray": st.binary()}
    return [(kind, draw(odd[kind]) if kind in odd else None) for kind in chosen]


def answer_to(frames: list[bytes]) -> list[bytes]:
    """The right answer: the number that was asked about, back."""
    *envelope, header, data = frames
    arrays = Message.unpack([header, data]).arrays
    return [*envelope, *Message("evaluated", {}, arrays).pack()]


@cases(25)
@given(asked=st.lists(st.tuples(st.integers(0, 99), replies()), min_size=1, max_size=3))
def test_a_client_takes_only_the_answer_to_its_question(asked, tmp_path_factory, monkeypatch):
    """Whatever else comes is refused or dropped, and the next question starts anew."""
    monkeypatch.setattr(zmq_client, "POLL_MS", 5)
    address = f"ipc://{tmp_path_factory.mktemp('scripted')}/driver"
    scripted = new_socket(zmq.Context.instance(), zmq.ROUTER)
    scripted.rcvtimeo = 30_000
    scripted.bind(address)

    def again() -> bool:
        """Answer what is asked again: ZeroMQ hangs up on a peer that is none."""
        while scripted.poll(0):
            scripted.send_multipart(answer_to(scripted.recv_multipart()))
        return False

    client = Client(address, timeout_s=60, interrupted=again)
    before: list[bytes] = []
    try:
        for number, said in asked:
            question = client.begin(Message("evaluate", {}, {"q": np.array(float(number))}))
            if not scripted.poll(1000):
                # the connection has ended under the question: the client asks again as it waits
                assert float(client.finish(question).arrays["q"]) == number
                event("asked again")
                continue
            frames = scripted.recv_multipart()
            right, envelope = answer_to(frames), frames[:-2]
            for kind, odd in said:
                text = {"text": odd} if kind == "error" else {}
                sent = {
                    "right": right,
                    "frames": [*envelope, *((kind == "frames" and odd) or [b""])],
                    "kind": [*envelope, *Message(str(odd), {}, {}).pack()],
                    "error": [*envelope, *Message("error", text).pack()],
                    # of another question, or of none
                    "stray": [frames[0], odd if kind == "stray" else b"", b"", *right[-2:]],
                    "late": [*(before or [frames[0], b""]), *right[-2:]],
                    "other": [frames[0], b"\0\0\0\0", b"", *right[-2:]],
                }[kind]
                scripted.send_multipart(sent)
            scripted.send_multipart(right)
            kinds = [kind for kind, _ in said] + ["right"]
            taken = next(kind for kind in kinds if kind in ("right", "frames", "kind", "error"))
            try:
                answer = client.finish(question)
            except UserError as error:
                assert taken != "right" or "stray" in kinds, error
                assert set(kinds) & {"frames", "kind", "error"}
            else:
                assert float(answer.arrays["q"]) == number
                assert taken == "right" or "stray" in kinds
            event(taken)
            before = envelope
    finally:
        client.close()
        scripted.close(linger=0)


class _FakeChild:
    """A worker's process that the test ends."""

    def __init__(self, name: str) -> None:
        self.name, self.code = name, None
        self.process = self
        self.pid = 0

    def how_it_ended(self) -> str:
        return "was ended by a test"

    def terminate(self) -> None:
        pass

    def stop(self, *, patience: float) -> None:
        pass


class _FakeWorker:
    """Answers as `mts serve` would, until it is told to die before or behind an answer."""

    def __init__(self, front: Front, name: str, fate: "list[str]") -> None:
        self.child = _FakeChild(name)
        front._workers[name.encode()] = _Worker(self.child, front._scratch / name)
        self._fate, self._answers = fate, both()
        self._socket = new_socket(front._context, zmq.DEALER, inside=True)
        self._socket.setsockopt(zmq.IDENTITY, name.encode())
        self._socket.connect(f"ipc://{front._scratch}/front")
        self._socket.send(READY)

    def work(self) -> None:
        """Answer what has come, as `Server._read` does."""
        while self.child.code is None and self._socket.poll(0):
            frames = self._socket.recv_multipart()
            fate = self._fate.pop(0) if self._fate else "answers"
            if fate != "dies":
                end = frames.index(b"") + 1 if b"" in frames else len(frames)
                try:
                    asked = Message.unpack(frames[end:])
                    (answer,) = self._answers.to([Request(frames[1], asked)])
                except UserError as error:
                    answer = Message("error", {"text": str(error)})
                self._socket.send_multipart([*frames[:end], *answer.pack()])
            if fate != "answers":
                self.close()
                self.child.code = 1

    def close(self) -> None:
        self._socket.close(linger=1000)


@cases(15)
@given(
    fates=st.lists(
        st.lists(st.sampled_from(["answers", "answers", "dies", "last"]), max_size=3),
        min_size=1,
        max_size=3,
    ),
    asked=st.lists(st.lists(questions(ATOMS, odd=False), max_size=3), min_size=1, max_size=3),
    odd=odd_frames(ATOMS),
)
def test_a_front_gives_every_question_one_answer(fates, asked, odd, tmp_path_factory, monkeypatch):
    """Whichever of its workers dies, before an answer or behind it, while others talk nonsense."""
    monkeypatch.setattr(worker_pool, "CHECK_MS", 1)
    address = f"ipc://{tmp_path_factory.mktemp('front')}/driver"
    front = Front(address, [], stats=Stats("well"))
    workers = [_FakeWorker(front, f"w{k}", list(fate)) for k, fate in enumerate(fates)]
    front.wait_until_ready()
    found: dict[Any, list[Message]] = {}
    looks = itertools.count()
    try:
        with dealers(address, len(asked) + 1) as clients:
            for client, messages in zip(clients, [*asked, []], strict=True):
                found[client] = []
                for message in messages:
                    client.send_multipart([b"", *message.pack()])
            clients[-1].send_multipart([b"", *odd])

            def look() -> None:
                for worker in workers:
                    worker.work()
                for client in clients:
                    while client.poll(0):
                        found[client].append(Message.unpack(client.recv_multipart()[-2:]))
                due = zip(clients, [*asked, [odd]], strict=True)
                if all(len(found[client]) >= len(messages) for client, messages in due):
                    raise _Done
                assert next(looks) < 20_000, "somebody waits in vain"

            try:
                front.serve(after_call=look)
            except _Done:
                event("answered")
            except UserError as error:
                assert "no worker is left" in str(error)
                event("no worker left")
                return
    finally:
        for worker in workers:
            worker.close()
        front.close()
    for client, messages in zip(clients, asked, strict=False):
        expected = [both().to([Request(b"", one)])[0] for one in messages]
        left = list(found[client])
        assert len(left) == len(messages)
        # one that was asked again may come behind a later one
        for right in expected:
            equal = [k for k, one in enumerate(left) if is_equal(one, right)]
            died = [k for k, one in enumerate(left) if "have died" in str(one.values.get("text"))]
            del left[(equal or died)[0]]
