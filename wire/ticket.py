"""The ticket: a pruned random network as a few bytes, read without torch.

    b"HNST"  version u8  body (canonical CBOR)  sha256 of everything before it (32 bytes)

    body = [plan, seed, magnitudes, [[block, keep, scale], ...], made]
    keep = number of kept blocks (the mask is drawn from the seed), or coded bits (`wire.bits`)

The sha256 is the ticket's identity. Everything a runtime needs follows from these bytes: the
initial signs and magnitudes are regenerated from the seed (`wire.prng`).

**Blocks.** A layer's weight is seen as a matrix (out, positions), positions = in x kernel. A block
of B covers B neighbouring rows at one position; all its weights are kept or none. Block masks are
bool (out / B, positions). The *ticket order* of kept weights, used by every mask, score vector and
runtime, is: layers in order; in a layer blocks in row-major order; in a block its B rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wire import bits, prng
from wire.errors import PlanError, TicketError, WireError
from wire.plan import LayerShape, Plan, plan_from_data, plan_to_data
from wire.safecbor import dump_cbor, load_cbor

MAGIC = b"HNST"
VERSION = 1
DIGEST_BYTES = 32
MAX_TICKET_BYTES = 64 << 20
MAX_SCALE = 2.0**64  # of a weight, so that none becomes infinite
MAX_NOTES = 32
MAX_NOTE = 512  # characters
MAGNITUDES = ("constant", "normal")  # |w| = scale, or scale x |N(0, 1)|
Made: TypeAlias = Mapping[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which blocks of one layer are kept, and how large its weights are.

    Attributes:
        block: B, neighbouring output rows that share their kept positions.
        mask: number of kept blocks, drawn from the ticket's seed; or the coded block mask.
        scale: c of |w| = c (constant) or |w| = c x |N(0, 1)| (normal); a float32 value.
    """

    block: int
    mask: int | bytes
    scale: float


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptLayer:
    """One layer of a ticket, unpacked. Arrays are in ticket order.

    Attributes:
        shape: the layer before pruning.
        block: B.
        blocks: flat index of every kept block in (out / B, positions), ascending int32 (kept / B,).
        signs: initial signs, bool (kept,), True for +1.
        magnitudes: |w|, float32 (kept,), or (1,) when all are the same.
        start: offset of the layer's first kept weight in the whole score vector.
    """

    shape: LayerShape
    block: int
    blocks: NDArray[np.int32]
    signs: NDArray[np.bool_]
    magnitudes: NDArray[np.float32]
    start: int

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return int(self.blocks.size) * self.block

    @property
    def slice(self) -> slice:
        """Where the layer's weights lie in the whole score vector."""
        return slice(self.start, self.start + self.kept)

    @property
    def kept_macs(self) -> int:
        """Multiply-adds of one sample's forward pass over kept weights."""
        return self.kept * self.shape.uses_per_weight

    @cached_property
    def indices(self) -> NDArray[np.int32]:
        """Flat index of every kept weight in its (out, in, *kernel) array, int32 (kept,)."""
        group, position = np.divmod(self.blocks, self.shape.fan_in)
        rows = group[:, None] * self.block + np.arange(self.block, dtype=np.int32)
        return (rows * self.shape.fan_in + position[:, None]).astype(np.int32).reshape(-1)

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Initial weights sign x |w|, float32 (kept,)."""
        return np.where(self.signs, self.magnitudes, -self.magnitudes).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A pruned random network: plan, weight seed, what is kept, and each layer's scale.

    Attributes:
        plan: the network before pruning.
        seed: 64-bit seed of the initial weights and of seeded masks.
        magnitudes: "constant" or "normal".
        layers: one `Keep` per weight layer of the plan.
        made: how it was made (method, density, passes), for people; part of the identity.

    Raises:
        TicketError: if the parts do not fit together.
    """

    plan: Plan
    seed: int
    magnitudes: str
    layers: tuple[Keep, ...]
    made: Made = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = self.plan.weight_layers()
        if len(shapes) != len(self.layers):
            raise TicketError(f"plan has {len(shapes)} weight layers, ticket {len(self.layers)}")
        if self.magnitudes not in MAGNITUDES:
            raise TicketError(f"magnitudes '{self.magnitudes}', expected one of {', '.join(MAGNITUDES)}")
        if not 0 <= self.seed < 1 << 64:
            raise TicketError(f"seed {self.seed} is not a 64-bit number")
        if len(self.made) > MAX_NOTES or not all(map(_is_note, self.made, self.made.values())):
            raise TicketError(f"notes are at most {MAX_NOTES} names with a short text or a finite number each")
        for shape, keep in zip(shapes, self.layers, strict=True):
            if keep.block < 1 or shape.out_units % keep.block:
                raise TicketError(f"{shape.name}: {shape.out_units} rows do not divide into blocks of {keep.block}")
            if not (0 < keep.scale <= MAX_SCALE and float(np.float32(keep.scale)) == keep.scale):
                raise TicketError(f"{shape.name}: scale {keep.scale} is not a float32 in 0..2**64")
            blocks = shape.weights // keep.block
            if isinstance(keep.mask, int) and not 0 <= keep.mask <= blocks:
                raise TicketError(f"{shape.name}: {keep.mask} kept of {blocks} blocks")

    @cached_property
    def kept_layers(self) -> tuple[KeptLayer, ...]:
        """Every weight layer unpacked, in order.

        Raises:
            TicketError: if a coded mask does not decode.
        """
        found: list[KeptLayer] = []
        start = 0
        for shape, keep in zip(self.plan.weight_layers(), self.layers, strict=True):
            layer = self._unpack(shape, keep, start)
            found.append(layer)
            start += layer.kept
        return tuple(found)

    @property
    def initial_weights(self) -> NDArray[np.float32]:
        """Initial values of all kept weights, float32 (kept,), in ticket order."""
        return np.concatenate([layer.weights for layer in self.kept_layers])

    @property
    def places(self) -> NDArray[np.int64]:
        """Their places among all dense weight arrays, one after the other in layer order, int64 (kept,)."""
        starts = np.cumsum([0, *(layer.shape.weights for layer in self.kept_layers)])
        return np.concatenate([layer.indices + start for layer, start in zip(self.kept_layers, starts, strict=False)])

    def _unpack(self, shape: LayerShape, keep: Keep, start: int) -> KeptLayer:
        total = shape.weights // keep.block
        if isinstance(keep.mask, int):
            blocks = prng.choose(self.seed, prng.STREAM_KEEP, shape.index, total, keep.mask)
        else:
            try:
                blocks = np.flatnonzero(bits.decode(keep.mask, total))
            except WireError as error:
                raise TicketError(f"{shape.name}: keep mask does not decode ({error})") from error
        layer = KeptLayer(
            shape=shape,
            block=keep.block,
            blocks=blocks.astype(np.int32),
            signs=np.empty(0, dtype=np.bool_),
            magnitudes=np.array([keep.scale], dtype=np.float32),
            start=start,
        )
        signs = prng.signs(self.seed, shape.index, shape.weights)[layer.indices]
        magnitudes = layer.magnitudes
        if self.magnitudes == "normal":
            normal = prng.normals(self.seed, shape.index, shape.weights, at=layer.indices)
            magnitudes = (keep.scale * normal).astype(np.float32)
        return KeptLayer(
            shape=shape, block=keep.block, blocks=layer.blocks, signs=signs, magnitudes=magnitudes, start=start
        )

    @cached_property
    def kept(self) -> int:
        """Kept weights of the whole network: the length of every mask and score vector."""
        return sum(layer.kept for layer in self.kept_layers)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where each layer ends among the kept weights, int64 (weight layers,)."""
        return np.cumsum([layer.kept for layer in self.kept_layers], dtype=np.int64)

    @property
    def density(self) -> float:
        """Kept share of the weights."""
        return self.kept / self.plan.weights

    @property
    def mac_density(self) -> float:
        """Kept share of one forward pass's multiply-adds; often far from `density`."""
        return sum(layer.kept_macs for layer in self.kept_layers) / sum(s.macs for s in self.plan.weight_layers())

    @cached_property
    def encoded(self) -> bytes:
        """The ticket file."""
        body = [
            plan_to_data(self.plan),
            self.seed,
            self.magnitudes,
            [[keep.block, keep.mask, keep.scale] for keep in self.layers],
            dict(self.made),
        ]
        head = MAGIC + bytes([VERSION]) + dump_cbor(body)
        return head + sha256(head).digest()

    @property
    def id(self) -> bytes:
        """SHA-256 of the ticket, 32 bytes: its last bytes."""
        return self.encoded[-DIGEST_BYTES:]


