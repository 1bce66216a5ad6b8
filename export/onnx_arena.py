"""How far onnxruntime's arena fills when a graph runs in it: its order of nodes and its placing of tensors, simulated.

As onnxruntime 1.32 does it with the options of `edge_client.runtimes.onnx`: one region, every tensor made when its
node runs and freed after its last reader; only what writes over its input, or is the same bytes, takes none.
Source: onnxruntime's graph_viewer.cc (order), allocation_planner.cc (sharing), bfc_arena.cc (placing).
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from export.work import Step

ALIGNED = 256  # bytes: what a tensor's size is rounded up to
SAME_BYTES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # another shape of their input
IN_PLACE = frozenset({"Clip", "Relu", "ScatterElements"})  # written over their input, if they are its last reader


def order(steps: Sequence[Step]) -> list[Step]:
    """The order of execution: depth first from what nobody reads, the last of the file first.

    Args:
        steps: in the order of the file.
    """
    maker = {name: i for i, step in enumerate(steps) for name in step.makes}
    read = {maker[name] for step in steps for name in step.reads if name in maker}
    stack = [(i, False) for i in range(len(steps)) if i not in read]
    seen: set[int] = set()
    found = []
    while stack:
        i, done = stack.pop()
        if done:
            found.append(steps[i])
        elif i not in seen:
            seen.add(i)
            stack.append((i, True))
            sources = sorted({maker[name] for name in steps[i].reads if name in maker})
            stack += [(source, False) for source in sources if source not in seen]
    return found


class Arena:
    """One region; tensors go into the smallest gap that holds them, and of equal ones into the first.

    Attributes:
        top: bytes that were ever used.
    """

    def __init__(self) -> None:
        self.top = 0
        self._gaps: list[tuple[int, int]] = []  # (first byte, bytes), sorted; the rest of the region follows `top`

    def take(self, size: int) -> tuple[int, int]:
        """Place so many bytes: (first byte, bytes rounded up)."""
        size = -(-max(size, 1) // ALIGNED) * ALIGNED
        fitting = [(length, first) for first, length in self._gaps if length >= size]
        if not fitting:
            # What is free at the end of what was used and what was never used are one piece.
            first = self.top
            if self._gaps and sum(self._gaps[-1]) == self.top:
                first = self._gaps.pop()[0]
            self.top = first + size
            return first, size
        length, first = min(fitting)
        self._gaps.remove((first, length))
        if length > size:
            insort(self._gaps, (first + size, length - size))
        return first, size

    def give_back(self, block: tuple[int, int]) -> None:
        """Free a block; it becomes one with the gaps beside it."""
        first, size = block
        for gap in [gap for gap in self._gaps if sum(gap) == first or gap[0] == first + size]:
            self._gaps.remove(gap)
            first, size = min(first, gap[0]), size + gap[1]
        insort(self._gaps, (first, size))


def filled(steps: Sequence[Step], results: Iterable[str]) -> int:
    """Bytes of the arena that are ever used when a graph runs.

    Args:
        steps: that run, in the order of the file.
        results: what stays until the end.
    """
    return place(steps, results, Arena())


def place(steps: Sequence[Step], results: Iterable[str], arena: Arena) -> int:
    """As `filled`, in an arena that may have been used before."""
    ordered, kept = order(steps), set(results)
    owner = _owners(ordered, kept)
    readers: Counter[str] = Counter(owner[name] for step in ordered for name in step.reads if name in owner)
    stays = {owner[name] for name in kept if name in owner}
    blocks: dict[str, tuple[int, int]] = {}
    for step in ordered:
        for name, size in step.makes.items():
            if owner[name] == name:
                blocks[name] = arena.take(size)
        scratch = arena.take(step.scratch) if step.scratch else None
        if scratch:
            arena.give_back(scratch)
        for name in step.reads:
            if name in owner:
                readers[owner[name]] -= 1
        for name in {owner[name] for name in (*step.reads, *step.makes) if name in owner}:
            if not readers[name] and name not in stays and name in blocks:
                arena.give_back(blocks.pop(name))
    for block in blocks.values():  # the runtime copies its results out
        arena.give_back(block)
    return arena.top


def _owners(ordered: Sequence[Step], results: set[str]) -> dict[str, str]:
    """Whose memory every tensor lies in: its own, or that of the one it is written over."""
    left = Counter(name for step in ordered for name in step.reads)
    sizes: Mapping[str, int] = {name: size for step in ordered for name, size in step.makes.items()}
    owner: dict[str, str] = {}
    for step in ordered:
        source = step.reads[0] if step.reads else ""
        for number, name in enumerate(step.makes):
            shares = number == 0 and source in owner
            if shares and step.operator in IN_PLACE:
                shares = (
                    left[owner[source]] == 1 and sizes[source] == sizes[name] and not {source, owner[source]} & results
                )
            elif step.operator not in SAME_BYTES:
                shares = False
            owner[name] = owner[source] if shares else name
            if shares:  # who reads it reads the other's memory
                left[owner[name]] += left[name]
        for name in step.reads:
            if name in owner:
                left[owner[name]] -= 1
    return owner
