"""The CUDA C++ of the CuPy backend, as compilers read it: without a card, and without CuPy.

What Python launches is read from its source, so that a kernel that is misspelt, or given too much,
is found where nothing can be launched.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import tinygrad_mnist

PACKAGE = Path(tinygrad_mnist.__file__).parent
BACKENDS = next(
    folder
    for folder in (PACKAGE / "backends", PACKAGE.parent / "backends")
    if (folder / "numpy_backend.py").is_file()
)
FOLDER = BACKENDS / "cupy_kernels"
FILES = sorted(path.stem for path in FOLDER.glob("*.cu") if path.stem != "common")
PYTHON = [BACKENDS / "cupy_backend.py", *sorted(FOLDER.glob("*.py"))]
REALS = ("float", "double")
ARCHITECTURES = ("70", "80", "90")
NVCC = shutil.which("nvcc")
COMPILER = shutil.which("g++") or shutil.which("clang++")
MOST = 48 * 1024  # bytes of shared memory that a kernel may declare

files = pytest.mark.parametrize("file", FILES)
reals = pytest.mark.parametrize("real", REALS)
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not found")


def source(file: str) -> str:
    """As ``launching.source`` puts it together, which needs CuPy."""
    return "\n".join((FOLDER / f"{name}.cu").read_text("utf-8") for name in ("common", file))


# ---- as nvcc compiles it


@cache
def known_to_nvcc() -> frozenset[str]:
    done = subprocess.run([str(NVCC), "--list-gpu-arch"], capture_output=True, text=True)
    return frozenset(re.findall(r"compute_(\d+)$", done.stdout, re.M))


def need(architecture: str) -> None:
    if architecture not in known_to_nvcc():
        pytest.skip(f"this nvcc does not know sm_{architecture}, only sm_{min_known()} and later")


def min_known() -> int:
    return min(map(int, known_to_nvcc()))


def compiled(file: str, real: str, folder: Path, *options: str) -> tuple[Path, str]:
    """What nvcc makes of a file, and what it says."""
    written, made = folder / f"{file}.cu", folder / f"{file}.out"
    written.write_text(source(file), "utf-8")
    done = subprocess.run(
        [str(NVCC), "-std=c++17", f"-Dreal={real}", *options, "-o", str(made), str(written)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return made, done.stdout + done.stderr


@needs_nvcc
@files
@reals
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_compiles_and_takes_pointers_i64_double_and_structs(
    file: str, real: str, architecture: str, tmp_path: Path
) -> None:
    need(architecture)
    options = ("--ptx", f"-arch=compute_{architecture}", "-Werror", "all-warnings")
    made, _ = compiled(file, real, tmp_path, *options)
    found = entries(made.read_text())
    assert found, "no kernel"
    wrong = {
        f"{name}: parameter {i} is {kind}"
        for name, kinds in found.items()
        for i, kind in enumerate(kinds, 1)
        if kind not in ("u64", "s64", "b64", "f64", "struct")
    }
    assert not wrong
    assert {name: len(kinds) for name, kinds in found.items()} == {
        name: len(kernel.parameters) for name, kernel in kernels(file).items()
    }, "the kernels that the preprocessor shows are others"


def entries(ptx: str) -> dict[str, list[str]]:
    """The types of each kernel's parameters; ``struct`` for what is passed by its bytes."""
    found = re.findall(r"^\s*\.visible \.entry (\w+)\(([^)]*)\)", ptx, re.M)
    return {
        name: [
            "struct" if "[" in each else re.findall(r"\.param(?: \.align \d+)? \.(\w+)", each)[0]
            for each in given.split(",")
            if each.strip()
        ]
        for name, given in found
    }


@needs_nvcc
@files
@reals
@pytest.mark.parametrize("architecture", [pytest.param("80", marks=pytest.mark.slow), "90"])
def test_registers_and_shared_memory_suffice(
    file: str, real: str, architecture: str, tmp_path: Path
) -> None:
    """What spills lies in memory that is a hundred times slower."""
    need(architecture)
    options = ("-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v")
    _, said = compiled(file, real, tmp_path, *options)
    names = re.findall(r"Compiling entry function '(\w+)'", said)
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    used = re.findall(r"Used \d+ registers(.*)", said)
    assert len(names) == len(spilled) == len(used) == len(kernels(file)), said
    shared = [int((re.findall(r"(\d+) bytes smem", line) or [0])[0]) for line in used]
    assert dict(zip(names, spilled, strict=True)) == dict.fromkeys(names, ("0", "0"))
    assert not {name: size for name, size in zip(names, shared, strict=True) if size > MOST}


# ---- as CuPy's compiler, NVRTC, does: it has no headers of the system, and needs no card

