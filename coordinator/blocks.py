"""A network's layers in blocks of neighbouring output rows, and the ceilings that those kept stay below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coordinator.ceiling import Ceiling
from wire.errors import PruneError
from wire.plan import LayerShape, Plan


def block_sizes(plan: Plan, block: int) -> list[int]:
    """Rows per block of each weight layer: `block` where the rows that share inputs divide by it, else 1."""
    return [block if shape.out_units // shape.groups % block == 0 else 1 for shape in plan.weight_layers()]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """One layer seen in blocks of `size` output rows."""

    shape: LayerShape
    size: int

    @property
    def count(self) -> int:
        """Blocks of the layer."""
        return self.shape.weights // self.size

    @property
    def floor(self) -> int:
        """Fewest blocks the layer keeps: one weight per output unit on average."""
        return min(-(-self.shape.out_units // self.size), self.count)

    def scores(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean score per weight of every block: (out, positions) -> (out / size, positions)."""
        means: NDArray[np.float64] = weights.reshape(-1, self.size, self.shape.fan_in).mean(axis=1)
        return means

    def spread(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Block mask to weight mask: (out / size, positions) -> (out, positions)."""
        return np.repeat(mask, self.size, axis=0)


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the kept blocks of a network stay below: a density, and a budget if there is one.

    Attributes:
        layers: the network.
        density: kept share of its weights.
        budget: of something else, or None.
        share: exponent between 0 (everything is kept) and 1 (the ceilings asked for).
    """

    layers: Sequence[Blocks]
    density: float
    budget: Ceiling | None
    share: float = 1.0

    def after(self, share: float) -> Ceilings:
        """The ceilings when a share of the passes is done: both fall exponentially."""
        return replace(self, share=share)

    @property
    def total(self) -> int:
        """All weights of the network."""
        return sum(layer.shape.weights for layer in self.layers)

    @property
    def weights(self) -> int:
        """Most weights that may be kept."""
        return round(math.pow(self.density, self.share) * self.total)

    @cached_property
    def prices(self) -> list[int]:
        """Units of the budget that a block of each layer takes."""
        budget = self.budget
        return [budget.price(layer.shape, layer.size) if budget else 0 for layer in self.layers]

    @property
    def units(self) -> int:
        """Most units of the budget that may be spent."""
        if self.budget is None:
            return 0  # and every price is 0
        everything = self.spent([layer.count for layer in self.layers])
        return round(everything * math.pow(min(1.0, self.budget.free / everything), self.share))

    def spent(self, counts: Sequence[int]) -> int:
        """Units of the budget that so many blocks of each layer take."""
        return sum(count * price for count, price in zip(counts, self.prices, strict=True))

    def require_floors(self) -> None:
        """Refuse ceilings below what every layer keeps in any case.

        Raises:
            PruneError: naming the least that works.
        """
        least = sum(layer.floor * layer.size for layer in self.layers)
        if least > self.weights:
            raise PruneError(
                f"density {self.density:g} is too low: at least {least / self.total:.4f} "
                "is needed for one weight per output unit",
                where="--density",
                hint="Choose a higher density or a larger network",
            )
        self.require_floors_in_budget()

    def require_floors_in_budget(self) -> None:
        """The same of the budget alone: fixed layer densities may exceed the density by their floors.

        Raises:
            PruneError: naming the least that works.
        """
        if self.budget:
            self.budget.require(self.spent([layer.floor for layer in self.layers]))