def decode_ticket(data: bytes, *, where: str = "ticket") -> Ticket:
    """Read a ticket from its bytes.

    Raises:
        TicketError: if they are truncated, altered, of another version, or do not fit together.
    """
    if data[:4] != MAGIC:
        raise TicketError(f"starts with {data[:4]!r}, a ticket starts with {MAGIC!r}", where=where, hint=_AGAIN)
    if len(data) > MAX_TICKET_BYTES:
        raise TicketError(f"{len(data)} bytes, at most {MAX_TICKET_BYTES} accepted", where=where)
    head, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(head) < 5 or sha256(head).digest() != digest:
        raise TicketError(
            f"corrupt or truncated: the SHA-256 of its {len(data)} bytes is wrong", where=where, hint=_AGAIN
        )
    if head[4] != VERSION:
        raise TicketError(f"version {head[4]}, this program reads version {VERSION}", where=where)
    try:
        ticket = _ticket_from_data(load_cbor(head[5:]))
        if ticket.encoded != data:
            raise TicketError("not in canonical form")
        _ = ticket.kept_layers
    except (WireError, PlanError, TicketError) as error:
        raise TicketError(error.what, where=where, hint=_AGAIN) from error
    return ticket


def read_ticket(path: Path) -> Ticket:
    """Read a ticket file.

    Raises:
        TicketError: if it is missing, unreadable, corrupt or of another version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TicketError(
            f"cannot be read ({error.strerror})", where=str(path), hint="Make one: hidenseek prune --help"
        ) from error
    return decode_ticket(data, where=str(path))


_AGAIN = "Copy it again from where it was made, or make it again: the same options give the same bytes"


def _ticket_from_data(data: object) -> Ticket:
    match data:
        case [plan, int() as seed, str() as magnitudes, list() as layers, dict() as made] if type(seed) is int:
            return Ticket(
                plan=plan_from_data(plan),
                seed=seed,
                magnitudes=magnitudes,
                layers=tuple(map(_keep_from_data, layers)),
                made=made,
            )
    raise WireError("a ticket body is [plan, seed, magnitudes, layers, made]")


def _keep_from_data(data: object) -> Keep:
    match data:
        case [int() as block, int() | bytes() as mask, float() as scale] if bool not in (type(block), type(mask)):
            return Keep(block=block, mask=mask, scale=scale)
    raise WireError("a ticket layer is [block, keep, scale]")


def _is_note(name: object, value: object) -> bool:
    """Tell whether a note can be written and read again: a short text, a 64-bit whole number or a finite one."""
    if not isinstance(name, str) or len(name) > MAX_NOTE:
        return False
    match value:
        case bool():
            return False
        case int():
            return abs(value) < 1 << 63
        case float():
            return math.isfinite(value)
        case str():
            return len(value) <= MAX_NOTE
    return False
