"""Reports of boards, read by the coordinator: what a device wrote comes back, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from coordinator.report import profiles
from tests.unit.test_profiler import bundle_of, measured
from wire.errors import DataError
from wire.profile_report import ProfileReport


@pytest.fixture(scope="module")
def report() -> ProfileReport:
    """A real one."""
    return measured(bundle_of("mlp"))


def test_a_report_comes_back_as_it_was(report: ProfileReport, tmp_path: Path) -> None:
    """From a file, and from every .json of a folder; a field of a later program is passed over."""
    text = json.dumps({**asdict(report), "invented_later": 1})
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text(text)
    (tmp_path / "c.txt").write_text("no report")
    assert profiles.read([tmp_path / "a.json"]) == [report]
    assert profiles.read([tmp_path]) == [report, report]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version 1 expected"),
        ({"format": "x" * 100}, "'x{40}' version 1"),
        ({"latency": {}}, "latency.steps: Field required"),
        ({"software": 3}, "software: Input should be a valid string"),
        ({"layers": [None]}, "layers.0"),
    ],
)
def test_what_is_no_report_is_refused(report: ProfileReport, tmp_path: Path, change: dict, says: str) -> None:
    """Naming file and field."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps({**asdict(report), **change}))
    with pytest.raises(DataError, match=says) as caught:
        profiles.read([file])
    assert caught.value.where == str(file)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": NaN}'])
def test_other_bytes_are_refused(text: str) -> None:
    """Whatever they are."""
    with pytest.raises(DataError):
        profiles.parse(text.encode(), where="bytes")


def test_numbers_are_finite_and_histograms_whole(report: ProfileReport) -> None:
    """Infinity and not-a-number would draw nonsense."""
    for old, new in (
        (f'"mean_ms": {report.latency.mean_ms}', '"mean_ms": 1e999'),
        (f'"first_bucket": {report.latency.first_bucket}', '"first_bucket": -4'),
    ):
        text = json.dumps(asdict(report))
        assert old in text
        with pytest.raises(DataError):
            profiles.parse(text.replace(old, new).encode(), where="bytes")


def test_the_published_schema_is_that_of_the_reader() -> None:
    """docs/profile-report.schema.json, for other programs that read or write reports."""
    path = Path(__file__).parents[2] / "docs" / "profile-report.schema.json"
    found = profiles.adapter().json_schema()
    assert json.loads(path.read_text(encoding="utf-8")) == found, (
        "write it again: python -c 'import json; from coordinator.report.profiles import adapter; "
        f"print(json.dumps(adapter().json_schema(), indent=1))' > {path}"
    )
