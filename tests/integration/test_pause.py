"""Rounds that a person pauses: what is open goes on, nothing opens, nothing is lost."""

from __future__ import annotations

from pathlib import Path

from tests.integration.stage import HONEST, Stage

IDLE = 4  # quarters of a second


def test_a_paused_run_waits_and_goes_on(tmp_path: Path) -> None:
    """The open round gets all its masks and closes; the next opens when it is resumed, and the run ends as any."""
    stage = Stage(tmp_path, rounds=4, acts={1: lambda stage, opened: stage.store.pause() and None})
    at: list[int] = []

    def look() -> None:
        newest = stage.store.newest_round(stage.run_id)
        if stage.store.paused() and newest is not None and newest.closed_s is not None:
            at.append(newest.number)
            if len(at) == IDLE:
                stage.store.resume()

    stage.coordinator.watch = look
    stage.play()
    assert len(at) == IDLE
    assert len(set(at)) == 1, "no round has opened meanwhile"
    assert at[0] < 4
    assert [stage.counted(number) for number in range(1, 5)] == [sorted(HONEST)] * 4
    words = [text for text in stage.watcher.remarks if "resumed" in text]
    assert words == ["paused: no round opens until it is resumed", "resumed"]
