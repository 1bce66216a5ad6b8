"""`secure_aggregation` in devices.yaml: what goes with it, and what is refused with file, line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import load
from edge_client import cli as edge
from edge_client import join_command
from wire import signing
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
    assert found.plan_in_words() == "20 rounds of 10 devices, masks added up unseen"
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


def test_peers_are_read_from_a_file(tmp_path: Path) -> None:
    """A key a line, after any name; comments and empty lines are none."""
    path = tmp_path / "peers.txt"
    one, two = (signing.as_text(bytes([i]) * 32) for i in (1, 2))
    path.write_text(f"# the kitchen\npi-01 {one}\n\n{two}  # no name\n")
    join = ["join", "--broker", "mqtt://hub", "--data", "d", "--peers", str(path)]
    arguments = edge.build_parser().parse_args([*join, "--hide-among", "2"])
    assert join_command.read_peers(arguments) == {bytes([1]) * 32, bytes([2]) * 32}
    with pytest.raises(ConfigError, match="Add --hide-among N"):
        join_command.read_peers(edge.build_parser().parse_args(join))
    path.write_text(f"{one}\nnonsense\n")
    with pytest.raises(ConfigError, match=r"peers.txt:2: no key"):
        join_command.read_peers(arguments)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        join_command.read_peers(arguments)
