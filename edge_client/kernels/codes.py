"""A layer's kept weights as the kernels walk them: groups of output rows, and in a group input offsets."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from wire.layers import Linear
from wire.schedule import Geometry, padding_of, pair
from wire.ticket import KeptLayer

BLOCK = 4  # rows the kernels share a position between; other blocks become these or single rows
OFFSET_BITS = 28  # a code is an input offset in floats and 4 sign bits
CHUNK_FLOATS = 1024  # of an output gradient, 4 rows of which stay in a first-level cache of 32 KiB

Offsets = NDArray[np.int64]


@dataclass(kw_only=True)
class Codes:
    """A layer's kept weights in kernel order.

    Attributes:
        block: rows per group, 4 or 1.
        row_start: uint32 (rows + 1,), first code of every group.
        offsets: int64 (blocks,), input offset of every block, in floats.
        order: ticket-order number of every weight in kernel order, int64 (kept,).
    """

    block: int
    row_start: NDArray[np.uint32]
    offsets: Offsets
    order: NDArray[np.int64]


def codes_for(kept: KeptLayer, source: Geometry, lanes: int) -> Codes:
    """Arrange a layer's kept blocks for the kernels: groups of rows in order, in a group by input offset.

    Rows of different groups of a convolution read different channels, so a block that reaches over the border of a
    group becomes single rows.
    """
    fan_in = kept.shape.fan_in
    rows_together = kept.shape.out_units // kept.shape.groups
    group, position = np.divmod(kept.blocks.astype(np.int64), fan_in)
    block = BLOCK if kept.block % BLOCK == 0 and rows_together % BLOCK == 0 else 1
    split = kept.block // block
    group = (group[:, None] * split + np.arange(split)).reshape(-1)
    position = np.repeat(position, split)
    first = np.arange(group.size, dtype=np.int64) * block  # ticket-order number of the block's first weight
    arranged = np.lexsort((position, group)) if split > 1 else slice(None)
    group, position, first = group[arranged], position[arranged], first[arranged]
    rows = kept.shape.out_units // block
    row_start = np.zeros(rows + 1, dtype=np.uint32)
    np.cumsum(np.bincount(group.astype(np.intp), minlength=rows), out=row_start[1:])
    return Codes(
        block=block,
        row_start=row_start,
        offsets=_row_offsets(kept, source)[group * block // rows_together, position] * lanes,
        order=(first[:, None] + np.arange(block)).reshape(-1),
    )


def feature_offsets(tensor: Geometry) -> Offsets:
    """Position of every element in row-major (channel, row, column) order, int64 (elements,)."""
    c, h, w = np.indices((tensor.channels, tensor.height, tensor.width), dtype=np.int64).reshape(3, -1)
    return c * tensor.plane + tensor.interior + h * tensor.pitch + w


def _row_offsets(kept: KeptLayer, source: Geometry) -> Offsets:
    """Input offset, in positions, that each weight of a row starts from, int64 (groups, fan_in)."""
    layer = kept.shape.layer
    if isinstance(layer, Linear):
        return feature_offsets(source)[None]
    kernel, (stride_h, stride_w) = pair(layer.kernel, 1), pair(layer.stride, 1)
    channels = kept.shape.fan_in // prod(kernel) * layer.groups
    c, row, column = np.indices((channels, *kernel), dtype=np.int64).reshape(3, -1)
    plane = (c * stride_h + row % stride_h) * stride_w + column % stride_w
    pad_h, pad_w = padding_of(layer)  # another reader of the tensor may need more
    start = (source.pad_h - pad_h) * source.pitch + source.pad_w - pad_w
    offsets: Offsets = plane * source.plane + row // stride_h * source.pitch + column // stride_w + start
    return offsets.reshape(layer.groups, -1)
