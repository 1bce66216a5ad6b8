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
