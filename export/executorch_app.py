"""What an app does with `trainer.pte`, with ExecuTorch's official Python modules: for `hidenseek verify`.

They need torch, so this is for workstations; devices of ours run `train.pte` with `edge_client.runtimes.executorch`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from export.executorch_program import capacity_for
from wire.bundle import Bundle
from wire.errors import RuntimeMissing
from wire.mask import as_multipliers
from wire.settings import Training
from wire.ticket import Ticket

Array: TypeAlias = NDArray[Any]

METHOD = "forward"


class Result(NamedTuple):
    """What a step tells: weighted mean cross-entropy and weighted number of hits."""

    loss: float
    correct: float


class ExecutorchApp:
    """`export.verify.OpenRuntime` on ExecuTorch's `TrainingModule`; the scores are its parameter.

    Args:
        bundle: with `trainer.pte` and `infer.pte`.
        training: optimiser and batch.

    Raises:
        RuntimeMissing: if executorch is not installed.
    """

    name = "executorch-trainer"

    def __init__(self, bundle: Bundle, training: Training) -> None:
        try:
            from executorch.extension.pybindings import portable_lib
            from executorch.extension.training import _load_for_executorch_for_training_from_buffer
        except ImportError as error:
            raise RuntimeMissing(
                f"the package executorch is not installed ({error})",
                where=self.name,
                hint="Install it: pip install --no-deps executorch==1.5.1 && pip install tabulate",
            ) from error
        self._training, self._kept = training, bundle.ticket.kept
        self._files = dict(bundle.files)  # the modules do not hold the bytes that they run
        self._module: Any = _load_for_executorch_for_training_from_buffer(self._files["trainer.pte"])
        self._infer: Any = portable_lib._load_for_executorch_from_buffer(self._files["infer.pte"])
        self._weights = _weights(bundle.ticket)
        self._prior = torch.zeros(bundle.ticket.plan.classes)
        # Parameters can be asked for after the first run only.
        sample = np.zeros((1, *bundle.ticket.plan.input_shape), dtype=np.float32)
        self._run(sample, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.float32))
        self._scores: torch.Tensor = self._module.named_parameters()["scores"]  # shares the module's memory
        self.set_scores(np.full(self._kept, training.start, dtype=np.float32))

    def set_scores(self, scores: Array) -> None:
        """Copy scores in, (kept,), and clear the optimiser's state."""
        self._scores[: self._kept].copy_(torch.from_numpy(scores))
        t = self._training
        self._optimiser: torch.optim.Optimizer = (
            torch.optim.Adam([self._scores], lr=t.learning_rate, betas=(t.beta1, t.beta2), eps=t.epsilon)
            if t.optimiser == "adam"
            else torch.optim.SGD([self._scores], lr=t.learning_rate, momentum=t.beta1)
        )

    def set_log_prior(self, log_prior: Array) -> None:
        """Add log_prior (classes,) to the logits whose loss is trained."""
        self._prior = torch.from_numpy(np.array(log_prior, dtype=np.float32))

    def scores(self) -> Array:
        """A copy of the scores, float32 (kept,)."""
        return self._scores[: self._kept].numpy().copy()

    def step(self, x: Array, y: Array, weights: Array) -> Result:
        """One optimiser step."""
        result, _ = self.gradient(x, y, weights)
        self._scores.grad = self._module.named_gradients()["scores"]
        self._optimiser.step()
        self._scores.clamp_(-self._training.clip, self._training.clip)
        return result

    def gradient(self, x: Array, y: Array, weights: Array) -> tuple[Result, Array]:
        """The gradient of every score, float32 (kept,), as the trainer gives it to its optimisers."""
        loss, correct = self._run(x, y, weights)
        gradient = self._module.named_gradients()["scores"].numpy()[: self._kept].copy()
        return Result(loss=float(loss), correct=float(correct)), gradient

    def logits(self, x: Array) -> Array:
        """Inference with the scores' signs: float32 (n, classes), n at most the batch."""
        multipliers = torch.zeros_like(self._scores)
        multipliers[: self._kept] = torch.from_numpy(as_multipliers(self.scores() >= 0))
        logits: Array = self._infer.forward([multipliers, *self._weights, self._padded(x)])[0].numpy()
        return logits[: len(x)].copy()

    def _run(self, x: Array, y: Array, weights: Array) -> tuple[torch.Tensor, torch.Tensor]:
        batch = map(self._padded, (x, y, weights))
        loss, correct = self._module.forward_backward(METHOD, (*self._weights, self._prior, *batch))[:2]
        return loss, correct

    def _padded(self, values: Array) -> torch.Tensor:
        """(n, ...) with zeros up to the batch."""
        rows = (0, 0) * (values.ndim - 1) + (0, self._training.batch - len(values))
        return F.pad(torch.from_numpy(values), rows)


def _weights(ticket: Ticket) -> tuple[torch.Tensor, torch.Tensor]:
    """Initial weights and their places among all dense weights, both (capacity,); padding is 0 at the place after."""
    initial, places = torch.from_numpy(ticket.initial_weights), torch.from_numpy(ticket.places)
    padding = (0, capacity_for(ticket.kept) - ticket.kept)
    return F.pad(initial, padding), F.pad(places, padding, value=ticket.plan.weights)
