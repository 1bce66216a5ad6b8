"""The coder of masks and the counter of votes in C, for both sides; `wire` does without where it is not built."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = "wire.so"
