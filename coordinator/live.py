"""What is redrawn in place while something goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveView(ABC):
    """Drawn on a terminal from where it is entered until it is left; elsewhere it has to print lines instead.

    Args:
        console: where to.
    """

    PER_SECOND: ClassVar[float] = 4

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None  # while it is drawn

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=self.PER_SECOND)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @abstractmethod
    def _render(self) -> RenderableType:
        """How it stands."""
