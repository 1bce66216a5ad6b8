"""Build the page: `python -m edge_client.web.build`, or `make web`.

The kernels and the coder of masks become WebAssembly: the C sources of the boards, for vectors of 128 bits and one
thread. That needs clang, lld and wasi-libc (Debian's packages of these names); no Emscripten. Of the C library only
mathematics and memory are linked; what is left to the page is a clock, which the kernels ask when layers are timed.
The TypeScript needs node 20 and npm, which fetches the packages that package-lock.json names.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from edge_client.kernels import build as kernels
from edge_client.web import FOLDER, PAGE
from wire.compiler import Compiler, put_library, tell
from wire.native import FOLDER as CODER

COMPILER = Compiler(
    language="WebAssembly",
    variable="WASM_CC",
    programs=("clang",),
    where="web kernels",
    otherwise="go without the page",
)
NPM = Compiler(language="TypeScript", variable="NPM", programs=("npm",), where="page", otherwise="go without the page")
TARGET = FOLDER / "src" / "kernels.wasm"
STATIC = ("index.html", "style.css", "manifest.webmanifest", "icon.svg", "icon-192.png", "icon-512.png")
CHECKS = FOLDER / "check" / "out"  # programs for the tests
EXPORTS = (
    *("hs_vector_width", "hs_struct_bytes", "hs_check", "hs_load_scores", "hs_step", "hs_gradient", "hs_logits"),
    *("hs_adaptive_encode", "hs_adaptive_decode", "__heap_base"),
)
MACHINE = ("--target=wasm32-wasi", "--sysroot=/usr")
FLAGS = (*MACHINE, "-std=gnu11", "-O3", "-msimd128", "-mbulk-memory", "-fno-math-errno", "-ffp-contract=fast")
# Without -O, which would have clang run binaryen's wasm-opt where that is installed; Debian's refuses these vectors.
LINK = (
    *(*MACHINE, "-mexec-model=reactor", "-nodefaultlibs", "-lc", "-Wl,--strip-all"),
    *(f"-Wl,--export={name}" for name in EXPORTS),
)


def sources() -> list[Path]:
    """The C files: all kernels but the benchmark's, and the coder."""
    return [source for source in kernels.sources() if source.name != "peak.c"] + [CODER / "adaptive.c"]


def build_kernels(target: Path = TARGET, *, compiler: str | None = None) -> Path:
    """Compile the module and put it into its place, in one atomic move.

    Args:
        target: the file to write.
        compiler: see `Compiler.find`; a clang that has the target wasm32-wasi.

    Raises:
        RuntimeMissing: if there is no compiler, or it fails.
    """
    command = COMPILER.find(compiler)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-", suffix=".tmp") as name:
        draft = Path(name) / target.name
        objects = [str(Path(name) / f"{source.stem}.o") for source in sources()]
        for source, made in zip(sources(), objects, strict=True):
            COMPILER.run([*command, *FLAGS, "-c", str(source), "-o", made])
        COMPILER.run([*command, *LINK, *objects, "-o", str(draft)])
        put_library(draft, target)
    return target


def build_page(npm: Sequence[str], target: Path = PAGE) -> Path:
    """Put the page together: its files, programs and kernels, and a service worker that knows the bytes of them all.

    Raises:
        RuntimeMissing: if npm fails.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-", suffix=".tmp") as name:
        draft = Path(name) / target.name
        draft.mkdir()
        for file in STATIC:
            shutil.copyfile(FOLDER / "src" / "page" / file, draft / file)
        shutil.copyfile(TARGET, draft / TARGET.name)
        NPM.run([*npm, "run", "page", "--", f"--outdir={draft}"])
        files = sorted(file.name for file in draft.iterdir())
        version = sha256(b"".join((draft / file).read_bytes() for file in files)).hexdigest()[:16]
        known = {"FILES": ["./", *files], "VERSION": version}
        defined = [f"--define:{name}={json.dumps(value)}" for name, value in known.items()]
        NPM.run([*npm, "run", "service-worker", "--", *defined, f"--outfile={draft / 'sw.js'}"])
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return target


def build() -> list[Path]:
    """Compile everything, after the source tree's own TypeScript.

    Raises:
        RuntimeMissing: if clang or npm is missing, or fails.
    """
    made = build_kernels()
    npm = [*NPM.find(), "--prefix", str(FOLDER), "--silent"]
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        NPM.run([*npm, "ci", "--no-audit", "--no-fund"])
    shutil.rmtree(CHECKS, ignore_errors=True)
    NPM.run([*npm, "run", "check"])
    return [made, build_page(npm), CHECKS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    return tell(build)


if __name__ == "__main__":
    sys.exit(main())
