"""The coder of masks, the counter of votes and the random words in C; `wire` does without where it is not built."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = "wire.so"
