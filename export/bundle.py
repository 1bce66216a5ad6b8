"""Ticket + artifacts for one runtime -> the bundle a device downloads."""

from __future__ import annotations

from wire.bundle import Bundle
from wire.errors import UnknownName, did_you_mean
from wire.settings import Training
from wire.ticket import Ticket

RUNTIMES = ("sparse", "onnx")  # for which every coordinator can make bundles, and does unless told otherwise
OPTIONAL_RUNTIMES = ("executorch",)  # needs a package more, so a federation has to ask for it by name
APP_TARGETS = ("executorch-trainer",)  # for apps with a trainer of their own; none of our devices runs it
TARGETS = (*RUNTIMES, *OPTIONAL_RUNTIMES, *APP_TARGETS)


def make_bundle(ticket: Ticket, runtime: str, training: Training) -> Bundle:
    """Make a ticket's bundle for one runtime.

    Args:
        ticket: the network.
        runtime: one of `TARGETS`.
        training: its optimiser is built into ONNX graphs, its batch into ExecuTorch programs; all else stays free.

    Raises:
        UnknownName: if no runtime has this name.
        ExportError: if the runtime cannot express the plan, or the package that it is made with is not installed.
    """
    match runtime:
        case "sparse":
            return Bundle(runtime=runtime, ticket=ticket)  # its kernels read the ticket itself
        case "onnx":
            from export.onnx_graph import inference_graph, training_graph

            files = {"train.onnx": training_graph(ticket, training), "infer.onnx": inference_graph(ticket)}
            return Bundle(runtime=runtime, ticket=ticket, files=files)
        case "executorch" | "executorch-trainer":
            from export.executorch_program import capacity_for, inference_program, training_program
            from export.executorch_trainer import trainer_program

            sizes = (ticket.plan, capacity_for(ticket.kept), training.batch)
            files = {"infer.pte": inference_program(*sizes)}
            if runtime == "executorch":
                files = {"train.pte": training_program(*sizes), **files}
            else:
                files = {"trainer.pte": trainer_program(*sizes), **files}
            return Bundle(runtime=runtime, ticket=ticket, files=files)
    raise UnknownName(f"no runtime is called '{runtime}'", hint=did_you_mean(runtime, list(TARGETS)))


def planned_bytes(bundle: Bundle) -> int | None:
    """Memory that a training step's activations take, where the artifact says so; None where only a device knows.

    Raises:
        ExportError: if the package that can read the artifact is not installed.
    """
    program = bundle.files.get("train.pte") or bundle.files.get("trainer.pte")
    if program is None:
        return None
    from export.executorch_program import planned_bytes

    return planned_bytes(program)
