"""What a runtime does in a training step, counted from its graph: operations, bytes moved, memory alive at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """All operations of one kind.

    Attributes:
        flops: arithmetic operations; a multiply-add is two.
        moved: bytes read and written.
        values: that loops pass over one by one, at so many cycles each.
        calls: how many operations.
    """

    flops: float = 0
    moved: float = 0
    values: float = 0
    calls: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            flops=self.flops + other.flops,
            moved=self.moved + other.moved,
            values=self.values + other.values,
            calls=self.calls + other.calls,
        )

    def __mul__(self, times: float) -> Work:
        return Work(
            flops=self.flops * times, moved=self.moved * times, values=self.values * times, calls=self.calls * times
        )


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A training step of a batch, and inference.

    Attributes:
        work: of a training step, by kind of operation.
        alive: the bytes of memory that a training step's tensors fill, inputs and constants apart.
        infer_alive: as `alive`, in an inference.
        held: bytes that the runtime holds beside them.
    """

    work: Mapping[str, Work]
    alive: int
    infer_alive: int
    held: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation of a graph in the order of execution.

    Attributes:
        kind: which work it is.
        work: of this one.
        reads: names of the tensors that it reads.
        makes: bytes of the tensors that it makes, by name.
        operator: its name in the graph.
        scratch: bytes that it takes for itself while it runs.
        number: its place in the graph's file.
    """

    kind: str
    work: Work
    reads: tuple[str, ...]
    makes: Mapping[str, int]
    operator: str = ""
    scratch: int = 0
    number: int = 0


def total(parts: Iterable[Mapping[str, Work]]) -> dict[str, Work]:
    """The work of all parts together, by kind."""
    found: dict[str, Work] = {}
    for part in parts:
        for kind, work in part.items():
            found[kind] = found.get(kind, Work()) + work
    return found


def far(nbytes: float, near: float) -> dict[str, Work]:
    """The work of bytes that come from beyond a core's caches, beside what is done with them; empty: all are near.

    Args:
        nbytes: that an operation reads and writes.
        near: bytes that the caches hold of them; of twice as many, none is left there when it is needed again.
    """
    share = min(1.0, max(0.0, nbytes / near - 1))
    return {"far": Work(moved=nbytes * share)} if share else {}


def most_alive(steps: Sequence[Step], results: Iterable[str]) -> int:
    """The most bytes alive at once, if every tensor is freed after its last reader.

    Args:
        steps: in the order of execution.
        results: tensors that stay.
    """
    last = {name: i for i, step in enumerate(steps) for name in (*step.makes, *step.reads)}
    last |= dict.fromkeys(results, len(steps))
    change: Counter[int] = Counter()
    for i, step in enumerate(steps):
        for name, size in step.makes.items():
            change[i] += size
            change[last[name] + 1] -= size
    most = alive = 0
    for i in range(len(steps)):
        alive += change[i]
        most = max(most, alive)
    return most
