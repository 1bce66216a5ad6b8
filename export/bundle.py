"""Ticket + artifacts for one runtime -> the bundle a device downloads."""

from __future__ import annotations

from wire.bundle import Bundle
from wire.errors import UnknownName, did_you_mean
from wire.settings import Training
from wire.ticket import Ticket

RUNTIMES = ("sparse", "onnx")


def make_bundle(ticket: Ticket, runtime: str, training: Training) -> Bundle:
    """Make a ticket's bundle for one runtime.

    Args:
        ticket: the network.
        runtime: one of `RUNTIMES`.
        training: its optimiser is built into the graphs; all other settings stay free.

    Raises:
        UnknownName: if no runtime has this name.
        ExportError: if the runtime cannot express the plan.
    """
    match runtime:
        case "sparse":
            return Bundle(runtime=runtime, ticket=ticket)  # its kernels read the ticket itself
        case "onnx":
            from export.onnx_graph import inference_graph, training_graph

            files = {"train.onnx": training_graph(ticket, training), "infer.onnx": inference_graph(ticket)}
            return Bundle(runtime=runtime, ticket=ticket, files=files)
    raise UnknownName(f"no runtime is called '{runtime}'", hint=did_you_mean(runtime, list(RUNTIMES)))
