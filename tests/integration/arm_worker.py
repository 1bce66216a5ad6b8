"""Runs in an ARM system: opens runtimes and does what `arm_remote.Remote` asks of them over stdin and stdout.

Needs what a device has and nothing else: numpy, `wire` and `edge_client`; no torch, no pytest.

    python arm_worker.py

A request is [name, arguments], a reply ["ok", value] or ["error", traceback], each as CBOR after its length in four
bytes. Arrays are {"array": [dtype, shape, bytes]}: not a bit changes on the way.
"""

from __future__ import annotations

import platform
import struct
import sys
import traceback
from hashlib import sha256
from typing import Any, BinaryIO

import numpy as np

from edge_client.kernels import library
from edge_client.readings import peak_memory_kb
from edge_client.runtimes import registry
from wire.bundle import decode_bundle
from wire.safecbor import dump_cbor, load_cbor
from wire.settings import Training


def send(pipe: BinaryIO, message: list[Any]) -> None:
    """Write one message."""
    data = dump_cbor(_packed(message))
    pipe.write(struct.pack("!I", len(data)) + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> list[Any] | None:
    """Read one message; None at the end."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    found: list[Any] = _unpacked(load_cbor(pipe.read(struct.unpack("!I", head)[0])))
    return found


def _packed(value: Any) -> Any:
    match value:
        case np.ndarray():
            return {"array": [value.dtype.str, list(value.shape), value.tobytes()]}
        case list():
            return [_packed(one) for one in value]
    return value


def _unpacked(value: Any) -> Any:
    match value:
        case {"array": [dtype, shape, data]}:
            return np.frombuffer(data, dtype=dtype).reshape(shape)
        case list():
            return [_unpacked(one) for one in value]
    return value


class Worker:
    """One runtime at a time; every method that does not start with _ may be asked for."""

    def _ask(self, name: str, arguments: list[Any]) -> Any:
        if hasattr(type(self), name):
            return getattr(self, name)(*arguments)
        answer = getattr(self._runtime, name)(*arguments)
        match answer:
            case (result, gradient):
                return [result.loss, result.correct, gradient]
            case None | np.ndarray():
                return answer
        return [answer.loss, answer.correct]

    def open(self, bundle: bytes, settings: dict[str, Any], threads: int) -> None:
        """Load a bundle as a device would that has downloaded it."""
        opened = decode_bundle(bundle, expected_id=sha256(bundle).digest())
        self._runtime: Any = registry.open_runtime(opened, Training(**settings), threads=threads)

    def facts(self) -> dict[str, Any]:
        """What and where this process is, and the most memory it has had, KiB (qemu's own included)."""
        return {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "runtimes": registry.available(),
            "kernels": str(library.library_path()),
            "vector_floats": int(library.load().hs_vector_width()),
            "imported": sorted(name for name in sys.modules if "." not in name),
            "peak_kb": peak_memory_kb(),
        }


def main() -> int:
    """Answer until there is nothing more to read."""
    worker, pipe = Worker(), sys.stdout.buffer
    sys.stdout = sys.stderr  # whoever prints does not disturb
    while (request := receive(sys.stdin.buffer)) is not None:
        name, arguments = request
        try:
            send(pipe, ["ok", worker._ask(name, arguments)])
        except Exception:  # noqa: BLE001 - whatever it is, the test shows it
            send(pipe, ["error", traceback.format_exc()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
