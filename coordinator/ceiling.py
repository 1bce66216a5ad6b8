"""The best blocks under two ceilings at once: kept weights (the density) and a device's compute, time or memory.

Every kept block adds a fixed price to what a budget limits, so keeping the most saliency is a knapsack with
two constraints. Its linear relaxation has a simple answer: rank blocks by

    score / ((1 - t) * weights / free weights + t * price / free budget)

and take the best until a ceiling is reached. t = 0 is the density alone, t = 1 the budget alone; where neither
alone satisfies both, bisection finds the t at which the two are reached together. The rounding loses less
than a block. (Lagrangian relaxation; Martello and Toth 1990, Knapsack Problems, section 2.2 and 9.2.)

Prices and ceilings are whole numbers (multiply-adds, picoseconds, bytes): sums are exact, and equal scores go
to the earlier layer and position, so the same blocks are chosen on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wire.errors import PruneError
from wire.plan import LayerShape

Floats = NDArray[np.float64]
Binds = Literal["density", "budget", "density and budget"]
STEPS = 40  # of a bisection: more than enough to tell any two blocks apart


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """A ceiling on something every kept block adds to.

    Attributes:
        option: how a user sets it, e.g. "--budget-ms".
        limit: the ceiling, in whole units.
        fixed: units spent whatever is kept.
        price: units one block of a layer adds, from the layer and the block's weights.
        what: what a limit is of, for messages; "{}" stands for the number.
        scale: units in one of what a user names (1e9 picoseconds in a millisecond).
        decimals: of that number in messages.
        notes: what the ticket records of it.
    """

    option: str
    limit: int
    fixed: int
    price: Callable[[LayerShape, int], int]
    what: str
    scale: int = 1
    decimals: int = 0
    notes: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Units left for blocks."""
        return self.limit - self.fixed

    def say(self, units: int) -> str:
        """A number of units as a user reads it, rounded up so that what is said suffices."""
        rounding = 10**self.decimals
        number = math.ceil(units * rounding / self.scale) / rounding
        return self.what.format(f"{number:,.{self.decimals}f}")

    def require(self, least: int) -> None:
        """Refuse a ceiling that blocks worth `least` units would exceed.

        Raises:
            PruneError: naming the least that works.
        """
        if least > self.free:
            raise PruneError(
                f"a budget of {self.say(self.limit)} is too low: at least {self.say(self.fixed + least)} "
                "needed for one weight per output unit",
                where=self.option,
                hint="Choose a higher budget or a smaller network",
            )


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Blocks of one layer to choose from.

    Attributes:
        scores: mean saliency per weight of every block, float64 (blocks,), >= 0.
        size: weights of a block.
        price: units a block adds to the budget.
        floor: blocks kept in any case, the best ones.
    """

    scores: Floats
    size: int
    price: int
    floor: int


def select(layers: Sequence[Candidates], *, weights: int, units: int) -> tuple[list[NDArray[np.bool_]], Binds]:
    """Choose the blocks with the most saliency under both ceilings.

    Args:
        layers: what there is to choose from.
        weights: ceiling on the weights of all chosen blocks; at least that of the floors.
        units: ceiling on their prices; at least that of the floors.

    Returns:
        the chosen blocks of every layer, bool (blocks,), and which ceiling ended the choice.
    """
    masks = [np.zeros(layer.scores.size, dtype=np.bool_) for layer in layers]
    for layer, mask in zip(layers, masks, strict=True):
        mask[np.argsort(-layer.scores, kind="stable")[: layer.floor]] = True
        weights -= layer.floor * layer.size
        units -= layer.floor * layer.price
    if weights < 0 or units < 0:
        raise ValueError("the floors exceed a ceiling")  # callers check first, to name the option
    rest = [np.sort(layer.scores[~mask]) for layer, mask in zip(layers, masks, strict=True)]
    mix = _mix(layers, rest, weights, units)
    owner = np.repeat(np.arange(len(layers)), [layer.scores.size for layer in layers])
    ratios = np.concatenate([layer.scores for layer in layers])
    if mix:  # a division could round two scores to a tie
        ratios /= np.array(_prices(layers, weights, units, mix))[owner]
    order = np.argsort(-ratios, kind="stable")
    order = order[~np.concatenate(masks)[order]]
    sizes = np.array([layer.size for layer in layers], dtype=np.int64)[owner[order]]
    prices = np.array([layer.price for layer in layers], dtype=np.int64)[owner[order]]
    chosen = np.zeros(owner.size, dtype=np.bool_)
    chosen[order[(np.cumsum(sizes) <= weights) & (np.cumsum(prices) <= units)]] = True
    parts = np.split(chosen, np.cumsum([mask.size for mask in masks])[:-1])
    binds: Binds = "density" if mix == 0 else "budget" if mix == 1 else "density and budget"
    return [mask | part for mask, part in zip(masks, parts, strict=True)], binds


def _prices(layers: Sequence[Candidates], weights: int, units: int, mix: float) -> list[float]:
    """What a weight of each layer costs when the two ceilings are weighed 1 - mix to mix."""
    return [(1 - mix) / max(weights, 1) + mix * (layer.price / layer.size) / max(units, 1) for layer in layers]


def _mix(layers: Sequence[Candidates], rest: Sequence[Floats], weights: int, units: int) -> float:
    """The least t at which the best blocks of `weights` weights cost no more than `units`.

    Args:
        layers: for sizes and prices.
        rest: scores that are left to choose from, ascending, one array per layer.
        weights: left to choose.
        units: left to spend.
    """
    if sum(score.size * layer.price for score, layer in zip(rest, layers, strict=True)) <= units:
        return 0.0
    if _units_of_best(layers, rest, _prices(layers, weights, units, 0.0), weights) <= units:
        return 0.0
    if _units_of_best(layers, rest, _prices(layers, weights, units, 1.0), weights) > units:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _units_of_best(layers, rest, _prices(layers, weights, units, middle), weights) <= units:
            high = middle
        else:
            low = middle
    return high


def _units_of_best(layers: Sequence[Candidates], rest: Sequence[Floats], prices: Sequence[float], weights: int) -> int:
    """Units that the blocks with the best score per price take, of as many as have `weights` weights."""

    def counts(threshold: float) -> list[int]:
        return [s.size - int(s.searchsorted(threshold * p)) for s, p in zip(rest, prices, strict=True)]

    def too_many(threshold: float) -> bool:
        total: int = sum(map(mul, counts(threshold), sizes))
        return total > weights

    sizes = [layer.size for layer in layers]
    positive = [s[int(np.searchsorted(s, 0.0, side="right")) :] for s in rest]
    ends = [(s[0] / p, s[-1] / p) for s, p in zip(positive, prices, strict=True) if s.size]
    if not ends:
        return 0
    low = float(min(first for first, _ in ends)) / 2
    high = float(max(last for _, last in ends)) * 2
    threshold = low
    if too_many(low):
        for _ in range(STEPS):  # low takes too many, high does not; scores span many orders of magnitude
            middle = math.sqrt(low) * math.sqrt(high)
            low, high = (middle, high) if too_many(middle) else (low, middle)
        threshold = high
    units: int = sum(map(mul, counts(threshold), [layer.price for layer in layers]))
    return units
