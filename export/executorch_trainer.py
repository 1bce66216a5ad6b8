"""A plan as a program for ExecuTorch's own trainer, for apps that use `TrainingModule` and its optimisers.

    trainer.pte   parameter   scores (capacity,), which the app sets, reads and hands to an optimiser
                  in          initial (capacity,), indices int64 (capacity,), log_prior (classes,),
                              x (batch, *input_shape), y int64 (batch,), weight (batch,)
                  out         loss (), correct (1,); then the gradient and the scores, which the trainer keeps

Inputs are those of `export.executorch_program`, and so are the numbers: its hand-written gradient becomes that of

    loss + sum((scores - scores) x gradient)

whose derivative by the first `scores` is exactly it, so autograd meets none of the operators that ExecuTorch 1.5.1 gets
wrong or lacks. Like the others the file is followed by its SHA-256.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.executorch_program import TrainingStep, lower, training_inputs
from wire.plan import Plan


def trainer_program(plan: Plan, capacity: int, batch: int) -> bytes:
    """Return trainer.pte of a plan; arguments and errors as `export.executorch_program.training_program`."""
    scores, *inputs = training_inputs(plan, capacity, batch)
    return lower(_Trainer(plan, scores), tuple(inputs), backward=True)


class _Trainer(nn.Module):
    """A loss whose gradient by the parameter `scores` is the straight-through one."""

    def __init__(self, plan: Plan, scores: Tensor) -> None:
        super().__init__()
        self._step = TrainingStep(plan)
        self.scores = nn.Parameter(scores)

    def forward(
        self, initial: Tensor, indices: Tensor, log_prior: Tensor, x: Tensor, y: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        fixed = self.scores.detach()
        loss, correct, gradient = self._step(fixed, initial, indices, log_prior, x, y, weight)
        zero = ((self.scores - fixed) * gradient.detach()).sum()
        return torch.squeeze(loss.detach(), 0) + zero, correct.detach()
