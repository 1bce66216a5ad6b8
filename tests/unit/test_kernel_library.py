"""The kernels' library is of the sources beside it, or says what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edge_client.kernels import library
from wire.errors import RuntimeMissing


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_a_library_of_other_sources_is_refused(tmp_path: Path) -> None:
    """An older one, left where the tree was brought up to date, lacks a function."""
    source, made = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("long long hs_cpu_level(void) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, source], check=True)
    with pytest.raises(RuntimeMissing, match=r"built from other sources.*hs_vector_width") as caught:
        library._open(made)
    assert caught.value.hint == "Build it again: python -m edge_client.kernels.build"
