"""Servers and what they should answer over ZeroMQ, without sockets."""

import numpy as np
from peers import direct, evaluator, same
from strategies import MODEL

from mts_driver.drivers.zmq.messages import ANSWERS, Message
from mts_driver.drivers.zmq.requests import Answers, Model

NAMES = ("energy", "forces", "virial")


def equal(a: Message, b: Message) -> None:
    assert (a.kind, set(a.arrays)) == (b.kind, set(b.arrays))
    for name, array in a.arrays.items():
        np.testing.assert_array_equal(array, b.arrays[name])
        assert (array.shape, array.dtype) == (b.arrays[name].shape, b.arrays[name].dtype)


def is_equal(a: Message, b: Message) -> bool:
    try:
        equal(a, b)
    except AssertionError:
        return False
    return a.values == b.values


def model() -> Model:
    return Model(MODEL, evaluator())


def both() -> Answers:
    return Answers(model(), Model("student:water", evaluator()))


def check_answer(asked: Message, answer: Message) -> None:
    """An answer is an error with a text, or of the right kind and with the right numbers."""
    if answer.kind == "error":
        assert answer.values["text"]
        return
    assert answer.kind == ANSWERS.get(asked.kind, asked.kind)
    if asked.kind == "evaluate":
        expected = direct(asked.arrays["q"], asked.arrays["cell"])
        for name, one in zip(NAMES, expected, strict=True):
            same(answer.arrays[name], np.asarray(one))
    assert all(np.isfinite(a).all() for a in answer.arrays.values())
