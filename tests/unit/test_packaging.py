"""Packaging: which kernels are compiled for which machine, what the wheel is called, and that it works alone."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge_client.kernels import build, library
from edge_client.runtimes import registry
from tests.wheels import ROOT, build_wheel, copy_tree, environment, pip
from wire import compiler
from wire.errors import RuntimeMissing

# What a freshly installed device can be asked: one training step, and where the kernels come from.
ONE_STEP = """
import numpy as np
from edge_client.kernels import library
from edge_client.runtimes.sparse import SparseRuntime
from wire.bundle import Bundle
from wire.layers import Linear
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket
plan = Plan(name="one", input_shape=(8,), layers=(Linear(out_features=4),))
ticket = Ticket(plan=plan, seed=1, magnitudes="constant", layers=(Keep(block=4, mask=3, scale=0.5),))
runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(batch=8))
x, y, weights = np.ones((8, 8), np.float32), np.arange(8) % 4, np.ones(8, np.float32)
print(library.library_path(), runtime.step(x, y, weights).loss)
"""
WITHOUT_KERNELS = """
import edge_client.cli
from edge_client.kernels import library
from edge_client.runtimes import registry
print(library.library_path(), "sparse" in registry.available())
"""
# Eight samples with the labels of one: the runtime would refuse them, the kernels read on.
TOO_FEW_LABELS = ONE_STEP.replace(
    "print(",
    "from edge_client.kernels.library import Result\n"
    "y = np.zeros(1, np.int64)\n"
    "runtime._library.hs_step(runtime._network, x.ctypes.data, y.ctypes.data, weights.ctypes.data, 8, Result())\n"
    "print(",
)


def _fake_compiler(folder: Path, script: str) -> str:
    """A program that writes its arguments to `folder/log`, then runs a shell script."""
    path = folder / "fakecc"
    path.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/log"\n{script}\n')
    path.chmod(0o755)
    return str(path)


MAKES_FILES = """
[ "$1" = -dumpmachine ] && { echo MACHINE-linux-gnu; exit; }
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


def _run(script: str, site: Path, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run Python code on an installation, far from the source tree."""
    env = environment(PYTHONPATH=str(site), **changes)
    command = [sys.executable, "-P", "-c", script]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "armv7l", "armv6l", "riscv64"])
def test_every_machine_has_a_baseline(machine: str) -> None:
    """The build that runs on every processor of a kind is there, as are those the loader looks for on x86-64."""
    names = list(build.levels(machine))
    assert names[0] == "v1"
    assert names == (["v1", "v3", "v4"] if machine == "x86_64" else ["v1"])
    assert set(library.LEVELS[4]) == set(build.levels("x86_64"))


def test_only_32_bit_neon_gives_up_denormals() -> None:
    """No gcc makes 32-bit NEON code without it; no other build may, and the first Pi has no NEON at all."""
    careless = "-funsafe-math-optimizations"
    for machine in ("x86_64", "aarch64", "armv6l"):
        assert not any(careless in flags for flags in build.levels(machine).values())
    assert careless in build.levels("armv7l")["v1"]


def test_without_a_compiler_the_outcome_is_clear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No compiler: an error that names gcc and the other runtime, an exit code, and nothing written."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(RuntimeMissing, match=r"no C compiler found. Install gcc, or use the onnx runtime"):
        build.build(tmp_path)
    assert build.main(["--folder", str(tmp_path)]) == RuntimeMissing.exit_code
    assert "no C compiler" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_compiler_is_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An argument goes before $CC, $CC before gcc; both may carry options; a name that is no program is an error."""
    fake = _fake_compiler(tmp_path, "")
    monkeypatch.setenv("CC", f"{fake} -m64")
    assert build.COMPILER.find() == [fake, "-m64"]
    assert build.COMPILER.find(f"{fake} --sysroot='/a b'") == [fake, "--sysroot=/a b"]
    monkeypatch.setenv("CC", "nosuchcompiler")
    with pytest.raises(RuntimeMissing, match="nosuchcompiler"):
        build.COMPILER.find()


@pytest.mark.parametrize(
    ("triple", "kernel", "machine"),
    [
        ("x86_64-linux-gnu", "x86_64", "x86_64"),
        ("aarch64-linux-gnu", "x86_64", "aarch64"),
        ("arm-linux-gnueabihf", "x86_64", "armv7l"),
        ("arm-linux-gnueabihf", "aarch64", "armv7l"),  # 32-bit Raspberry Pi OS on a 64-bit kernel
        ("arm-linux-gnueabihf", "armv6l", "armv6l"),
        ("i686-linux-gnu", "x86_64", "i686"),
        ("arm64-apple-darwin23", "arm64", "arm64"),
    ],
)
def test_the_compiler_says_for_what_it_compiles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, triple: str, kernel: str, machine: str
) -> None:
    """The target is the compiler's, not the running kernel's."""
    monkeypatch.setattr("platform.machine", lambda: kernel)
    assert build.COMPILER.machine([_fake_compiler(tmp_path, f"echo {triple}")]) == machine


