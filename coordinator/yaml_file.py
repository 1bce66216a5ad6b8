"""A YAML file that people write, read into a pydantic model; whatever is wrong with it is said with its line.

Every complaint names the file, the line, the value found and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from wire.errors import ConfigError, did_you_mean

# What ruamel.yaml raises beside its own errors: of dates that do not exist, tags on the wrong thing, deep nesting, ...
NOT_YAML = (YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
Location = Sequence[str | int]  # keys and places in lists, from the top of the file


class Strict(BaseModel):
    """Settings in a file: no name that is unknown, no value of another type than asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Strict)


class Misplaced(Exception):
    """Something in a file that is well-formed alone, but not with the rest of it.

    Args:
        location: where.
        what: what was found and expected.
        hint: what to do.
    """

    def __init__(self, location: Location, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.location, self.what, self.hint = list(location), what, hint


def read(path: Path) -> CommentedMap:
    """The file's settings, with the lines that they are on.

    Raises:
        ConfigError: if it cannot be read, or is no YAML mapping.
    """
    try:
        tree = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path), hint="Is the name right?") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(path)) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"not YAML: {error.problem or error.context}", where=f"{path}:{line}") from error
    except NOT_YAML as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"not YAML: {first:.200}", where=str(path)) from error
    if not isinstance(tree, CommentedMap):
        raise ConfigError("empty, or not a mapping of names to settings", where=f"{path}:1")
    return tree


def parse(path: Path, tree: CommentedMap, model: type[Model]) -> Model:
    """The settings as a model.

    Raises:
        ConfigError: naming file and line, what was found and what was expected.
    """
    try:
        return model.model_validate(_plain(tree))
    except ValidationError as error:
        raise complaint(path, tree, misplaced(model, error)) from None
    except Misplaced as error:
        raise complaint(path, tree, error) from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=str(path)) from None


def complaint(path: Path, tree: CommentedMap, error: Misplaced) -> ConfigError:
    """What is misplaced, with its line."""
    return ConfigError(error.what, where=f"{path}:{line_of(tree, error.location)}", hint=error.hint)


def line_of(tree: Any, location: Location) -> int:
    """Line of the deepest part of a location that is in the file, counting from 1."""
    line = 1
    for part in location:
        try:
            if isinstance(tree, CommentedMap) and part in tree:
                line = tree.lc.key(part)[0] + 1
            elif isinstance(tree, CommentedSeq) and isinstance(part, int) and part < len(tree):
                line = tree.lc.item(part)[0] + 1
            else:
                break
        except (KeyError, TypeError):  # it came by a merge (`<<: *name`), or in a type without lines
            break
        tree = tree[part]
    return line


def renamed(path: Path, location: Location, new: str) -> str:
    """The file's text with another name for one of its settings; all else of it stays as it is written.

    Raises:
        ConfigError: if the file cannot be read, or the name is written in a way that only a person can change.
    """
    tree: Any = read(path)
    *above, old = location
    by_hand = ConfigError(
        f"the name '{old}' cannot be changed here", where=f"{path}:{line_of(tree, location)}", hint=f"Make it '{new}'"
    )
    try:
        for part in above:
            tree = tree[part]
        row, column = tree.lc.key(old)
    except (KeyError, TypeError):  # it came by a merge, or is no text
        raise by_hand from None
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    before, after = lines[row][:column], lines[row][column:]
    for quote in ("", '"', "'"):
        if after.startswith(f"{quote}{old}{quote}"):
            lines[row] = f"{before}{quote}{new}{quote}{after.removeprefix(f'{quote}{old}{quote}')}"
            return "".join(lines)
    raise by_hand


def scalar(text: str) -> Any:
    """What a word or number comes to that is written outside of a file, as a value in it would."""
    try:
        return YAML(typ="safe").load(text)
    except NOT_YAML:
        return text


def misplaced(model: type[Strict], invalid: ValidationError) -> Misplaced:
    """What is wrong with settings, the first of it, in words for a person."""
    error = invalid.errors()[0]
    location = [part for part in error["loc"] if part != "[key]"]
    dotted = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        known = _known_names(model, location[:-1])
        return Misplaced(location, f"{dotted}: no such setting", did_you_mean(str(location[-1]), known))
    if error["type"] == "missing":  # not with what is there instead: it may be a password
        return Misplaced(location, f"{dotted}: missing")
    if error["type"] == "model_type":
        return Misplaced(location, f"{dotted}: {error['input']!r:.60} found, settings expected")
    message = error["msg"].removeprefix("Input ").replace("String should match pattern", "should match")
    hint = ""
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        hint = did_you_mean(
            error["input"], [part.strip(" '") for part in message.split("should be")[1].replace(" or ", ",").split(",")]
        )
    return Misplaced(location, f"{dotted}: {error['input']!r:.60} found, {message}", hint)


def _known_names(model: type[Strict], location: Location) -> list[str]:
    """Setting names of the model at a place in the file."""
    found: Any = model
    for part in location:
        found = found.model_fields[str(part)].annotation if _is_model(found) else get_args(found)[-1]
        found = _settings_of(found)
    return list(found.model_fields)


def _settings_of(annotation: Any) -> Any:
    """A model, or a container of them, without what it is annotated with and without None."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _plain(value: Any) -> Any:
    if isinstance(value, CommentedMap):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, CommentedSeq) else value
