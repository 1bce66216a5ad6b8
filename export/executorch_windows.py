"""Windows that slide over feature maps as slices and sums of slices: no kernel of ExecuTorch's does it as fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]
Part = tuple[int, int, Tensor]  # row and column in a window, and one value per window


def pair(values: Sequence[int], missing: int) -> Pair:
    """Height and width of a window; a 1-D one has only a width."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def windows_in(x: Tensor, kernel: Pair, stride: Pair) -> Pair:
    """How many windows fit on (channels, n, height, width)."""
    height, width = ((x.shape[2 + i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


def taps(x: Tensor, kernel: Pair, stride: Pair) -> Iterator[Part]:
    """Every element of a window, of all windows at once: (channels, n, windows down, windows across)."""
    height, width = windows_in(x, kernel, stride)
    for row in range(kernel[0]):
        rows = _every(x, 2, row, stride[0], height)
        for column in range(kernel[1]):
            yield row, column, _every(rows, 3, column, stride[1], width)


def _every(x: Tensor, axis: int, start: int, step: int, count: int) -> Tensor:
    """So many elements along an axis; a slice of everything would copy it."""
    if count == x.shape[axis]:
        return x
    index = slice(start, start + (count - 1) * step + 1, step)
    return x[:, :, index] if axis == 2 else x[:, :, :, index]


def spread(parts: Sequence[Part], stride: Pair, size: Pair) -> Tensor:
    """The adjoint of `taps`: add every part to the elements it was taken from, (channels, n, height, width)."""
    rows = [
        (row, _along(3, [(column, part) for r, column, part in parts if r == row], stride[1], size[1]))
        for row in sorted({row for row, _, _ in parts})
    ]
    return _along(2, rows, stride[0], size[0])


def _along(axis: int, parts: Sequence[tuple[int, Tensor]], stride: int, size: int) -> Tensor:
    """Add parts up along one axis: element i of a part that starts at s belongs at s + i x stride of `size`."""
    length = -(-size // stride)  # elements of one phase; those past the end are cut off below
    phases: list[Tensor | None] = [None] * stride
    for start, part in parts:
        before = start // stride
        placed = _pad(part, axis, before, length - before - part.shape[axis])
        present = phases[start % stride]
        phases[start % stride] = placed if present is None else present + placed
    some = next(phase for phase in phases if phase is not None)
    if stride == 1:
        return some
    empty = torch.zeros_like(some)
    outer, inner = some.shape[: axis + 1], some.shape[axis + 1 :]
    columns = [(empty if phase is None else phase).reshape(*outer, 1, *inner) for phase in phases]  # stack would copy
    whole = torch.cat(columns, axis + 1).reshape(*outer[:axis], length * stride, *inner)
    return whole if length * stride == size else whole.narrow(axis, 0, size)


def _pad(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Zeros around one axis."""
    if not before and not after:
        return x
    return F.pad(x, (0, 0) * (x.dim() - 1 - axis) + (before, after))
