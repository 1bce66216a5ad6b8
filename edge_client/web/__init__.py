"""A device in a browser: kernels in WebAssembly, the rest in TypeScript (`make web`)."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "dist"  # the page, as it is served; there if it was built
