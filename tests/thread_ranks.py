"""Ranks without MPI: threads of one process that wait for one another."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class ThreadRanks:
    """One of several threads that evaluate a structure together."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, desk: list[Any]) -> None:
        self.rank, self.size = rank, size
        self._meeting, self._desk = meeting, desk

    def _all(self, mine: np.ndarray) -> list[np.ndarray]:
        self._desk[self.rank] = mine.copy()
        self._meeting.wait()
        found = [array.copy() for array in self._desk]
        self._meeting.wait()
        return found

    def add_up(self, array: np.ndarray) -> None:
        array[...] = sum(self._all(array))

    def swap(self, rows: np.ndarray, sent: np.ndarray, received: np.ndarray) -> np.ndarray:
        assert len(rows) == sum(sent)
        parts = np.split(rows, np.cumsum(sent)[:-1])
        self._desk[self.rank] = [part.copy() for part in parts]
        self._meeting.wait()
        found = [theirs[self.rank] for theirs in self._desk]
        self._meeting.wait()
        assert [len(part) for part in found] == list(received)
        return np.concatenate(found)


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """Do the same on several ranks; what each returns."""
    meeting, desk, found = threading.Barrier(size), [None] * size, [None] * size
    failed: list[BaseException] = []

    def one(rank: int) -> None:
        try:
            found[rank] = work(ThreadRanks(rank, size, meeting, desk))
        except BaseException as error:
            failed.append(error)
            meeting.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        first = [e for e in failed if not isinstance(e, threading.BrokenBarrierError)]
        raise (first or failed)[0]
    return found