@pytest.mark.parametrize("machine", ["x86_64", "arm"])
def test_every_level_is_compiled_and_readable_by_all(tmp_path: Path, machine: str) -> None:
    """One library per level, mode 755, from every source, and no option that changes the process when linking."""
    fake = _fake_compiler(tmp_path, MAKES_FILES.replace("MACHINE", machine))
    out = tmp_path / "out"
    out.mkdir()
    written = build.build(out, compiler=fake)
    levels = build.levels(build.COMPILER.machine([fake]))
    assert written == [out / f"sparse-{level}.so" for level in levels]
    assert sorted(out.iterdir()) == sorted(written)
    assert {path.stat().st_mode & 0o777 for path in written} == {0o755}
    calls = (tmp_path / "log").read_text().splitlines()
    for flags in levels.values():
        assert sum(" ".join(flags) in call for call in calls) == len(build.sources())
    links = [call for call in calls if "-shared" in call]
    assert len(links) == len(levels)
    assert not any("math" in call for call in links)


def test_a_compiler_that_fails_leaves_the_old_kernels(tmp_path: Path) -> None:
    """What the compiler said is in the error, and no library is replaced by half of one."""
    fake = _fake_compiler(
        tmp_path, '[ "$1" = -dumpmachine ] && { echo x86_64; exit; }\necho "stdio.h: none" >&2; exit 1'
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "sparse-v1.so").write_text("old")
    with pytest.raises(RuntimeMissing, match=r"stdio.h: none"):
        build.build(out, compiler=fake)
    assert [path.read_text() for path in out.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("contents", "tag"),
    [
        ([b"\x7fELF..GLIBC_2.4\0GLIBC_2.17\0", b"\x7fELF GLIBC_2.34\0GLIBC_2.9\0"], "manylinux_2_34_aarch64"),
        ([b"\x7fELF GLIBC_2.4\0"], "manylinux_2_17_aarch64"),
        ([b"\x7fELF musl"], "linux_aarch64"),
        ([b"\x7fELF GLIBC_2.4\0", b"\xcf\xfa\xed\xfe"], None),
    ],
)
def test_the_platform_tag_is_of_the_newest_symbol(tmp_path: Path, contents: list[bytes], tag: str | None) -> None:
    """The highest glibc version of all libraries counts, numbers compared as numbers; no glibc, no manylinux."""
    paths = [tmp_path / f"{i}.so" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert compiler.platform_tag(paths, "aarch64") == tag


def test_a_device_without_kernels_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Falling back to onnx is logged with the way out; a runtime that was asked for is not commented on."""
    for name, there in (("sparse", False), ("onnx", True)):
        monkeypatch.setitem(registry._RUNTIMES, name, (*registry._RUNTIMES[name][:2], lambda there=there: there))
    with caplog.at_level(logging.INFO):
        assert registry.pick("onnx") == "onnx"
        assert not caplog.records
        assert registry.pick(None) == "onnx"
    assert "sparse kernels are not built here" in caplog.text
    assert "install gcc" in caplog.text


@pytest.mark.slow
def test_the_wheel_works_without_the_source_tree(tmp_path: Path) -> None:
    """Built with nothing but the compiler, it holds this build's kernels only, is tagged for what they need, trains."""
    source = copy_tree(tmp_path / "source")
    (source / "edge_client/kernels/sparse-sanitize.so").write_bytes(b"left from a test")
    wheel = build_wheel(source, tmp_path / "wheel")
    machine = build.COMPILER.machine(build.COMPILER.find())
    libraries = sorted(
        ["wire/native/wire.so", *(f"edge_client/kernels/sparse-{level}.so" for level in build.levels(machine))]
    )
    entries = zipfile.ZipFile(wheel).infolist()
    names = [entry.filename for entry in entries]
    assert sorted(name for name in names if name.endswith((".so", ".c", ".h"))) == libraries
    assert {"coordinator/report/page.css", "coordinator/profiles.yaml", "coordinator/devices.schema.json"} <= set(names)
    # The phones' page, where it was built, has a limit of its own (test_web_command.py).
    page_bytes = sum(entry.compress_size for entry in entries if entry.filename.startswith("edge_client/web/dist/"))
    assert bool(page_bytes) == (source / "edge_client/web/dist/index.html").exists()
    assert wheel.stat().st_size - page_bytes < 1_300_000
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    done = _run(ONE_STEP, tmp_path / "site", tmp_path)
    assert done.returncode == 0, done.stderr
    path, loss = done.stdout.split()
    assert Path(path).parent == tmp_path / "site/edge_client/kernels"
    assert 0 < float(loss) < 10
    if shutil.which("readelf"):
        said = [
            subprocess.run(["readelf", "-VW", path], capture_output=True, text=True, check=True).stdout
            for path in (tmp_path / "site").rglob("*.so")
            if str(path.relative_to(tmp_path / "site")) in libraries
        ]
        newest = max(int(minor) for text in said for minor in re.findall(r"Name: GLIBC_2\.(\d+)", text))
        assert wheel.name.endswith(f"-py3-none-manylinux_2_{newest}_{machine}.whl")


@pytest.mark.slow
def test_without_a_compiler_there_is_a_wheel_without_kernels(tmp_path: Path) -> None:
    """The installation succeeds, the wheel is for any machine and says so in its name, and imports."""
    wheel = build_wheel(copy_tree(tmp_path / "source"), tmp_path / "wheel", PATH=str(tmp_path))
    assert wheel.name.endswith("-0.nokernels-py3-none-any.whl")
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    done = _run(WITHOUT_KERNELS, tmp_path / "site", tmp_path)
    assert done.stdout.split() == ["None", "False"], done.stderr


@pytest.mark.slow
def test_a_compiler_that_was_named_has_to_work(tmp_path: Path) -> None:
    """With $CC set nobody gets a wheel without kernels unawares."""
    with pytest.raises(AssertionError, match="no program 'nosuchcompiler'"):
        build_wheel(copy_tree(tmp_path / "source"), tmp_path / "wheel", CC="nosuchcompiler")


@pytest.mark.slow
def test_an_editable_installation_builds_in_place(tmp_path: Path) -> None:
    """`pip install -e .` leaves the kernels beside their sources, and an installation that finds them there."""
    source = copy_tree(tmp_path / "source")
    pip("install", "--no-deps", "--target", tmp_path / "site", "--editable", source)
    assert (source / "edge_client/kernels/sparse-v1.so").exists()
    script = f"import site; site.addsitedir({str(tmp_path / 'site')!r})\n{ONE_STEP}"
    done = _run(script, tmp_path / "site", tmp_path)
    assert done.stdout.startswith(str(source / "edge_client/kernels")), done.stderr


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the tree with the kernels built to check themselves, and the environment that runs them."""
    source = copy_tree(tmp_path_factory.mktemp("sanitized") / "source")
    for part in ("tests", "benchmarks"):  # which tests share fixtures with
        shutil.copytree(
            ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules", "results")
        )
    for part in ("edge_client.kernels.build", "wire.native.build"):
        command = [sys.executable, "-m", part, "--sanitize"]
        subprocess.run(command, cwd=source, env=environment(), check=True, capture_output=True)
    gcc = build.COMPILER.find()[0]
    libraries = [
        subprocess.run([gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    assert all(Path(path).is_absolute() for path in libraries), f"{gcc} has no sanitizers: apt-get install gcc"
    env = environment(LD_PRELOAD=" ".join(libraries), ASAN_OPTIONS="detect_leaks=0")
    env |= {"HIDENSEEK_KERNELS": "sanitize", "HIDENSEEK_WIRE": "sanitize"}
    return source, env


@pytest.mark.slow
def test_the_sparse_tests_pass_under_sanitizers(sanitized: tuple[Path, dict[str, str]]) -> None:
    """Every test of the kernels and the coder reads and writes where it may, as C defines (ASan, UBSan)."""
    source, env = sanitized
    tests = ["tests/unit/test_sparse_runtime.py", "tests/property/test_sparse_parity.py"]
    tests += ["tests/property/test_wire_adaptive.py", "tests/property/test_wire_mask.py", "tests/unit/test_prng.py"]
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_the_sanitizers_are_awake(sanitized: tuple[Path, dict[str, str]]) -> None:
    """Labels shorter than their batch, given past the runtime's own checks, are caught by AddressSanitizer."""
    source, env = sanitized
    command = [sys.executable, "-c", TOO_FEW_LABELS]
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
