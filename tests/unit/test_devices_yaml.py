"""devices.yaml: the schema says what the parser accepts, profiles inherit, figures have sources, budgets add up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from coordinator import devices_schema, profiles
from coordinator.budgets import UNITS, Budget
from coordinator.cli import main
from coordinator.config import DevicesFile, load
from coordinator.hardware import FIGURES, Figure
from wire.errors import ConfigError, UnknownName

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(devices_schema.PACKAGED.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
WHOLE: dict[str, Any] = {
    "federation": {
        "name": "t", "model": "lenet", "input_shape": [1, 28, 28], "classes": 10, "density": 0.1, "seed": 3,
        "rounds": 5, "per_round": 4, "quorum": 2, "deadline_s": 10, "mode": "rounds", "memory": 0.5, "defend": False,
        "runtimes": ["sparse", "onnx"], "training": {"optimiser": "adam", "learning_rate": 0.01, "epochs": 2},
    },
    "budget": {"peak_mb": 100, "step_ms": 20.5, "day_bytes": 10000},
    "profiles": {
        "pi-zero-2w": {"clock_ghz": 1.2, "budget": {"round_j": 20}},
        "mine": {
            "title": "Mine", "cores": 2, "ram_mb": 64, "machine": "armv7l", "runtimes": ["sparse"], "clock_ghz": 1,
            "sources": {"a data sheet": ["clock_ghz", "cores"]},
        },
        "other": {"extends": ["mine", "pi-400"], "load_w": 4, "estimated": {"a guess": ["load_w"]}},
        "base": {"template": True, "cpu": "x"},
    },
    "devices": {"a": {"profile": "mine", "budget": {"peak_mb": 50}}, "b": None, "c": {"site": "north", "note": "n"}},
}  # fmt: skip


def parses(document: object, folder: Path) -> str | None:
    """None if the parser takes it, else what it says."""
    path = folder / "devices.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    try:
        load(path)
    except ConfigError as error:
        return str(error)
    return None


def places(document: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where every value of a document lies."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [at, *(place for key, value in items for place in places(value, (*at, key)))]


def changed(at: tuple[object, ...], value: object) -> Any:
    """WHOLE with another value somewhere."""
    document: Any = copy.deepcopy(WHOLE)
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return document


def test_the_published_schema_is_that_of_the_program() -> None:
    """Made anew it is the same, and it is a schema."""
    assert devices_schema.PACKAGED.read_text(encoding="utf-8") == devices_schema.text(), (
        "run: python -m coordinator.devices_schema"
    )
    VALIDATOR.check_schema(SCHEMA)


@pytest.mark.parametrize("path", ["devices.yaml", "coordinator/profiles.yaml"])
def test_our_own_files_are_of_the_schema(path: str, tmp_path: Path) -> None:
    """Both name it on their first line, so that editors find it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (ROOT / path).parent / first.partition("=")[2] == devices_schema.PACKAGED
    VALIDATOR.validate(YAML(typ="safe").load(text))
    load(ROOT / path)


def test_schema_and_parser_agree_on_a_whole_file(tmp_path: Path) -> None:
    """Both take one with every kind of setting."""
    VALIDATOR.validate(WHOLE)
    assert parses(WHOLE, tmp_path) is None


