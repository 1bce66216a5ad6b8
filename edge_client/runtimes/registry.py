"""Which runtimes there are, which of them this machine has, and how to open one. Imports none of them by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from wire.errors import RuntimeMissing, UnknownName, did_you_mean
from wire.settings import Training

if TYPE_CHECKING:  # with numpy, which naming a runtime does without
    from edge_client.runtimes.base import Inference, Runtime
    from wire.bundle import Bundle

log = logging.getLogger("hidenseek.edge")


def open_runtime(bundle: Bundle, training: Training, threads: int = 1, *, timed: bool = False) -> Runtime:
    """Load a bundle with the runtime it was made for.

    Args:
        bundle: the ticket and its artifacts.
        training: optimiser and batch.
        threads: processor cores to use.
        timed: let an onnx or executorch runtime time its operators, which slows it down (`OperatorClock`).

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
    options = {"timed": True} if timed else {}
    opened: Runtime = getattr(import_module(module), cls)(bundle, training, threads=threads, **options)
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


def pick(name: str | None) -> str:
    """The named runtime, or the best one installed.

    Raises:
        UnknownName: if there is no runtime of that name.
        RuntimeMissing: if it, or any at all, is not installed.
    """
    if name is not None and name not in RUNTIMES:
        raise UnknownName(f"no runtime is called '{name}'", where="--runtime", hint=did_you_mean(name, RUNTIMES))
    # No further than the first that there is: looking for executorch loads numpy.
    found = next((one for one in ([name] if name else RUNTIMES) if _RUNTIMES[one][2]()), None)
    if found is None:
        raise RuntimeMissing(
            f"the runtime '{name}' is not installed" if name else "no runtime is installed",
            hint=f"Install it: {INSTALL.get(name or 'onnx')}",
        )
    if name is None and found != RUNTIMES[0]:
        log.warning(
            "the sparse kernels are not built here: training with the %s runtime, which is slower "
            "(to get them, install gcc, then: pip install --force-reinstall --no-cache-dir hidenseek)",
            found,
        )
    return found


def version_of(runtime: str) -> str:
    """Version of an installed runtime's package; the name of the kernels' build for those of our own."""
    if runtime == "sparse":
        from edge_client.kernels.library import library_path

        path = library_path()
        return path.stem if path is not None else ""
    from importlib.metadata import PackageNotFoundError, version  # with all of email: 1.5 MB

    try:
        return version({"onnx": "onnxruntime"}.get(runtime, runtime))
    except PackageNotFoundError:
        return ""


def _has_kernels() -> bool:
    """True if the compiled kernels of the sparse runtime lie beside it."""
    from edge_client.kernels.library import library_path

    return library_path() is not None


def _has_onnxruntime() -> bool:
    return find_spec("onnxruntime") is not None


def _has_executorch() -> bool:
    """True if the executorch wheel is installed and the shim compiled for it lies there."""
    if find_spec("executorch") is None:  # and nothing is loaded to find that out
        return False
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
