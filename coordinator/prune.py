"""Pruning at initialisation: a plan, a density and a seed in, a ticket out. No data anywhere.

Scores are taken per block of neighbouring output rows (`wire.ticket`), ranked by their mean per
weight, and every layer keeps at least one weight per output unit on average, so none collapses.
With a budget (`coordinator.budget`) they are ranked by score per cost instead, and the ticket stays below both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator import calibrate
from coordinator.blocks import Blocks, Ceilings, block_sizes
from coordinator.ceiling import STEPS, Binds, Candidates, Ceiling, select
from coordinator.saliency import Scores, initial_magnitudes, synaptic_flow
from wire import bits
from wire.errors import PruneError, UnknownName, did_you_mean
from wire.layers import Norm
from wire.plan import Plan
from wire.ticket import Keep, Ticket

PASSES = 100
DEFAULT_BLOCK = 4
LOGIT_DEVIATION = 0.25  # of the random network; see `prune`
# A network that normalises cannot let its features grow: its logits grow as signs align and in no other way. With
# `hidenseek simulate --model har-resnet --validate --rounds 10 --first-seed 100` logits of 1.0 instead of 0.25 (that is
# --set logit_deviation=0.0625) come to 98.6 instead of 97.5 % personalised, 85.5 instead of 83.3 % global.
NORMALISED_FACTOR = 4.0
METHODS = {
    "synflow": f"weights with the largest synaptic flow, in {PASSES} passes (--passes)",
    "synflow-oneshot": "the same in a single pass, as HideNseek's reference recipe",
    "magnitude": "largest initial weights",
    "uniform": "seeded random, the same density in every layer",
    "erk": "seeded random, Erdos-Renyi-kernel densities: small layers keep more",
    "random-synflow": "seeded random, with the layer densities synflow finds",
    "random-synflow-oneshot": "seeded random, with the layer densities synflow-oneshot finds",
    "random-magnitude": "seeded random, with the layer densities magnitude finds",
}
BlockMasks = list[NDArray[np.bool_]]  # per layer (out / block, positions)
Progress = Callable[[int, int], None]


def prune(
    plan: Plan,
    *,
    density: float,
    seed: int,
    method: str = "synflow",
    block: int = DEFAULT_BLOCK,
    passes: int = PASSES,
    magnitudes: str = "constant",
    logit_deviation: float = LOGIT_DEVIATION,
    budget: Ceiling | None = None,
    progress: Progress = lambda done, total: None,
) -> Ticket:
    """Prune a random network and return its ticket.

    Args:
        plan: the network.
        density: share of all weights to keep, in (0, 1]; at most, if there is a budget.
        seed: of the initial weights and of random masks, 0 .. 2**64-1.
        method: a name in `METHODS`.
        block: output rows that share their kept positions, where a layer's width divides by it; else 1.
        passes: of iterative synflow.
        magnitudes: kept weights are all +-c ("constant"), or keep their normal magnitudes ("normal").
        logit_deviation: size of the logits that the last layer's scale is set for (`coordinator.calibrate`), times
            `NORMALISED_FACTOR` in a network with normalisation; 0: Kaiming's scale there too.
        budget: on the device's work, time or memory; a note "binds" says whether it or the density ended pruning.
        progress: told (passes done, passes in all).

    Raises:
        UnknownName: if there is no such method.
        PruneError: if the density or the budget is too low for every layer and class to be reached.
    """
    if method not in METHODS:
        raise UnknownName(
            f"no pruning method is called '{method}'", where="--method", hint=did_you_mean(method, [*METHODS])
        )
    if not 0 < density <= 1:
        raise PruneError(f"density is {density:g}, a number in (0, 1] expected", where="--density")
    if block < 1:
        raise PruneError(f"block is {block}, at least 1 expected", where="--block")
    shapes = plan.weight_layers()
    layers = [Blocks(shape=shape, size=size) for shape, size in zip(shapes, block_sizes(plan, block), strict=True)]
    ceilings = Ceilings(layers=layers, density=density, budget=budget)
    weights = initial_magnitudes(plan, seed)
    scoring = method.removeprefix("random-")
    kept: Sequence[int | NDArray[np.bool_]]
    binds: Binds
    if scoring in ("uniform", "erk"):
        ceilings.require_floors_in_budget()
    else:
        ceilings.require_floors()
    match scoring:
        case "synflow":
            kept, binds = _by_flow(plan, ceilings, weights, passes, progress)
        case "synflow-oneshot":
            kept, binds = _by_flow(plan, ceilings, weights, 1, progress)
        case "magnitude":
            scores = [layer.scores(w) for layer, w in zip(layers, weights, strict=True)]
            kept, binds = _take_best(ceilings, scores)
        case "uniform":
            kept, binds = _densest(ceilings, lambda share: [share] * len(layers))
        case "erk":
            kept, binds = _densest(ceilings, lambda share: _erk(layers, share))
        case _:
            raise UnknownName(f"no pruning method is called '{method}'")
    if method.startswith("random-"):
        kept = [int(np.count_nonzero(mask)) for mask in kept]
    made: dict[str, str | int | float] = {"method": method, "density": density, "block": block}
    if scoring == "synflow":
        made["passes"] = passes
    if budget:
        made.update({**budget.notes, "binds": binds})
    ticket = Ticket(
        plan=plan,
        seed=seed,
        magnitudes=magnitudes,
        layers=tuple(_keep(layer, mask) for layer, mask in zip(layers, kept, strict=True)),
        made=made,
    )
    _check_paths(ticket)
    normalised = any(isinstance(layer, Norm) for layer in plan.layers)
    deviation = logit_deviation * (NORMALISED_FACTOR if normalised else 1)
    return _calibrated(ticket, deviation) if deviation else ticket


def _keep(layer: Blocks, mask: int | NDArray[np.bool_]) -> Keep:
    """What the ticket stores: c = sqrt(2 / kept fan-in), Kaiming's rule for what is left of the layer."""
    count = mask if isinstance(mask, int) else int(np.count_nonzero(mask))
    stored = mask if isinstance(mask, int) else bits.encode(mask.reshape(-1))
    scale = float(np.float32(math.sqrt(2 * layer.shape.out_units / (count * layer.size))))
    return Keep(block=layer.size, mask=stored, scale=scale)


