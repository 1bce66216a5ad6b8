"""Kinds of hardware: what a profile in devices.yaml may say, and what it comes to with all that it extends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from coordinator.budgets import Budget
from coordinator.yaml_file import Location, Misplaced, Strict
from wire.errors import did_you_mean

PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
Name = Annotated[str, Field(pattern=PATTERN)]
Count = Annotated[int, Field(ge=1)]
Runtime = Literal["sparse", "onnx", "executorch"]
Factor = Annotated[float, Field(gt=0)]
Figure = Literal[
    "cores", "clock_ghz", "flops_per_cycle", "l1d_kb", "l2_kb", "l3_kb", "ram_mb", "usable_ram_mb", "memory_gb_s",
    "idle_w", "load_w",
]  # fmt: skip
FIGURES: tuple[Figure, ...] = get_args(Figure)
REQUIRED = ("title", "cores", "ram_mb")  # of a profile that is no template, once all that it extends is in it
Sources = dict[str, list[Figure]]
Names = Annotated[
    list[Name],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": PATTERN},
                {"type": "array", "items": {"type": "string", "pattern": PATTERN}},
            ]
        }
    ),
]


class _Facts(Strict):
    """What both a profile in a file and a whole one may have."""

    machine: Literal["x86_64", "aarch64", "armv7l"] | None = Field(default=None, description="as `uname -m` says")
    system: Literal["linux", "android", "ios"] = Field(default="linux", description="phones train in an app")
    runtimes: list[Runtime] = Field(default=["sparse", "onnx", "executorch"], description="that run there")
    cpu: str = Field(default="", description="cores and microarchitecture")
    simd: str = Field(default="", description="vector instructions")
    storage: str = ""
    # Of one core, from which estimates of step time start.
    clock_ghz: float | None = Field(default=None, gt=0, description="of the fastest core")
    flops_per_cycle: float | None = Field(default=None, gt=0, description="single precision; a multiply-add is two")
    memory_gb_s: float | None = Field(default=None, gt=0, description="bytes read and written by one core, in 1e9 a s")
    l1d_kb: Count | None = Field(default=None, description="data cache of the fastest core, KiB")
    l2_kb: Count | None = Field(default=None, description="second-level cache, KiB: of a core, or shared")
    l3_kb: Count | None = Field(default=None, description="third-level cache, shared, KiB")
    usable_ram_mb: Count | None = Field(default=None, description="left for programs by an idle system, 1e6 bytes")
    idle_w: float | None = Field(default=None, gt=0, description="power of the whole board when idle, watts")
    load_w: float | None = Field(default=None, gt=0, description="with all cores at work, watts")
    calibration: dict[Runtime, Factor] = Field(
        default={}, description="measured over estimated time of a step; `hidenseek plan --here --save` writes it"
    )
    process_mb: dict[Runtime, Factor] = Field(
        default={}, description="a device's process without a network, 1e6 bytes, by runtime; measured likewise"
    )
    sources: Sources = Field(default={}, description="where figures were read: source, and the figures from there")
    estimated: Sources = Field(default={}, description="what other figures were worked out from, in words")
    budget: Budget = Budget()


class ProfileSettings(_Facts):
    """A kind of hardware, as a file describes it. One with the name of a built-in profile changes that one."""

    extends: Names = Field(default=[], description="profiles whose settings count where this one says nothing")
    template: bool = Field(default=False, description="true: no hardware of its own, only to be extended")
    title: str | None = Field(default=None, description="for people")
    cores: Count | None = None
    ram_mb: Count | None = Field(default=None, description="fitted, MiB")


class Profile(_Facts):
    """A kind of hardware, with all that it extends."""

    title: str
    cores: Count
    ram_mb: Count

    @property
    def has_figures(self) -> bool:
        """Whether an estimate of time can be made."""
        return None not in (self.clock_ghz, self.flops_per_cycle, self.memory_gb_s)

    def source_of(self, figure: Figure) -> tuple[str, bool] | None:
        """Where a figure is from, and whether it is estimated; None if nobody says."""
        for sources, estimated in ((self.sources, False), (self.estimated, True)):
            for source, figures in sources.items():
                if figure in figures:
                    return source, estimated
        return None


def resolve(listed: Mapping[str, ProfileSettings], known: Mapping[str, ProfileSettings]) -> dict[str, Profile]:
    """The profiles of a file, without templates, each with what it extends.

    Args:
        listed: of the file, by name.
        known: others that they may extend; one in the file changes that of its name.

    Raises:
        Misplaced: if one extends an unknown profile or itself, lacks what every profile needs, or gives sources for
            figures that it does not have.
    """
    found = {}
    for name, settings in listed.items():
        values = _values(name, listed, known, ())
        if settings.template:
            continue
        missing = [field for field in REQUIRED if values.get(field) is None]
        if missing:
            raise Misplaced(
                ["profiles", name],
                f"profiles.{name}: no {' and no '.join(missing)}",
                f"Every profile needs {', '.join(REQUIRED)}; extends: NAME takes them from another",
            )
        found[name] = Profile(**values)
    return found


def _values(
    name: str, listed: Mapping[str, ProfileSettings], known: Mapping[str, ProfileSettings], path: tuple[str, ...]
) -> dict[str, Any]:
    """Settings by name of a profile and of all that it extends, later ones first."""
    values: dict[str, Any] = {}
    for settings, parents in _layers(name, listed, known):
        for i, parent in enumerate(parents):
            location: Location = ["profiles", name, "extends", i]
            if parent not in listed and parent not in known:
                what = f"profiles.{name}.extends: no profile is called '{parent}'"
                raise Misplaced(location, what, did_you_mean(parent, [*listed, *known]))
            if parent == name or parent in path:
                raise Misplaced(location, f"profiles.{name}.extends: '{parent}' extends this profile itself")
            _add(values, _values(parent, listed, known, (*path, name)))
        own = settings.model_dump(exclude_unset=True, exclude={"extends", "template", "budget"})
        _add(values, own | ({"budget": settings.budget} if "budget" in settings.model_fields_set else {}))
        for kind in ("sources", "estimated"):
            for source, figures in getattr(settings, kind).items():
                if extra := [figure for figure in figures if values.get(figure) is None]:
                    what = f"profiles.{name}.{kind}: {extra[0]} has a source, but this profile has no such figure"
                    raise Misplaced(["profiles", name, kind, source], what)
    return values


def _layers(
    name: str, listed: Mapping[str, ProfileSettings], known: Mapping[str, ProfileSettings]
) -> Iterator[tuple[ProfileSettings, list[str]]]:
    """The known profile of a name, then that of the file."""
    for profiles in (known, listed):
        if name in profiles:
            yield profiles[name], profiles[name].extends


def _add(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put settings over others; a figure that is set again is no longer from its old source."""
    again = {figure for figure in FIGURES if more.get(figure) is not None}
    for kind in ("sources", "estimated"):
        kept = {
            source: left
            for source, figures in values.get(kind, {}).items()
            if (left := [figure for figure in figures if figure not in again])
        }
        for source, figures in more.get(kind, {}).items():
            kept[source] = [*kept.get(source, []), *figures]
        values[kind] = kept
    budget = values.get("budget", Budget()).over(more.get("budget"))
    values.update({key: value for key, value in more.items() if key not in ("sources", "estimated")}, budget=budget)
