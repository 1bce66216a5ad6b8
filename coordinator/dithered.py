"""Rounds whose masks are dithered bits of scores (`wire.dither`): which settings go with them, and their closing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from coordinator import robust
from coordinator.steps import Asynchrony
from wire import dither
from wire.errors import ConfigError
from wire.mask import Context, Signs, Votes


def check(asynchrony: Asynchrony | None, *, secure_aggregation: bool) -> None:
    """Accept settings for dithered scores.

    Raises:
        ConfigError: if a mask would be counted without what its device was expected to send.
    """
    setting = "secure_aggregation is true" if secure_aggregation else "mode is async" if asynchrony else None
    if setting is not None:
        raise ConfigError(f"{setting}, but training.dither needs rounds whose masks are seen. Set one of them back")


def close(
    previous: Votes, masks: Iterable[tuple[str, Signs, Context]], *, defend: bool
) -> tuple[Votes, tuple[str, ...]]:
    """The mean scores after a round; where all its masks are hostile, nothing changes.

    What `coordinator.robust` looks at are the bits that training has changed, as changes of the announced signs: of
    what a device's thresholds make of its scores, nothing else tells honest ones from others.

    Args:
        previous: as announced with the round.
        masks: device, its mask, bool (kept,), and what was known of it; the order does not matter.
        defend: leave out what is hostile.

    Returns:
        The next votes, and a line for a person about every device that was not counted.

    Raises:
        ValueError: if there is no mask.
    """
    changed = {device: (robust.pack(previous.signs ^ sent ^ known.signs), known.signs) for device, sent, known in masks}
    if not changed:
        raise ValueError("no masks")
    counted = tuple(changed)
    remarks: tuple[str, ...] = ()
    if defend:
        judgement = robust.judge(previous, {device: packed for device, (packed, _) in changed.items()})
        counted, remarks = judgement.counted, tuple(finding.text for finding in judgement.findings)
    if not counted:
        return previous, (*remarks, f"none of {len(changed)} masks was counted, the scores stay as they are")
    moved = np.zeros(previous.signs.size, dtype=np.int32)
    for device in counted:
        packed, expected = changed[device]
        flips = robust.unpack(packed, previous.signs.size) ^ previous.signs
        moved += np.where(expected, -flips.astype(np.int32), flips)
    return dither.next_votes(previous, moved, len(counted)), remarks
