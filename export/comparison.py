"""One number of a runtime against torch autograd's. No torch, so that whoever only reads results need not load it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# What the rows of `export.verify` that are asked for again are called.
GRADIENT_OF = "gradient of "
SIGNS_APART = "share of signs that differ after a step"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        what: what was compared.
        found: the difference, as `what` says in which unit.
        allowed: the largest difference that passes.
    """

    what: str
    found: float
    allowed: float

    @property
    def ok(self) -> bool:
        """True if the difference is small enough; not a number is never."""
        return self.found <= self.allowed


def largest(rows: Iterable[Row], part: str) -> float:
    """The largest difference of the rows that have `part` in their name.

    Raises:
        ValueError: if there is none.
    """
    return max(row.found for row in rows if part in row.what)
