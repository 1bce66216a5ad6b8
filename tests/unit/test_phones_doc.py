"""docs/phones.md: its code is the examples' code, its tables are the programs'."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from coordinator.config import DevicesFile
from edge_client.runtimes import registry
from export.bundle import make_bundle
from export.interface import values_of
from tests.helpers import TINY_TICKET
from wire.settings import Training

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "phones.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "block", [pytest.param(text, id=text.split("\n")[1][:40]) for kind, text in BLOCKS if kind in ("kotlin", "swift")]
)
def test_excerpts_are_the_files_lines(block: str) -> None:
    """Every piece of code on the page names its file and occurs there, but for the indentation."""
    first, excerpt = block.rstrip("\n").split("\n", 1)
    lines = (ROOT / "examples" / "phone" / first.removeprefix("// ")).read_text().split("\n")
    size = excerpt.count("\n") + 1
    windows = ("\n".join(lines[at : at + size]) for at in range(len(lines)))
    assert any(textwrap.dedent(window) == excerpt for window in windows), f"not in {first}:\n{excerpt}"


def test_the_page_shows_all_five_steps_and_a_valid_configuration() -> None:
    """Both languages, and devices.yaml as the coordinator reads it."""
    assert [number for number in "12345" if f"\n**{number}. " in PAGE] == list("12345")
    assert {kind for kind, _ in BLOCKS} == {"kotlin", "swift", "sh", "yaml"}
    (shown,) = [text for kind, text in BLOCKS if kind == "yaml"]
    assert "executorch" in DevicesFile.model_validate(YAML(typ="safe").load(shown)).federation.runtimes


@pytest.mark.slow
@pytest.mark.skipif("executorch" not in registry.available(), reason="needs executorch (make executorch)")
def test_the_page_describes_the_programs() -> None:
    """Order, names, types and shapes of inputs and outputs are those of real programs."""
    plan, batch = TINY_TICKET.plan, 3
    files = make_bundle(TINY_TICKET, "executorch", Training(batch=batch)).files
    sizes = {"C": -(-TINY_TICKET.kept // 64) * 64, "B": batch, "classes": plan.classes, "1": 1}
    for name, data in files.items():
        table = PAGE[PAGE.index(f"| {name} |") :].split("\n\n")[0]
        rows = re.findall(r"^\| (in|out): `(\w+)` \| (\w+) \| ([^|]+) \|", table, flags=re.MULTILINE)
        inputs, outputs = values_of(name, data)
        found = [("in", one) for one in inputs] + [("out", one) for one in outputs]
        assert [(way, title, dtype) for way, title, dtype, _ in rows] == [(w, v.name, v.dtype) for w, v in found]
        for (_, _, _, shape), (_, value) in zip(rows, found, strict=True):
            words = shape.strip().split(", ")
            expected = [
                size for word in words for size in (plan.input_shape if word == "input shape" else [sizes[word]])
            ]
            assert list(value.shape) == expected, value.name
