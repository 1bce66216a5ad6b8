"""Which runtimes there are, which of them this machine has, and how to open one. Imports none of them by itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from edge_client.runtimes.base import Inference, Runtime
from wire.bundle import Bundle
from wire.errors import UnknownName, did_you_mean
from wire.settings import Training


def open_runtime(bundle: Bundle, training: Training, threads: int = 1) -> Runtime:
    """Load a bundle with the runtime it was made for.

    Raises:
        UnknownName: if this program has no runtime of that name.
        RuntimeMissing: if the runtime's package is not installed here.
        TicketError: if the bundle's files do not load.
    """
    if bundle.runtime not in _RUNTIMES:
        raise UnknownName(
            f"no runtime is called '{bundle.runtime}'", where="bundle", hint=did_you_mean(bundle.runtime, RUNTIMES)
        )
    module, cls, _ = _RUNTIMES[bundle.runtime]
    opened: Runtime = getattr(import_module(module), cls)(bundle, training, threads=threads)
    return opened


def open_inference(bundle: Bundle) -> Inference:
    """Load a bundle for inference only, whatever settings it was or will be trained with.

    Raises:
        UnknownName, RuntimeMissing, TicketError: as `open_runtime`.
    """
    if bundle.runtime == "onnx":  # its training graph fits one optimiser only, and the bundle does not say which
        from edge_client.runtimes.onnx import OnnxInference

        return OnnxInference(bundle)
    if bundle.runtime == "executorch":  # its training program is made for one size of batch
        from edge_client.runtimes.executorch import ExecutorchInference

        return ExecutorchInference(bundle)
    return open_runtime(bundle, Training())


def available() -> list[str]:
    """Names of the runtimes installed on this machine, the preferred one first."""
    return [name for name, (_, _, installed) in _RUNTIMES.items() if installed()]


def _has_kernels() -> bool:
    """True if the compiled kernels of the sparse runtime lie beside it."""
    from edge_client.kernels.library import library_path

    return library_path() is not None


def _has_onnxruntime() -> bool:
    return find_spec("onnxruntime") is not None


def _has_executorch() -> bool:
    """True if the executorch wheel is installed and the shim compiled for it lies there."""
    from edge_client.executorch import library

    return library.shim_path() is not None and library.package_folder() is not None


# name: module, class, is it installed here? In order of preference.
_RUNTIMES: dict[str, tuple[str, str, Callable[[], bool]]] = {
    "sparse": ("edge_client.runtimes.sparse", "SparseRuntime", _has_kernels),
    "onnx": ("edge_client.runtimes.onnx", "OnnxRuntime", _has_onnxruntime),
    "executorch": ("edge_client.runtimes.executorch", "ExecutorchRuntime", _has_executorch),
}
RUNTIMES = list(_RUNTIMES)
INSTALL = {
    "sparse": "python -m edge_client.kernels.build",
    "onnx": "pip install onnxruntime",
    "executorch": "pip install --no-deps executorch==1.5.1 && python -m edge_client.executorch.build",
}