def _calibrated(ticket: Ticket, deviation: float) -> Ticket:
    """The ticket with a last layer that makes the random network's logits deviate that much."""
    *layers, last = ticket.layers
    scale = float(np.float32(last.scale * deviation / calibrate.logit_deviation(ticket)))
    return replace(ticket, layers=(*layers, replace(last, scale=scale)))


def _by_flow(
    plan: Plan, ceilings: Ceilings, magnitudes: Scores, passes: int, progress: Progress
) -> tuple[BlockMasks, Binds]:
    """Keep the blocks with the most flow, in `passes` steps of exponentially falling density and budget.

    Source: Tanaka et al. 2020 (arXiv 2006.05467), algorithm 1: density after pass k is d^(k/n).
    """
    layers = ceilings.layers
    masks = [np.ones((layer.shape.out_units // layer.size, layer.shape.fan_in), dtype=np.bool_) for layer in layers]
    binds: Binds = "density"
    for done in range(1, passes + 1):
        spread = [layer.spread(mask) for layer, mask in zip(layers, masks, strict=True)]
        scores, _ = synaptic_flow(plan, magnitudes, spread)
        blocks = [layer.scores(score) for layer, score in zip(layers, scores, strict=True)]
        masks, binds = _take_best(ceilings.after(done / passes), blocks)
        progress(done, passes)
    return masks, binds


def _take_best(ceilings: Ceilings, scores: Scores) -> tuple[BlockMasks, Binds]:
    """Keep the best blocks of the whole network, after every layer's floor of its own best.

    Equal scores go to the earlier layer and position, so the result is the same everywhere.
    """
    candidates = [
        Candidates(scores=score.reshape(-1), size=layer.size, price=price, floor=layer.floor)
        for layer, score, price in zip(ceilings.layers, scores, ceilings.prices, strict=True)
    ]
    masks, binds = select(candidates, weights=ceilings.weights, units=ceilings.units)
    return [mask.reshape(score.shape) for mask, score in zip(masks, scores, strict=True)], binds


def _densest(ceilings: Ceilings, densities: Callable[[float], Sequence[float]]) -> tuple[list[int], Binds]:
    """Kept blocks per layer at the highest density up to the one asked for that the budget allows.

    Args:
        ceilings: what to stay below.
        densities: those of the layers, from the network's.
    """

    def counts(share: float) -> list[int]:
        wanted = zip(ceilings.layers, densities(share), strict=True)
        return [max(layer.floor, round(density * layer.count)) for layer, density in wanted]

    if ceilings.spent(counts(ceilings.density)) <= ceilings.units:
        return counts(ceilings.density), "density"
    low, high = 0.0, ceilings.density
    for _ in range(STEPS):
        middle = (low + high) / 2
        if ceilings.spent(counts(middle)) <= ceilings.units:
            low = middle
        else:
            high = middle
    return counts(low), "budget"


def _erk(layers: list[Blocks], density: float) -> list[float]:
    """Erdos-Renyi-kernel densities with mean `density`, none above 1.

    d_l is proportional to (n_in + n_out + sum of kernel sides) / (n_in * n_out * prod of kernel sides).
    Source: Evci et al. 2020 (arXiv 1911.11134), section 3.
    """
    sizes = np.array([layer.shape.weights for layer in layers], dtype=np.float64)
    raw = np.array([sum(layer.shape.weight_shape) for layer in layers]) / sizes
    full = np.zeros(sizes.size, dtype=np.bool_)
    while True:
        # Layers that would exceed 1 are kept whole; the others share what is left.
        factor = (density * sizes.sum() - sizes[full].sum()) / max((raw * sizes)[~full].sum(), 1e-300)
        densities = np.where(full, 1.0, factor * raw)
        if (densities <= 1).all():
            return [float(d) for d in densities]
        full |= densities > 1


def _check_paths(ticket: Ticket) -> None:
    """Refuse a ticket in which a layer carries nothing or a class is not reached from the input.

    Raises:
        PruneError: naming the layer or the classes.
    """
    masks = []
    for layer in ticket.kept_layers:
        mask = np.zeros(layer.shape.weights, dtype=np.bool_)
        mask[layer.indices] = True
        masks.append(mask.reshape(layer.shape.out_units, -1))
    ones = [np.ones(mask.shape) for mask in masks]
    flows, classes = synaptic_flow(ticket.plan, ones, masks)
    hint = f"Choose a density above {ticket.made['density']:g}, another seed, or --method synflow"
    for layer, flow in zip(ticket.kept_layers, flows, strict=True):
        if not flow.any():
            raise PruneError(
                f"layer {layer.shape.name} would carry nothing: none of its {layer.kept} kept weights "
                "lies on a path from input to output",
                hint=hint,
            )
    dead = [str(i) for i in np.flatnonzero(classes == 0)]
    if dead:
        raise PruneError(f"no path from the input reaches class {', '.join(dead)}", hint=hint)