@settings(max_examples=50, deadline=None)
@given(
    at=st.sampled_from([place for place in places(WHOLE) if place]),
    value=st.sampled_from([None, True, 0, -1, 1, 2.5, "", "x", "mine", "sparse", [], [1], ["cores"], {}, {"x": 1}]),
)
def test_schema_and_parser_agree_on_what_is_wrong(
    at: tuple[object, ...], value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One value replaced: what is no setting, or of the wrong type, both refuse, and nothing else."""
    document = changed(at, value)
    said = parses(document, tmp_path_factory.getbasetemp())
    if VALIDATOR.is_valid(document):
        assert said is None or " found, " not in said, said  # settings that are well-formed, but do not go together
    else:
        assert said is not None, document


@pytest.mark.parametrize("name", profiles.built_in())
def test_every_figure_of_a_built_in_profile_has_a_source(name: str) -> None:
    """An address, or words on what it is estimated from."""
    profile = profiles.built_in()[name]
    for figure in FIGURES:
        found = profile.source_of(figure)
        if getattr(profile, figure) is None:
            assert found is None, figure
            continue
        assert found is not None, figure
        source, estimated = found
        assert source.startswith("https://") != estimated, source
    assert profile.has_figures


def test_the_boards_that_were_asked_for_are_there() -> None:
    """By name, and which of them run what."""
    known = profiles.built_in()
    wanted = (
        "pi-zero-2w pi-3b-plus pi-4-2gb pi-4-4gb pi-4-8gb pi-5-4gb pi-5-8gb pi-400 orange-pi-5 rock-5b jetson-nano "
    )
    wanted += "jetson-orin-nano beaglebone-black x86-mini-pc "
    wanted += "android-entry android-mid android-flagship iphone-13 iphone-16-pro"
    assert sorted(known) == sorted(wanted.split())
    assert known["beaglebone-black"].runtimes == ["sparse"]
    assert {name for name, one in known.items() if one.system != "linux"} == {
        name for name in known if name.startswith(("android", "iphone"))
    }


def test_inheritance(tmp_path: Path) -> None:
    """Later ones win, own settings before all; a figure that is set again loses its old source; budgets are merged."""
    path = tmp_path / "d.yaml"
    path.write_text(
        "profiles:\n"
        "  a: {title: A, cores: 1, ram_mb: 10, clock_ghz: 1, sources: {s: [cores, clock_ghz]},\n"
        "      budget: {step_ms: 1, peak_mb: 2}}\n"
        "  b: {template: true, cores: 2, load_w: 3}\n"
        "  c: {extends: [a, b], clock_ghz: 5, estimated: {e: [clock_ghz]}, budget: {step_ms: 9}}\n"
    )
    found = load(path).hardware
    assert list(found) == ["a", "c"]
    c = found["c"]
    assert (c.title, c.cores, c.ram_mb, c.load_w, c.clock_ghz) == ("A", 2, 10, 3, 5)
    assert c.source_of("clock_ghz") == ("e", True)
    assert c.source_of("cores") is None
    assert dict(c.budget.limits()) == {"peak_mb": 2, "step_ms": 9}


def test_budgets_of_everyone_profile_and_device(tmp_path: Path) -> None:
    """The narrower counts; a device that the file does not list has what it says it is."""
    path = tmp_path / "d.yaml"
    path.write_text(
        "budget: {step_ms: 10, peak_mb: 100}\n"
        "profiles: {pi-400: {budget: {step_ms: 20, round_j: 5}}}\n"
        "devices: {a: {profile: pi-400, budget: {round_j: 1}}, b: {}}\n"
    )
    file = load(path)
    assert dict(file.budget_of("a").limits()) == {"peak_mb": 100, "step_ms": 20, "round_j": 1}
    assert dict(file.budget_of("a", "pi-zero-2w").limits()) == {"peak_mb": 100, "step_ms": 20, "round_j": 1}
    assert dict(file.budget_of("b").limits()) == {"peak_mb": 100, "step_ms": 10}
    assert dict(file.budget_of("stranger", "pi-400").limits()) == {"peak_mb": 100, "step_ms": 20, "round_j": 5}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("profiles:\n  x:\n    extends: pi-zero-2\n", 3, "no profile is called 'pi-zero-2'. Did you mean 'pi-zero-2w'"),
        ("profiles:\n  x: {extends: y}\n  y: {extends: x}\n", 3, "'x' extends this profile itself"),
        ("profiles:\n  x: {extends: cortex-a53}\n", 2, "no title and no cores and no ram_mb"),
        ("profiles:\n  x: {extends: pi-400,\n    sources: {s: [idle]}}\n", 3, "'idle' found"),
        (
            "profiles:\n  pi-400:\n    sources: {s: [l3_kb]}\n",
            3,
            "l3_kb has a source, but this profile has no such figure",
        ),
        ("profiles:\n  x: {extends: pi-400, cloc_ghz: 3}\n", 2, "Did you mean 'clock_ghz'"),
        ("devices:\n  a:\n    profile: pi-4-4g\n", 3, "no profile is called 'pi-4-4g'. Did you mean 'pi-4-4gb'"),
        ("devices:\n  a:\n    budget:\n      peek_mb: 3\n", 4, "Did you mean 'peak_mb'"),
        ("profiles:\n  x: {extends: pi-400, machine: arm}\n", 2, "'arm' found"),
        ("profiles: {x: {extends: 3}}\n", 1, "profiles.x.extends: 3 found"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    """File, line, found, expected, and the nearest name there is."""
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert f"{path}:{line}: " in str(caught.value)
    assert said in str(caught.value)


def test_units_and_labels_name_all_there_is() -> None:
    """No limit without a unit, no figure without a place in `hidenseek devices show`."""
    from coordinator.devices_command import LABELS

    assert set(UNITS) == set(Budget.model_fields)
    assert set(LABELS) == set(get_args(Figure))
    assert "budget" in DevicesFile.model_fields


def test_devices_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, shows sources, checks, writes the schema; a misspelt profile is guessed."""
    monkeypatch.chdir(tmp_path)
    assert main(["devices"]) == 0
    shown = capsys.readouterr().out
    for name in profiles.built_in():
        assert f"{name} " in shown
    assert main(["devices", "show", "pi-400"]) == 0
    assert "top500-benchmark/issues/49" in capsys.readouterr().out
    assert main(["devices", "show", "pi-40"]) == UnknownName.exit_code
    assert "Did you mean 'pi-400'" in capsys.readouterr().err
    assert main(["devices", "schema", "-o", "s.json"]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == SCHEMA
    (tmp_path / "devices.yaml").write_text("profiles: {x: {extends: pi-400, title: Mine, budget: {step_ms: 3}}}\n")
    capsys.readouterr()
    assert main(["devices", "check", "devices.yaml"]) == 0
    assert "1 profiles of its own" in capsys.readouterr().out
    assert main(["devices", "show", "x"]) == 0
    assert "budget step_ms: 3" in capsys.readouterr().out
