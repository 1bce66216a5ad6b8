"""A device in a browser: its formats, agent and trainer in TypeScript, and the kernels compiled to WebAssembly."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
