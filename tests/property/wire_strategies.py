"""Hypothesis strategies for everything the wire carries, shared by the property tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from math import gcd
from typing import Any, get_type_hints

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from tests.graph_plans import graph_plans
from wire import bits, messages
from wire.errors import PlanError
from wire.fields import MAX_INT, kind_of
from wire.layers import AvgPool, Conv, Flatten, Layer, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.settings import Training
from wire.telemetry import RoundTelemetry
from wire.ticket import Keep, Ticket

QUICK = settings(max_examples=20, deadline=None)  # no deadline: machines under test are busy
NAMES = st.text("abcXYZ019_-", min_size=1, max_size=20)


def bit_arrays(max_size: int = 600) -> st.SearchStrategy[np.ndarray]:
    """Bool arrays of every density, from nearly empty to nearly full."""
    return st.builds(
        lambda n, density, seed: np.random.default_rng(seed).random(n) < density,
        st.integers(0, max_size),
        st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.2, 0.3, 0.5, 0.8, 0.99, 1.0]),
        st.integers(0, 2**32),
    )


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with a few bytes changed, cut out or put in."""

    def change(edits: list[tuple[int, str, bytes]]) -> bytes:
        out = bytearray(data)
        for where, how, extra in edits:
            at = where % (len(out) + 1)
            if how == "cut":
                del out[at : at + len(extra)]
            elif how == "insert":
                out[at:at] = extra
            else:
                out[at : at + len(extra)] = extra
        return bytes(out)

    edit = st.tuples(
        st.integers(0, 1 << 20), st.sampled_from(["set", "cut", "insert"]), st.binary(min_size=1, max_size=4)
    )
    return st.lists(edit, min_size=1, max_size=4).map(change)


def plans() -> st.SearchStrategy[Plan]:
    """Small networks of every kind of layer that fit together: in a row, and graphs."""
    return _rows() | graph_plans()


@st.composite
def _rows(draw: st.DrawFn) -> Plan:
    """Layers that read the one before, in any geometry."""
    sides = draw(st.integers(0, 2))
    shape = (draw(st.integers(1, 4)), *(draw(st.integers(3, 9)) for _ in range(sides)))
    layers: list[Layer] = []
    for _ in range(draw(st.integers(0, 3)) if sides else 0):
        kernel = tuple(draw(st.integers(1, 3)) for _ in range(sides))
        stride = tuple(draw(st.integers(1, 2)) for _ in range(sides))
        kind = draw(st.sampled_from(["conv", "relu", "max", "avg"]))
        if kind == "conv":
            padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
            layers.append(Conv(out_channels=draw(st.integers(1, 8)), kernel=kernel, stride=stride, padding=padding))
        elif kind == "relu":
            layers.append(Relu())
        else:
            layers.append((MaxPool if kind == "max" else AvgPool)(kernel=kernel, stride=stride))
    if sides:
        layers.append(Flatten())
    layers.append(Linear(out_features=draw(st.integers(1, 12))))
    try:
        return Plan(name=draw(NAMES), input_shape=shape, layers=tuple(layers))
    except PlanError:  # windows outgrew what was left of the input
        return Plan(name="fallback", input_shape=(3,), layers=(Linear(out_features=4),))


@st.composite
def tickets(draw: st.DrawFn) -> Ticket:
    """Tickets of small plans, with seeded and with explicit masks."""
    plan = draw(plans())
    layers = []
    for shape in plan.weight_layers():
        block = gcd(shape.out_units, draw(st.sampled_from([1, 2, 4])))
        blocks = shape.weights // block
        mask: int | bytes = draw(st.integers(0, blocks))
        if draw(st.booleans()):
            chosen = np.random.default_rng(draw(st.integers(0, 2**32))).random(blocks) < 0.3
            mask = bits.encode(chosen)
        layers.append(Keep(block=block, mask=mask, scale=draw(st.floats(2**-20, 2**20, width=32))))
    notes = st.dictionaries(
        NAMES,
        st.text(max_size=8) | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
        max_size=3,
    )
    return Ticket(
        plan=plan,
        seed=draw(st.integers(0, 2**64 - 1)),
        magnitudes=draw(st.sampled_from(["constant", "normal"])),
        layers=tuple(layers),
        made=draw(notes),
    )


def _positive() -> st.SearchStrategy[float]:
    return st.floats(1e-12, 1e6)


def trainings() -> st.SearchStrategy[Training]:
    """Settings of local training, in range."""
    return st.builds(
        Training,
        optimiser=st.sampled_from(["adam", "sgd"]),
        learning_rate=_positive(),
        beta1=st.floats(0, 1, exclude_max=True),
        beta2=st.floats(0, 1, exclude_max=True),
        epsilon=_positive(),
        clip=_positive(),
        start=_positive(),
        epochs=st.integers(1, 1000),
        batch=st.integers(1, 4096),
    )


_FIELD: dict[Any, Callable[[int | None], st.SearchStrategy[Any]]] = {
    int: lambda size: st.integers(0, MAX_INT),
    float: lambda size: st.floats(allow_nan=False, allow_infinity=False),
    bool: lambda size: st.booleans(),
    str: lambda size: st.text(max_size=20),
    bytes: lambda size: st.binary(min_size=size or 0, max_size=20 if size is None else size),
    tuple[str, ...]: lambda size: st.lists(NAMES, max_size=5).map(tuple),
    tuple[int, ...]: lambda size: st.lists(st.integers(0, MAX_INT), max_size=6).map(tuple),
    tuple[bytes, ...]: lambda size: st.lists(st.binary(max_size=20), max_size=5).map(tuple),
    tuple[RoundTelemetry, ...]: lambda size: st.lists(records(RoundTelemetry), max_size=3).map(tuple),
    Mapping[str, bytes]: lambda size: st.dictionaries(NAMES, st.binary(min_size=32, max_size=32), max_size=4),
    Training: lambda size: trainings(),
}


def records(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Records of one class, every field anything it may be, or left out if it may be."""
    hints = get_type_hints(cls)

    def values(item: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
        found = _FIELD[kind_of(hints[item.name])](item.metadata["size"])
        return found | st.just(item.default) if item.metadata["optional"] else found

    return st.builds(cls, **{item.name: values(item) for item in dataclasses.fields(cls)})


def messages_of(cls: type[messages.Message]) -> st.SearchStrategy[messages.Message]:
    """Messages of one kind, every field anything it may be."""
    return records(cls)


ANY_MESSAGE = st.sampled_from(sorted(messages.KINDS)).flatmap(lambda kind: messages_of(messages.KINDS[kind]))

# CBOR-like data as strangers might send it: all plain kinds, and sizes and types out of place.
ODD_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(-2, 30) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=5,
)
