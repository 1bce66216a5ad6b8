"""A plan from any `nn.Module` whose operators a plan has: what `--from` does.

torch.export traces `forward` in evaluation mode with a batch of any size and puts in-place operators in their plain
form; every operator keeps its name. The graph is written down in the order in which it runs: where an operator does
not read the value just made, a `Recall` comes before it (`export.torch_operators` has the operators one by one).

A sign-mask network is its kept weights, so biases and affine weights are left out, and a batch normalisation becomes
a group normalisation (`export.norms` says why): the notes tell what became of what. What no plan can say is refused
with the module's path, the operator, the line of its `forward`, and the nearest form that there is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from math import prod

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from export.torch_graph import Call, Writer
from export.torch_operators import translate
from export.torch_places import place_of_failure
from wire.errors import ExportError
from wire.plan import MAX_ACTIVATIONS, Plan

Shape = tuple[int, ...]
EXAMPLES = 2  # samples that forward is traced with; the batch stays open


def plan_from_module(module: nn.Module, input_shape: Shape, name: str) -> tuple[Plan, list[str]]:
    """Turn a module into a plan.

    Args:
        module: its `forward` takes samples (n, *input_shape) and returns logits (n, classes); left as it was.
        input_shape: of one sample: (channels, height, width), (channels, length) or (features,).
        name: of the plan.

    Returns:
        the plan, and notes for people: what of the module is not in it, one line for each kind.

    Raises:
        ExportError: if torch.export cannot trace the module, or an operator has no form in a plan; it names the
            module's path, the operator, file and line, and the nearest supported form.
        PlanError: if there are too many layers or weights.
    """
    if not 1 <= len(input_shape) <= 3 or min(input_shape) < 1 or prod(input_shape) > MAX_ACTIVATIONS:
        raise ExportError(
            f"samples of shape {input_shape} found", hint="One sample has 1 to 3 sides, e.g. 3x32x32 without the batch"
        )
    program = _trace(module, input_shape)
    (entry,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    writer = Writer(module, program, entry, input_shape)
    result = _result(program, module)
    for node in _live(program, result):
        if node.op == "call_function" and _makes_tensors(node):
            writer.known[node] = translate(Call(node, writer))
    end = Call(result, writer)
    if result not in writer.known:
        raise end.refuse("what forward returns does not depend on its samples", "Return logits of them")
    shape = writer.known[result].shape
    if len(shape) != 1 or shape[0] < 2:
        raise end.refuse(
            f"forward returns shape {shape} for one sample", "Return logits (n, classes) of 2 classes or more"
        )
    end.read(result)
    plan = Plan(name=name, input_shape=input_shape, layers=tuple(writer.layers))
    dropouts = [part for part in module.modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    writer.tally.dropouts += sum(part.p > 0 for part in dropouts)
    return plan, writer.tally.notes()


def _trace(module: nn.Module, input_shape: Shape) -> ExportedProgram:
    """The module's graph, in plain operators."""
    first = next((one for one in module.parameters() if one.is_floating_point()), torch.zeros(()))
    example = torch.zeros(EXAMPLES, *input_shape, dtype=first.dtype, device=first.device)
    with _evaluating(module), _silence():
        try:
            exported = torch.export.export(module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
            plain: ExportedProgram = exported.run_decompositions({})  # only in-place operators, into plain ones
        except Exception as error:  # forward is anyone's code
            raise _failed(error, module, input_shape) from error
    for sizes in plain.range_constraints.values():
        if sizes.lower > EXAMPLES or str(sizes.upper) != "int_oo":
            raise ExportError(
                f"forward does something else for batches of other sizes than {sizes.lower}..{sizes.upper}",
                where=f"module '' ({type(module).__name__})",
                hint="Do the same for every batch: no ifs over x.shape[0]",
            )
    return plain


def _failed(error: Exception, module: nn.Module, input_shape: Shape) -> ExportError:
    """Why torch.export gave up, in one line."""
    message = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    kind = type(error).__name__
    hint = f"forward(x) must run on samples (n, {', '.join(map(str, input_shape))}) and be traceable by torch.export"
    if "DataDependent" in kind or "data-dependent" in message:
        hint = "What forward does must not depend on the values of tensors: take ifs and loops over them out of it"
    return ExportError(f"torch.export failed: {kind}: {message}", where=place_of_failure(error, module), hint=hint)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; every part is left in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _silence() -> Iterator[None]:
    """Without torch's own warnings and logs: one error says it all."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):  # torch.export prints the graph of a failure
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _result(program: ExportedProgram, module: nn.Module) -> Node:
    """The one tensor that forward returns."""
    output = program.graph.output_node()
    specs = program.graph_signature.output_specs
    found = [value for value, spec in zip(output.args[0], specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    if len(found) != 1 or not isinstance(found[0], Node):
        raise ExportError(
            f"forward returns {len(found)} values, one tensor expected",
            where=f"module '' ({type(module).__name__})",
            hint="Return only the logits; wrap the module in one whose forward does",
        )
    return found[0]


def _live(program: ExportedProgram, result: Node) -> list[Node]:
    """The nodes that the result depends on, in order."""
    needed = {result}
    for node in reversed(list(program.graph.nodes)):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in program.graph.nodes if node in needed]


def _makes_tensors(node: Node) -> bool:
    """Whether it makes tensors, and not a size."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor | tuple | list)
