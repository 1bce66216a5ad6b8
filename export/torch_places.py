"""Where in a module something happened: file and line of its author's code, and the module's path."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.fx import Node

OURS = Path(__file__).parent
TORCH = Path(torch.__file__).parent
_FRAME = re.compile(r'File "(.+?)", line (\d+), in ')


def place_of_node(node: Node, module: nn.Module) -> str:
    """`net.py:14, module 'features.2' (SiLU)`: the innermost module, and the innermost `forward` outside torch.

    torch.export remembers the lines of functions named forward only.
    """
    frames = [(Path(file), int(line)) for file, line in _FRAME.findall(node.meta.get("stack_trace") or "")]
    path, cls = (module_stack(node) or [("", type(module).__name__)])[-1]
    return _joined(frames, path, cls.rpartition(".")[2])


def module_stack(node: Node) -> list[tuple[str, str]]:
    """Paths and full class names of the modules a node lies in, outermost first."""
    found = []
    for path, cls in (node.meta.get("nn_module_stack") or {}).values():
        name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
        if not name.startswith("_empty_nn_module_stack"):
            found.append((re.sub(r"@\d+", "", path), name))  # @1: called a second time
    return found


def place_of_failure(error: BaseException, module: nn.Module) -> str:
    """The same for an exception that `forward` was left with."""
    names = {id(part): (name, type(part).__name__) for name, part in module.named_modules()}
    path, cls = names[id(module)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path, cls = names.get(id(frame.f_locals.get("self")), (path, cls))
    frames = [(Path(one.filename), one.lineno or 0) for one in traceback.extract_tb(error.__traceback__)]
    return _joined([frame for frame in frames if frame[0].parent != OURS], path, cls)


def shown(path: Path) -> str:
    """A path as short as it can be: from the current folder, if it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _joined(frames: list[tuple[Path, int]], path: str, cls: str) -> str:
    outside = [frame for frame in frames if TORCH not in frame[0].parents] or frames
    line = f"{shown(outside[-1][0])}:{outside[-1][1]}, " if outside else ""
    return f"{line}module '{path}' ({cls})"
