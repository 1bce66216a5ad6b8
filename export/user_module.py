"""The `nn.Module` behind `--from package.module:Attribute`. Importing it runs its author's code, as `python` would."""

from __future__ import annotations

import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, machinery, util
from pathlib import Path
from types import ModuleType

from torch import nn

from export.torch_places import OURS, TORCH, shown
from wire.errors import ConfigError, UnknownName, did_you_mean

OPTION = "--from"
FORM = "Write package.module:Name or path/to/file.py:Name"


def load_module(source: str) -> tuple[nn.Module, str]:
    """Import a module of Python and make the network that is named in it.

    Args:
        source: `package.module:Attribute` or `path/to/file.py:Attribute`: a class or function that is called without
            arguments, or an instance. Modules are looked for in the current folder first.

    Returns:
        the network, and the attribute's name.

    Raises:
        UnknownName: if there is no such module or attribute; with the nearest name.
        ConfigError: if `source` is not of this form, the attribute is no `nn.Module` and makes none, needs arguments,
            or its code fails; with its last line.
    """
    place, colon, name = source.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise ConfigError(f"'{source}' found", where=OPTION, hint=FORM)
    found = _attribute(_from_file(Path(place)) if place.endswith(".py") else _from_package(place), name, place)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ConfigError(
                f"{place}:{name} is a {type(found).__name__}, an nn.Module or what makes one expected", where=OPTION
            )
        _needs_nothing(found, place, name)
        with _running(f"{place}:{name}()"):
            found = found()
    if not isinstance(found, nn.Module):
        raise ConfigError(f"{place}:{name}() is a {type(found).__name__}, an nn.Module expected", where=OPTION)
    return found, name


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = [shown(one.resolve()) for one in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UnknownName(f"no file '{path}'", where=OPTION, hint=did_you_mean(str(path), near) if near else FORM)
    _search(path.resolve().parent)  # what lies beside it can be imported
    spec = util.spec_from_file_location(f"_from_{path.stem}", path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as import does: dataclasses look there
    with _running(str(path)):
        spec.loader.exec_module(module)
    return module


def _from_package(place: str) -> ModuleType:
    _search(Path.cwd())
    with _running(place):
        try:
            return import_module(place)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"{place}.".startswith(f"{missing}."):
                raise  # something that it imports itself
            parent, _, last = missing.rpartition(".")
            folders = list(getattr(sys.modules.get(parent), "__path__", [])) if parent else [str(Path.cwd())]
            beside = [one.name for one in pkgutil.iter_modules(folders)]
            hint = did_you_mean(last, beside) if beside else f"It is looked for in {Path.cwd()}"
            raise UnknownName(f"no module '{missing}'", where=OPTION, hint=hint) from None


def _attribute(module: ModuleType, name: str, place: str) -> object:
    if not hasattr(module, name):
        known = [
            key
            for key, value in vars(module).items()
            if isinstance(value, nn.Module) or (callable(value) and getattr(value, "__module__", "") == module.__name__)
        ]
        hint = did_you_mean(name, known) if known else "It holds no networks"
        raise UnknownName(f"nothing in {place} is called '{name}'", where=OPTION, hint=hint)
    return getattr(module, name)


def _needs_nothing(factory: Callable[..., object], place: str, name: str) -> None:
    """Refuse a class or function that cannot be called without arguments."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # written in C
        return
    try:
        signature.bind()
    except TypeError as error:
        raise ConfigError(
            f"{place}:{name} cannot be called without arguments ({error})",
            where=OPTION,
            hint=f"Write a function beside it and name that: def net(): return {name}(...)",
        ) from None


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextmanager
def _running(what: str) -> Iterator[None]:
    """Turn whatever someone else's code fails with into one line that says where."""
    try:
        yield
    except (UnknownName, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a script without `if __name__ == "__main__"`
        text = traceback.format_exception_only(error)[-1].strip()
        raise ConfigError(f"{what} failed: {text}", where=_line(error)) from error


def _line(error: BaseException) -> str:
    """File and line of the innermost frame that is neither ours nor torch's nor the import system's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(Path(error.filename))}:{error.lineno}"
    frames = [
        one
        for one in traceback.extract_tb(error.__traceback__)
        if not one.filename.startswith("<")
        and not {TORCH, OURS, Path(machinery.__file__).parent} & {*Path(one.filename).parents}
    ]
    return f"{shown(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else OPTION
