"""ZeroMQ from peers that send anything: an answer or a sentence, and never that of another."""

import numpy as np
import pytest
import zmq
from hypothesis import event, given
from hypothesis import strategies as st
from peers import ATOMS
from peers_zmq import NAMES, both, check_answer, equal, model
from strategies import MODEL, cases
from strategies_zmq import any_messages, odd_frames, odd_questions, other_array, questions

from mts_driver.drivers.zmq import requests as zmq_answers
from mts_driver.drivers.zmq.batching import PAUSE, REMEMBERED, Rhythm
from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.ipi_pes import ZmqPES
from mts_driver.drivers.zmq.keys import identify
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.requests import Answers, Request
from mts_driver.drivers.zmq.sockets import check_address
from mts_driver.errors import UserError


@cases(80)
@given(frames=odd_frames(ATOMS))
def test_frames_are_read_or_refused(frames):
    try:
        found = Message.unpack(frames)
    except UserError as error:
        assert len(str(error)) < 3000
        event("refused")
        return
    event("read")
    assert sum(a.nbytes + -a.nbytes % 8 for a in found.arrays.values()) == len(frames[1])
    equal(Message.unpack(found.pack()), found)


@cases(20)
@given(message=any_messages())
def test_what_is_packed_is_unpacked_equal(message):
    found = Message.unpack(message.pack())
    equal(found, message)
    assert dict(found.values) == dict(message.values)


def ask(answers: Answers, requests: list[Request]) -> list[Message]:
    """Let a server answer: evaluations together, others one by one."""
    together = [r for r in requests if r.message.kind == "evaluate"]
    others = [r for r in requests if r.message.kind != "evaluate"]
    found = dict(zip(map(id, together), answers.to(together), strict=True)) if together else {}
    for one in others:
        (found[id(one)],) = answers.to([one])
    return [found[id(r)] for r in requests]


@cases(60)
@given(
    odd=st.lists(st.tuples(st.sampled_from([b"a", b"b"]), odd_questions(ATOMS)), max_size=3),
    good=st.lists(questions(ATOMS, odd=False), min_size=1, max_size=3),
    several=st.booleans(),
)
def test_whoever_asks_gets_the_own_answer(odd, good, several, monkeypatch):
    """Whatever others ask at the same time; what a client asked before makes no difference."""

    def never(error: Exception) -> None:
        raise AssertionError("nobody had foreseen this") from error

    monkeypatch.setattr(zmq_answers.traceback, "print_exception", never)
    answers = both() if several else Answers(model())
    requests = [Request(who, message) for who, message in odd]
    requests += [Request(b"good", message) for message in good]
    found = ask(answers, requests)
    for request, answer in zip(requests, found, strict=True):
        check_answer(request.message, answer)
        event(f"{request.message.kind[:9]}: {answer.kind == 'error'}")
    for message, answer in zip(good, found[len(odd) :], strict=True):
        fresh = both() if several else Answers(model())
        equal(fresh.to([Request(b"new", message)])[0], answer)
        named = message.kind == "run" or "model" in message.values or not several
        if message.kind != "run" and named:
            assert answer.kind != "error", answer.values


class _Scripted:
    """A client whose server has said what it will say."""

    address = "ipc:///scripted"

    def __init__(self, answer: Message) -> None:
        self.answers = [Message("welcome", {"model": MODEL}), answer]

    def ask(self, message: Message) -> Message:
        return self.answers.pop(0)

    begin = ask

    def finish(self, question: Message) -> Message:
        return question


@st.composite
def odd_answers(draw: st.DrawFn) -> tuple[Message, Message, bool]:
    """A question, an answer to it, and whether it is the right one."""
    asked = draw(questions(ATOMS, odd=False, kinds=["evaluate", "propagate", "run"]))
    asked = Message(asked.kind, {**asked.values, "model": MODEL}, asked.arrays)
    right = both().to([Request(b"", asked)])[0]
    while right.kind == "error":  # blown up: of another kind of question then
        asked = Message("evaluate", {"model": MODEL}, {"q": np.ones((ATOMS, 3)), "cell": ZERO})
        right = both().to([Request(b"", asked)])[0]
    arrays = dict(right.arrays)
    if fine := draw(st.booleans()):
        return asked, right, fine
    name = draw(st.sampled_from(sorted(arrays)))
    arrays[name] = draw(other_array(arrays[name]))
    if draw(st.integers(0, 3)) == 0:
        del arrays[name]
    return asked, Message(right.kind, right.values, arrays), fine


