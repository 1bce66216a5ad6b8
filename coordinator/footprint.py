"""Memory of a device's process: Python and all that it imports, and what a runtime takes beside its tensors.

Fits to the largest resident memory (VmHWM) of fresh processes that load what `hidenseek-edge join` loads, train and
try the network, for every network here on x86-64 (benchmarks/planner.py); on ARM tried under qemu-user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.hardware import Profile, Runtime
from export.work import Counted
from wire.plan import Plan

EVALUATION_BATCH = 64  # samples that a device tries at once (edge_client.trainer)
TICKET_BYTES = 8  # of a kept weight: the unpacked ticket
MASK_BYTES = 0.75  # of a weight of the largest layer: its mask, decoded
# Bytes of a process with the runtime loaded and no network, on x86-64.
PROCESS: Mapping[Runtime, float] = {"sparse": 41.9e6, "onnx": 73.7e6, "executorch": 48.1e6}
# What it takes more on other processors: of three networks' processes in the arm64 root, emulated, less those here.
ELSEWHERE: Mapping[str, Mapping[Runtime, float]] = {"aarch64": {"sparse": 0.4e6, "onnx": -0.8e6, "executorch": -1.2e6}}


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a runtime takes beside its tensors.

    Attributes:
        kept: bytes of a kept weight.
        call: bytes of an operation of the graph.
    """

    kept: float
    call: float


SHARES = {
    "onnx": Share(kept=64, call=5_900),
    "executorch": Share(kept=45, call=1_200),
}


def process(plan: Plan, runtime: Runtime, profile: Profile | None) -> float:
    """Bytes of a process without the runtime's tensors; in a phone's app, which has its own, 0."""
    if profile is not None and profile.system != "linux":
        return 0
    given = profile.process_mb.get(runtime) if profile else None
    machine = (profile.machine if profile else None) or ""
    base = PROCESS[runtime] + ELSEWHERE.get(machine, {}).get(runtime, 0) if given is None else given * 1e6
    return base + MASK_BYTES * max(shape.weights for shape in plan.weight_layers())


def peak(counted: Counted, kept: int, runtime: Runtime) -> float:
    """Bytes that a graph adds to its process when it is trained and tried, for a ticket of so many kept weights."""
    share, calls = SHARES[runtime], sum(work.calls for work in counted.work.values())
    # onnxruntime's two graphs have one arena; ExecuTorch's two programs are never freed.
    both = max if runtime == "onnx" else sum
    alive = both((counted.alive, counted.infer_alive))
    return alive + counted.held + share.kept * kept + share.call * calls
