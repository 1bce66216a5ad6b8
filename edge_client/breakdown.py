"""Where a step's time goes: some more steps with the runtime's own clocks on, by layer or by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_client.runtimes.base import Doubles, Floats, Labels, LayerClock, OperatorClock, Runtime
from edge_client.runtimes.registry import open_runtime
from wire.bundle import Bundle
from wire.errors import NotEnoughMemory
from wire.layers import KIND_OF
from wire.profile_report import LayerTime, OperatorTime
from wire.schedule import lanes_for
from wire.settings import Training

Batch = tuple[Floats, Labels, Floats]  # samples (n, *input_shape), labels (n,), weights of the samples (n,)
TIMED_SHARE = 0.2  # of the time that a profile takes
FEWEST_TIMED, MOST_TIMED = 5, 200


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Of one bundle; see `edge_client.profiler.Profiler`."""

    bundle: Bundle
    training: Training
    threads: int
    tell: Callable[[str], None]

    @property
    def flop(self) -> int:
        """Floating-point operations of a step."""
        return sum(layer.forward_flop + layer.backward_flop for layer in self.times(None, 1))

    def layers(self, runtime: Runtime, batches: Sequence[Batch], count: int) -> tuple[LayerTime, ...]:
        """Some more steps with the clocks of the layers on; none if the runtime has none.

        Args:
            runtime: opened.
            batches: to take in turn.
            count: of the steps that were run without clocks.
        """
        if not isinstance(runtime, LayerClock):
            return ()
        count = _timed(count)
        self.tell(f"{count:,} steps, timed by layer")
        runtime.reset_layer_clock()
        runtime.clock_layers(on=True)
        for number in range(count):
            runtime.step(*batches[number % len(batches)])
        runtime.clock_layers(on=False)
        return tuple(self.times(runtime.layer_seconds(), count))

    def operators(self, runtime: Runtime, batches: Sequence[Batch], count: int) -> tuple[OperatorTime, ...]:
        """The same by operator, in a runtime opened once more for it; none if it cannot, or memory is too short."""
        if not isinstance(runtime, OperatorClock):
            return ()
        count = _timed(count)
        self.tell(f"{count:,} steps, timed by operator")
        try:
            timed = open_runtime(self.bundle, self.training, self.threads, timed=True)
        except NotEnoughMemory as error:
            self.tell(f"operators are not timed: {error}")
            return ()
        assert isinstance(timed, OperatorClock)
        for number in range(count):
            timed.step(*batches[number % len(batches)])
        return tuple(
            OperatorTime(
                name=one.name,
                kind=one.kind,
                us=round(one.seconds / count * 1e6, 3),
                calls=round(one.calls / count, 3),
            )
            for one in timed.operators()
        )

    def times(self, seconds: tuple[Doubles, Doubles] | None, steps: int) -> list[LayerTime]:
        """All layers of the plan; with seconds (forward, backward) of `steps` steps those of one, and what they do."""
        plan, batch = self.bundle.ticket.plan, self.training.batch
        share = 1.0
        if seconds is not None:  # the first thread takes every so-many-th micro-batch
            parts = -(-batch // lanes_for(batch))
            share = -(-parts // min(self.threads, parts)) / parts
        forward, backward = (one / steps * 1e6 for one in seconds or (np.zeros(len(plan.layers)),) * 2)
        kept = {layer.shape.position: layer for layer in self.bundle.ticket.kept_layers}
        learns, sources = plan.learns(), plan.sources()
        found = []
        for position, layer in enumerate(plan.layers):
            once = round(2 * kept[position].kept_macs * batch * share) if position in kept else 0
            walks = 1 + any(learns[source] for source in sources[position])  # weights; and inputs that learn
            found.append(
                LayerTime(
                    name=kept[position].shape.name if position in kept else KIND_OF[type(layer)],
                    forward_us=round(float(forward[position]), 3),
                    backward_us=round(float(backward[position]), 3),
                    forward_flop=once,
                    backward_flop=walks * once,
                )
            )
        return found


def _timed(count: int) -> int:
    """Steps with clocks on, for so many without."""
    return min(max(round(count * TIMED_SHARE), FEWEST_TIMED), MOST_TIMED)
