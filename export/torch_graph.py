"""A plan while it is written from a traced graph: numbered values, branches, and what is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from export.norms import CHANNELS_PER_GROUP
from export.torch_places import place_of_node
from wire.errors import ExportError, PlanError
from wire.layers import NORM_EPSILON, Add, Flatten, Layer, Recall, output_shape

Shape = tuple[int, ...]
PLAIN = "Take nn.Conv1d, nn.Conv2d and nn.Linear as they are, without parametrisations such as weight_norm"
FLATTEN = "x.flatten(1), which gives (n, features), is the one change of shape"


@dataclass(frozen=True)
class Value:
    """What a node of the graph stands for.

    Attributes:
        number: of the plan's value with these elements in this order.
        shape: of one sample as forward sees it; differs from the plan's after a view.
    """

    number: int
    shape: Shape


@dataclass
class Tally:
    """What a plan does not take over from a module."""

    biases: int = 0
    affine: int = 0
    batch_norms: int = 0
    running: int = 0  # instance norms with running statistics
    dropouts: int = 0
    epsilons: Counter[float] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """One line for each kind of it."""
        lines = []
        if self.biases:
            lines.append(f"{_are(self.biases, 'bias', 'biases')} left out: a sign-mask network is its kept weights")
        if self.affine:
            lines.append(
                f"the scales and shifts of {_many(self.affine, 'normalisation')} are left out, for the same reason"
            )
        if self.batch_norms:
            groups = f"group norm{'s' if self.batch_norms > 1 else ''} of {CHANNELS_PER_GROUP} channels a group"
            lines.append(
                f"{_many(self.batch_norms, 'batch norm')} became {groups} (one group where {CHANNELS_PER_GROUP} does "
                "not divide the channels): every sample is normalised by itself, no statistics are kept"
            )
        if self.running:
            lines.append(f"the running statistics of {_many(self.running, 'instance norm')} are left out")
        for epsilon, times in sorted(self.epsilons.items()):
            lines.append(f"{_many(times, 'normalisation')} with eps {epsilon:g} got eps {NORM_EPSILON:g}")
        if self.dropouts:
            lines.append(f"{_are(self.dropouts, 'dropout', 'dropouts')} left out, in training too")
        return lines


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _are(count: int, one: str, more: str) -> str:
    return f"{_many(count, one, more)} {'is' if count == 1 else 'are'}"


class Writer:
    """The layers so far, and what every node stands for.

    Args:
        module: that was traced.
        program: its graph.
        entry: the graph's input.
        input_shape: of one sample.
    """

    def __init__(self, module: nn.Module, program: ExportedProgram, entry: Node, input_shape: Shape) -> None:
        self.module = module
        self.layers: list[Layer] = []
        self.tally = Tally()
        self.known = {entry: Value(0, input_shape)}
        self.batch = str(entry.meta["val"].shape[0])
        self._shapes = [input_shape]
        self._flat: dict[int, int] = {}
        self._parameters = program.graph_signature.inputs_to_parameters
        self._users: dict[int, str] = {}

    @property
    def here(self) -> int:
        """Number of the value made last."""
        return len(self.layers)

    def append(self, layer: Layer) -> int:
        """Add a layer that reads the value made last, as plans do; the number of what it makes.

        Raises:
            PlanError: if it does not fit.
        """
        self._shapes.append(output_shape(layer, self._shapes))
        self.layers.append(layer)
        return self.here

    def go_to(self, number: int) -> None:
        """Make a value the last one."""
        if number != self.here:
            self.append(Recall(source=number))

    def read(self, value: Value) -> int | None:
        """Number of a value in the shape that forward sees; None if the plan cannot have it so."""
        shape = self._shapes[value.number]
        if value.shape == shape:
            return value.number
        if value.shape != (prod(shape),):
            return None
        if value.number not in self._flat:
            self.go_to(value.number)
            self._flat[value.number] = self.append(Flatten())
        return self._flat[value.number]

    def shape(self, number: int) -> Shape:
        """Of a value of the plan, for one sample."""
        return self._shapes[number]

    def parameter(self, node: object, user: str) -> tuple[str, str] | None:
        """Name of the parameter that a node is, and which operator used it first; None for anything else."""
        if not isinstance(node, Node) or node.name not in self._parameters:
            return None
        name = self._parameters[node.name]
        return name, self._users.setdefault(id(self.module.get_parameter(name)), user)


@dataclass(frozen=True)
class Call:
    """One operator of the graph, for a translator: what it is given, what to say if that cannot be."""

    node: Node
    writer: Writer

    @cached_property
    def operator(self) -> str:
        """Its name, e.g. conv2d."""
        target: Any = self.node.target
        name: str = target._schema.name if hasattr(target, "_schema") else target.__name__
        return name.removeprefix("aten::")

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """All arguments by name, defaults filled in."""
        target: Any = self.node.target
        if not hasattr(target, "_schema"):
            return dict(zip("ab", self.node.args, strict=True))  # operator.getitem
        names = [one.name for one in target._schema.arguments]
        given = dict(zip(names, self.node.args, strict=False)) | self.node.kwargs
        return {one.name: given.get(one.name, one.default_value) for one in target._schema.arguments}

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def shape(self) -> Shape:
        """Shape of its output for one sample, as traced.

        Raises:
            ExportError: if the batch is not its first side, or another side depends on the batch.
        """
        value = self.node.meta["val"]
        batch, *sides = (value if isinstance(value, torch.Tensor) else value[0]).shape
        if str(batch) != self.writer.batch or any(type(side) is not int for side in sides):
            made = ", ".join(str(side) for side in (batch, *sides)).replace(self.writer.batch, "n")
            raise self.refuse(f"operator {self.operator} makes ({made}), not one row for each of n samples", FLATTEN)
        return tuple(sides)

    def refuse(self, what: str, hint: str) -> ExportError:
        """An error that says where in the module this is."""
        return ExportError(what, where=place_of_node(self.node, self.writer.module), hint=hint)

    def value(self, node: object) -> Value:
        """What an argument stands for.

        Raises:
            ExportError: if it is a number, a parameter, or anything else not computed from the samples.
        """
        if not isinstance(node, Node) or node not in self.writer.known:
            kind = "a number" if isinstance(node, int | float) else "a tensor that is not computed from the samples"
            raise self.refuse(
                f"operator {self.operator} reads {kind}",
                "Layers read what other layers made; trained or fixed tensors are the weights of Conv and Linear only",
            )
        return self.writer.known[node]

    def read(self, node: object) -> int:
        """Number of the plan's value that an argument stands for, flattened if forward did that.

        Raises:
            ExportError: as `value`, or if it was reshaped to anything else.
        """
        value = self.value(node)
        number = self.writer.read(value)
        if number is None:
            before = self.writer.shape(value.number)
            raise self.refuse(f"operator {self.operator} reads {before} reshaped to {value.shape}", FLATTEN)
        return number

    def weight(self, name: str) -> Shape:
        """Shape of a weight, which is a parameter that nothing else uses.

        Raises:
            ExportError: if it is not.
        """
        node = self[name]
        found = self.writer.parameter(node, self.node.name)
        if found is None:
            raise self.refuse(f"the weight of {self.operator} is no parameter: it is computed, or a buffer", PLAIN)
        parameter, user = found
        if user != self.node.name:
            raise self.refuse(
                f"'{parameter}' is used a second time", "Give every call a layer of its own: weights are not shared"
            )
        return tuple(node.meta["val"].shape)

    def add(self, layer: Layer, number: int) -> Value:
        """Put a layer behind a value of the plan.

        Raises:
            ExportError: if it does not fit, or makes another shape than the traced operator.
        """
        try:
            self.writer.go_to(number)
            made = self.writer.append(layer)
        except PlanError as error:
            raise self.refuse(
                f"operator {self.operator}: {error.what}", "docs/networks.md lists what layers take"
            ) from None
        return Value(made, self.writer.shape(made))

    def sum(self, first: int, second: int) -> Value:
        """Add two values of the plan, whichever was made last."""
        return (
            self.add(Add(source=second), first) if second != self.writer.here else self.add(Add(source=first), second)
        )
