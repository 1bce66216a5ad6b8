"""Importing a module only when it is first used: memory is what a small board has least of."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def load_later(name: str) -> None:
    """Make `import name` cost nothing until an attribute of the module is asked for.

    importlib.util.LazyLoader is meant for this, but the import statement itself asks for `__spec__`
    and so loads the module at once (Python 3.11).
    """
    if name in sys.modules:
        return
    stand_in = ModuleType(name)
    parent, _, child = name.rpartition(".")

    def load(attribute: str) -> object:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stand_in.__getattr__ = load  # type: ignore[method-assign]  # PEP 562
    sys.modules[name] = stand_in
    if parent:
        setattr(importlib.import_module(parent), child, stand_in)


def load_dataclasses_alone() -> None:
    """Import `dataclasses` without `inspect`, which brings the parser and the disassembler along: 1.1 MB.

    It asks inspect for a class's annotations, as they are, and for a signature to describe classes with that have no
    docstring: of all of them, where Python strips docstrings. Everybody else gets the real inspect.
    """
    if "dataclasses" in sys.modules or "inspect" in sys.modules:
        return
    stand_in = ModuleType("inspect")
    vars(stand_in).update(
        get_annotations=lambda cls: vars(cls).get("__annotations__", {}),
        signature=lambda cls, **_: "",
        __getattr__=lambda attribute: getattr(importlib.import_module("inspect"), attribute),  # for other Pythons
    )
    sys.modules["inspect"] = stand_in
    try:
        importlib.import_module("dataclasses")
    finally:
        del sys.modules["inspect"]
