"""`secure_aggregation` in devices.yaml: what goes with it, and what is refused with file, line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import load
from wire.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    """A devices.yaml with secure aggregation and more."""
    path = folder / "devices.yaml"
    path.write_text(f"federation:\n  secure_aggregation: true\n  {text}\n")
    return path


def test_it_is_off_by_default_and_takes_the_defence_with_it(tmp_path: Path) -> None:
    """The defence's default gives way; without secure aggregation it stays."""
    found = load(write(tmp_path, "name: t")).federation
    assert found.secure_aggregation
    assert not found.defends
    (tmp_path / "devices.yaml").write_text("federation: {name: t}\n")
    found = load(tmp_path / "devices.yaml").federation
    assert not found.secure_aggregation
    assert found.defends


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mode: async", "mode is async, but secure_aggregation needs rounds"),
        ("defend: true", "Set defend: false"),
        ("quorum: 2", "quorum is 2, at least 3 expected"),
        ("per_round: 256", "per_round is 256, at most 255 expected"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The error names file and line of the other setting."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)
    assert f"{tmp_path / 'devices.yaml'}:3" in str(caught.value)


def test_the_other_settings_go_with_it(tmp_path: Path) -> None:
    """Randomised response, memory, evaluation, and the defence switched off by hand."""
    text = "defend: false\n  memory: 0.2\n  evaluate: true\n  training: {privacy_epsilon: 4}"
    assert load(write(tmp_path, text)).federation.training.privacy_epsilon == 4


def test_the_document_s_table_is_the_measured_one() -> None:
    """What docs/secure-aggregation.md says it costs is what the benchmark wrote."""
    root = Path(__file__).parents[2]
    document = (root / "docs" / "secure-aggregation.md").read_text()
    measured = (root / "benchmarks" / "results" / "secure-aggregation.md").read_text()
    assert f"<!-- results: benchmarks/results/secure-aggregation.md -->\n\n{measured}" in document
