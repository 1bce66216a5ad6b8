"""Federated learning methods to compare, one file each. `names()` lists them; `get()` gets one's class.

A method says what the coordinator holds, what goes down, what a device does with it, what comes up and
how that is put together (`coordinator.baselines.method.Method`). `coordinator.simulate` does all else:
data, selection, the messages, byte counts, evaluation, resuming. To add one, write a file with a
subclass of `Method` here and name it below; `examples/my_method.py` is a whole one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wire.errors import ConfigError, UnknownName, did_you_mean

if TYPE_CHECKING:
    from coordinator.baselines.method import Method

# name: (module, class, one line for --help). Modules import torch, so only the one wanted is imported.
METHODS: dict[str, tuple[str, str, str]] = {
    "hidenseek": ("hidenseek", "HideNseek", "signs of kept weights, as devices train them over MQTT: our recipe"),
    "hidenseek-signs": ("hidenseek_signs", "HideNseekSigns", "the same, and signs are sent, not bits of their scores"),
    "hidenseek-paper": ("hidenseek_paper", "HideNseekPaper", "signs as in the reference design, without our changes"),
    "local-only": ("local_only", "LocalOnly", "every device by itself, nothing is sent"),
    "fedavg": ("fedavg", "FedAvg", "mean of all weights, 32 bits each (arXiv 1602.05629)"),
    "fedmask": ("fedmask", "FedMask", "{0,1} masks of frozen weights, personal where nobody shares (SenSys 2021)"),
    "lotteryfl": ("lotteryfl", "LotteryFL", "personal lottery tickets: prune, rewind, average (arXiv 2008.03371)"),
    "fedpm": ("fedpm", "FedPM", "probabilistic {0,1} masks of frozen weights (arXiv 2209.15328)"),
    "signsgd-mv": ("signsgd", "SignSGD", "signs of updates, by majority vote (arXiv 1810.05291)"),
    "topk": ("topk", "TopK", "the largest 1 % of an update, with error feedback (arXiv 1809.07599)"),
    "fedmrn": ("fedmrn", "FedMRN", "updates as masks of seeded noise (arXiv 2408.03220)"),
}


def names() -> list[str]:
    """All methods' names."""
    return list(METHODS)


def get(name: str) -> type[Method[Any]]:
    """Get a method's class by its name, or by `module:Class` for one that lives elsewhere.

    Raises:
        UnknownName: if there is none.
        ConfigError: if a module outside cannot be imported, or what is named in it is no method.
    """
    from coordinator.baselines.method import Method

    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"method '{name}' cannot be imported ({error})",
                where="--method",
                hint="Write MODULE:CLASS, and put the module's folder on PYTHONPATH",
            ) from error
        if not (isinstance(found, type) and issubclass(found, Method)):
            raise ConfigError(f"'{name}' is not a subclass of coordinator.baselines.method.Method", where="--method")
        return found
    if name not in METHODS:
        raise UnknownName(f"no method is called '{name}'", where="--method", hint=did_you_mean(name, names()))
    module, attribute, _ = METHODS[name]
    cls: type[Method[Any]] = getattr(import_module(f"coordinator.baselines.{module}"), attribute)
    return cls
