"""Labels of frames that are bent away from those of dynamics on purpose."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.distillation.labels.kinds import WHAT, Kind
from mts_driver.distillation.labels.labeller import Labeller, kept_info
from mts_driver.distillation.sampling.contacts import crowd
from mts_driver.distillation.sampling.displacements import Skeleton, shake, stiff_steps, stretch
from mts_driver.distillation.sampling.schedule import SamplingPlan
from mts_driver.progress import Progress


def label_displaced(
    labeller: Labeller,
    plan: SamplingPlan,
    system: str,
    *,
    seed: int,
    report: Progress,
    skeleton: Skeleton | None = None,
) -> None:
    """Label displaced copies of the frames of dynamics that a system has; those there are kept.

    Parameters
    ----------
    plan : SamplingPlan
        How many of what.
    system : str
        Name that the labels carry.
    seed : int
        Of all random choices.
    skeleton : Skeleton, optional
        The bonds of all frames; without one, every frame has bonds of its own.
    """
    frames = _Sources(labeller, system, seed, report)

    def bonds(frame: Atoms) -> Skeleton:
        return skeleton or Skeleton.of(frame)

    for k, rng, frame in frames.of(Kind.SHAKEN, plan.shaken):
        shake(frame, rng)
        frames.label(frame, Kind.SHAKEN, k)
    for kind, split, count in (
        (Kind.CONTACTS, "train", plan.contacts),
        (Kind.CONTACTS_TEST, "test", plan.contact_tests),
    ):
        for k, rng, frame in frames.of(kind, count, split=split):
            crowd(frame, rng)
            frames.label(frame, kind, k, split)
    for k, rng, frame in frames.of(Kind.STRETCHED, plan.stretched):
        stretch(frame, bonds(frame), rng)
        frames.label(frame, Kind.STRETCHED, k)
    for kind, split, count in (
        (Kind.STIFF, "train", plan.stiff_pairs),
        (Kind.STIFF_TEST, "test", plan.stiff_test_pairs),
    ):
        for k, rng, frame in frames.of(kind, count, split=split, frames_each=2):
            steps, bond = stiff_steps(frame, bonds(frame), rng)
            for sign in frames.missing_signs(kind, k):
                moved = frame.copy()
                moved.positions += sign * steps
                frames.label(moved, kind, k, split, {"stiff_bond": bond}, sign=sign)


class _Sources:
    """Frames of dynamics of one system, to be displaced, and the labels of those that were."""

    def __init__(self, labeller: Labeller, system: str, seed: int, report: Progress) -> None:
        self._labeller, self._labels, self._system = labeller, labeller.labels, system
        self._seed, self._report = seed, report

    def of(
        self, kind: Kind, count: int, *, split: str = "train", frames_each: int = 1
    ) -> Iterator[tuple[int, np.random.Generator, Atoms]]:
        """Yield number, generator and a random frame for what is still to be labelled."""
        pool = [f for f in self._labels.of(Kind.MD, self._system) if f.info["split"] == split]
        if split == "train":
            pool += self._labels.of(Kind.WARM, self._system)
        labelled = [int(f.info["pair"]) for f in self._labels.of(kind, self._system)]
        for k in range(count if pool else 0):
            if labelled.count(k) < frames_each:
                rng = np.random.default_rng([self._seed, k, *kind.encode()])
                source = pool[int(rng.integers(len(pool)))]
                frame = Atoms(source.numbers, source.positions, cell=source.cell, pbc=source.pbc)
                frame.info.update(kept_info(source))
                if source.has("force_weight"):
                    frame.set_array("force_weight", source.get_array("force_weight"))
                yield k, rng, frame
            self._report(WHAT[kind], k + 1, count)

    def missing_signs(self, kind: Kind, number: int) -> list[float]:
        """Halves of a pair that have no label, as after a kill between the two."""
        done = {
            float(f.info["sign"])
            for f in self._labels.of(kind, self._system)
            if f.info["pair"] == number
        }
        return [sign for sign in (1.0, -1.0) if sign not in done]

    def label(
        self,
        frame: Atoms,
        kind: Kind,
        number: int,
        split: str = "train",
        arrays: dict[str, np.ndarray] | None = None,
        **info: Any,
    ) -> None:
        """Have the teacher label it."""
        self._labeller.label(
            frame,
            kind=kind,
            split=split,
            system=self._system,
            arrays=arrays,
            pair=number,
            **info,
        )
