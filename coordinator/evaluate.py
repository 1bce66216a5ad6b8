"""Accuracy of the global network on samples the coordinator itself holds, with the ticket's inference graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.errors import DataError
from wire.plan import Plan
from wire.ticket import Ticket

BATCH = 256


@dataclass
class Evaluator:
    """Held-out samples of people or places that never train.

    Args:
        ticket: the network.
        x: samples, float32 (n, *input_shape).
        y: labels, int64 (n,).

    Raises:
        DataError: if the samples do not fit the network.
    """

    ticket: Ticket
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    _session: Any = field(init=False)

    def __post_init__(self) -> None:
        _check(self.ticket.plan, self.x, self.y)
        import onnxruntime as ort

        from export.onnx_graph import inference_graph

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(inference_graph(self.ticket), options, providers=["CPUExecutionProvider"])

    def count_correct(self, multipliers: NDArray[np.float32]) -> int:
        """Count the samples whose largest logit is their label; weights are multipliers (kept,) x initial weights."""
        correct = 0
        for at in range(0, self.y.size, BATCH):
            (logits,) = self._session.run(["logits"], {"x": self.x[at : at + BATCH], "multipliers": multipliers})
            correct += int(np.count_nonzero(logits.argmax(axis=1) == self.y[at : at + BATCH]))
        return correct


def _check(plan: Plan, x: NDArray[np.float32], y: NDArray[np.int64]) -> None:
    if x.shape[1:] != plan.input_shape or y.shape != x.shape[:1] or not y.size:
        raise DataError(
            f"held-out samples have shapes {x.shape} and {y.shape}, the network takes {plan.input_shape}",
            where="--unseen",
        )
    if int(y.min()) < 0 or int(y.max()) >= plan.classes:
        raise DataError(
            f"held-out labels {int(y.min())}..{int(y.max())}, 0..{plan.classes - 1} expected", where="--unseen"
        )