NVRTC = """
import sys
from cupy_backends.cuda.libs import nvrtc
program = nvrtc.createProgram(sys.stdin.read(), "kernels.cu", [], [])
try:
    nvrtc.compileProgram(program, sys.argv[1:])
except nvrtc.NVRTCError:
    sys.exit(nvrtc.getProgramLog(program))
"""


@files
@reals
def test_nvrtc_compiles_it(file: str, real: str) -> None:
    """In a process of its own, as CuPy may warn where there is no card."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy, whose compiler this is, is not installed")
    options = ["--std=c++17", f"-Dreal={real}", "--gpu-architecture=compute_90"]
    done = subprocess.run(
        [sys.executable, "-c", NVRTC, *options],
        input=source(file), capture_output=True, text=True,
    )  # fmt: skip
    if "libnvrtc" in done.stderr:
        pytest.skip("CuPy finds no NVRTC")
    assert done.returncode == 0, done.stderr


# ---- what the sources have, and what Python launches


class Kernel(NamedTuple):
    name: str
    parameters: list[str]


@cache
def kernels(file: str) -> dict[str, Kernel]:
    """The kernels of a file: what macros make, too."""
    if COMPILER is None:
        pytest.skip("no C++ compiler is found, whose preprocessor expands the sources")
    done = subprocess.run(
        [COMPILER, "-E", "-P", "-x", "c++", "-Dreal=float", "-"],
        input=source(file), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = re.sub(r"__launch_bounds__\s*\([^)]*\)", "", done.stdout)
    found = re.findall(r"__global__\s+void\s+(\w+)\s*\(([^)]*)\)", text)
    made = {}
    for name, given in found:
        assert name not in made, f"{file}.cu has two kernels {name}"
        made[name] = Kernel(name, [each.strip() for each in given.split(",") if each.strip()])
    assert len(made) == done.stdout.count("__global__"), f"a kernel of {file}.cu cannot be read"
    assert done.stdout.count('extern "C"') >= len(made), "a kernel's name is mangled"
    return made


class Launch(NamedTuple):
    """A call of ``_each`` or ``_grid``."""

    where: str
    file: str | None  # None: given by a variable
    names: tuple[str, ...]  # patterns: what is put in by a variable may be anything
    arguments: int
    more: bool  # whether there is a starred one, which may be none or many


def launches() -> Iterator[Launch]:
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                first = {"_each": 4, "_grid": 5}.get(node.func.attr)  # of the kernel's arguments
                if first is not None and len(node.args) >= first:
                    file, name, given = node.args[0], node.args[1], node.args[first:]
                    starred = sum(isinstance(each, ast.Starred) for each in given)
                    yield Launch(
                        f"{path.name}:{node.lineno}",
                        file.value if isinstance(file, ast.Constant) else None,
                        tuple(patterns(name)),
                        len(given) - starred,
                        starred > 0,
                    )


def patterns(node: ast.AST) -> Iterator[str]:
    """What strings an expression may be; nothing for a variable."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    elif isinstance(node, ast.JoinedStr):
        parts = [re.escape(p.value) if isinstance(p, ast.Constant) else r"\w*" for p in node.values]
        yield "".join(parts)
    elif isinstance(node, ast.IfExp):
        yield from patterns(node.body)
        yield from patterns(node.orelse)


def test_what_is_launched_is_there_and_takes_as_much() -> None:
    found = list(launches())
    assert bool(found) == bool(FILES)
    wrong = []
    for launch in found:
        if launch.file is not None and launch.file not in FILES:
            wrong.append(f"{launch.where}: there is no {launch.file}.cu")
            continue
        for pattern in launch.names if launch.file is not None else ():
            named = [k for k in kernels(str(launch.file)).values() if re.fullmatch(pattern, k.name)]
            if not named:
                wrong.append(f"{launch.where}: {launch.file}.cu has no kernel {pattern}")
            for kernel in named:
                takes, given = len(kernel.parameters), launch.arguments
                if given > takes or (given < takes and not launch.more):
                    wrong.append(f"{launch.where}: {kernel.name} takes {takes}, given {given}")
    assert not wrong, "\n".join(wrong)


@files
def test_every_kernel_is_launched(file: str) -> None:
    """Its name stands somewhere in Python, by itself or as a part of what is put together."""
    named: set[str] = set()
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named.update(patterns(node))
    named.discard(r"\w*")
    idle = [name for name in kernels(file) if not any(re.fullmatch(p, name) for p in named)]
    assert not idle, f"nobody launches {', '.join(idle)} of {file}.cu"


def test_names_are_in_one_file() -> None:
    """A name that two files had would be easy to confound."""
    where: dict[str, list[str]] = {}
    for file in FILES:
        for name in kernels(file):
            where.setdefault(name, []).append(file)
    assert not {name: found for name, found in where.items() if len(found) > 1}