ZERO = np.zeros((3, 3))


@cases(25)
@given(both=odd_answers())
def test_ipi_gets_numbers_of_the_right_shape_or_a_sentence(both):
    asked, answer, fine = both
    pes = ZmqPES(address="ipc:///scripted", model=MODEL)
    pes._client = _Scripted(answer)
    arrays, values = dict(asked.arrays), dict(asked.values)
    try:
        if asked.kind == "propagate":
            found = pes.propagate(values, arrays)
        elif asked.kind == "run":
            found = pes.finish_run(pes.begin_run(values, arrays))
        else:
            q = arrays["q"].reshape(-1, ATOMS, 3)
            cell = [one.T for one in arrays["cell"].reshape(-1, 3, 3)]
            if answer.arrays.get("energy", ZERO).ndim == 0 and len(q) == 1:
                # a list of one is asked for as several
                answer = Message(answer.kind, {}, {n: a[None] for n, a in answer.arrays.items()})
                pes._client = _Scripted(answer)
            results = pes.compute(cell, list(q))
            found = dict(
                zip(NAMES, map(np.array, list(zip(*results, strict=True))[:3]), strict=True)
            )
    except UserError:
        event("refused")
        assert not fine
        return
    event("taken")
    for name, array in found.items():
        assert np.isfinite(array).all() and array.dtype == float
        np.testing.assert_array_equal(array, answer.arrays[name])
    if asked.kind != "run":
        assert np.shape(found["forces"]) == arrays["q"].reshape(-1, ATOMS, 3).shape


@cases(10)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["answered", "until", "missed"]),
            st.sets(st.sampled_from([b"a", b"b", b"c", b"d"]), min_size=1),
            st.floats(0.0, 2.0),
        ),
        max_size=60,
    )
)
def test_nobody_is_waited_for_longer_than_agreed(steps):
    rhythm, now = Rhythm(1.0), 100.0
    vain = dict.fromkeys([b"a", b"b", b"c", b"d"], 0)
    for what, here, later in steps:
        now += later
        if what == "answered":
            for who in sorted(here):
                rhythm.answered(who, now)
                vain[who] = max(0, vain[who] - 1)
        elif what == "until":
            assert now <= rhythm.until(here, now) <= now + 1.0
            assert rhythm.until(vain, now) == now  # all are here
            if all(vain[who] for who in set(vain) - here):
                assert rhythm.until(here, now) == now
        else:
            before = {who for who in vain if rhythm._clients.get(who) and not vain[who]}
            rhythm.missed(here, now - 2.0, now)
            for who in before - here:
                vain[who] = rhythm._clients[who].pause
                assert vain[who] in (0, PAUSE)
    for k in range(2 * REMEMBERED):
        rhythm.answered(b"%d" % k, now)
    assert len(rhythm._clients) == REMEMBERED


HOST_AND_PORT = r"[a-z*\[\]:]{0,9}:[0-9²]{0,6}/?"


@cases(10)
@given(
    text=st.one_of(
        st.text(max_size=20),
        st.builds(
            "{}://{}".format,
            st.sampled_from(["tcp", "ipc", "udp", "TCP", ""]),
            st.one_of(
                st.text(max_size=20),
                st.from_regex(r"[a-z*\[\]:]{0,9}:[0-9²]{0,6}/?", fullmatch=True),
            ),
        ),
    )
)
def test_addresses_are_refused_or_can_be_used(text):
    try:
        check_address(text)
        asking = Client(text, timeout_s=0.0, interrupted=lambda: True)
    except UserError:
        return
    with pytest.raises(UserError, match=r"cannot connect|stopped while waiting"):
        asking.ask(Message("hello"))
    asking.close()
    event("asked")


def keys_files() -> st.SearchStrategy[bytes]:
    """As ZeroMQ writes them, with keys of any length."""
    key = st.one_of(
        st.just("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"),
        st.text(st.characters(max_codepoint=127, exclude_characters='"\n'), max_size=45),
    )
    form = 'metadata\ncurve\n    public-key = "{}"\n    secret-key = "{}"\n'
    return st.builds(form.format, key, key).map(str.encode)


@cases(10)
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=50).map(str.encode), keys_files())
)
def test_files_of_keys_are_used_or_refused(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("server.key", "client.key_secret"):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    one = zmq.Context.instance().socket(zmq.REQ)
    try:
        identify(one, folder)
        event("used")
    except UserError:
        event("refused")
    finally:
        one.close(linger=0)
