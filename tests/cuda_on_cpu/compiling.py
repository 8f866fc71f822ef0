"""CUDA C++ compiled by g++: one shared library for each source, kept from run to run."""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SHIM = FOLDER / "cuda_on_cpu.h"
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-strict-aliasing")
FLAGS += ("-ffp-contract=off", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-Wno-attributes")
SHARED = 48 * 1024  # bytes of static and dynamic shared memory that a block may have

# What makes a block's threads wait for each other.
WAITS = re.compile(r"\b__(?:sync|shfl|ballot|any_sync|all_sync)")
KERNEL = re.compile(r'extern\s*"C"\s*__global__\b[^;{(]*\(')
BOUNDS = re.compile(r"__launch_bounds__\s*\(([^()]*)\)")
BOUND = re.compile(r"__launch_bounds__\s*\(\s*(\d+)[^()]*\)\s*(?:void\s*)?(\w+)\s*\(")
CALLED = re.compile(r"\b([A-Za-z_]\w*)\s*(?:<[^<>;{}()]*>)?\s*\(")
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w\s]+?)(\w+)\s*\[\s*\]\s*;")


class CompileError(Exception):
    """g++'s complaint about a source."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a kernel: p, i, f, s for pointer, integer, float, struct."""

    kind: str
    size: int
    to: str = ""  # of a pointer to numbers: i or f
    to_size: int = 0


class _Piece(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("sizes", ctypes.c_uint * 6),
        ("fibered", ctypes.c_int),
        ("backwards", ctypes.c_int),
        ("pieces", ctypes.c_int),
        ("shared", ctypes.POINTER(_Piece)),
    )


@dataclass
class Kernel:
    """A kernel that can be launched on the CPU."""

    name: str
    parameters: tuple[Parameter, ...]
    fibered: bool  # whether its threads may wait for each other
    pieces: list[tuple[int, int]]  # of static shared memory that may be its own: address, size
    shared: int  # bytes of static shared memory
    bound: int  # threads that a block may have by __launch_bounds__; 0: as many as on any card
    entry: ctypes._CFuncPtr  # type: ignore[name-defined]
    lines: list[str] = field(repr=False)  # of the source

    def __post_init__(self) -> None:
        self._shared = (_Piece * max(1, len(self.pieces)))(*self.pieces)

    def run(self, sizes: tuple[int, ...], addresses: list[int], backwards: bool = False) -> None:
        """All blocks of the grid; RuntimeError where threads wait for each other in vain."""
        places = (ctypes.c_void_p * max(1, len(addresses)))(*addresses)
        how = _Launch(sizes, self.fibered, backwards, len(self.pieces), self._shared)
        problem = self.entry(ctypes.byref(how), places)
        if problem:
            raise RuntimeError(f"the kernel {self.name}: {self._located(problem.decode())}")

    def _located(self, problem: str) -> str:
        """``problem`` with the text of the lines that it names."""
        named = dict.fromkeys(int(n) for n in re.findall(r"line (\d+)", problem))
        texts = [f"{n}: {self.lines[n - 1].strip()}" for n in named if n <= len(self.lines)]
        return "; ".join([problem, *texts])


@cache
def compiler() -> str | None:
    """g++ and its version; None where there is none."""
    if not shutil.which("g++"):
        return None
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


@cache
def folder() -> Path:
    """Where libraries are kept."""
    found = Path(tempfile.gettempdir(), f"cuda_on_cpu_{getpass.getuser()}")
    found.mkdir(mode=0o700, exist_ok=True)
    return found


def library(source: str, flags: tuple[str, ...] = ()) -> Path:
    """The shared library of C++ ``source``, compiled if no earlier run has."""
    version = compiler()
    if version is None:
        raise CompileError("g++ was not found")
    parts = (source, SHIM.read_text("utf-8"), version, *FLAGS, *flags)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    found = folder() / f"{key}.so"
    if not found.exists():
        _compile(source, found, flags)
    return found


def _compile(source: str, to: Path, flags: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=to.parent) as name:
        made = Path(name, "made.so")
        command = ["g++", *FLAGS, *flags, f"-I{FOLDER}", "-x", "c++", "-", "-o", str(made)]
        done = subprocess.run(command, input=source, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"g++ failed:\n{done.stderr[:6000]}")
        os.replace(made, to)


def kernels(code: str, options: tuple[str, ...]) -> dict[str, Kernel]:
    """The kernels of a CUDA C++ source, by name."""
    defines = [option[2:].replace("=", " ", 1) for option in options if option.startswith("-D")]
    marked = _preprocessed(code, defines)
    bounds = {name: int(most) for most, name in BOUND.findall(marked)}
    plain = BOUNDS.sub("", marked)
    names = [_name(match.group()) for match in KERNEL.finditer(plain)]
    path = library(_translated(code, defines, names))
    loaded = ctypes.PyDLL(str(path))  # which keeps Python's lock: one launch at a time
    bodies = _bodies(plain)
    shared = _shared(path)
    lines = code.splitlines()
    found = {}
    for name in names:
        reached = _reached(name, bodies)
        entry = getattr(loaded, f"launch_{name}")
        entry.restype = ctypes.c_char_p
        signature = getattr(loaded, f"signature_{name}")
        signature.restype = ctypes.c_char_p
        moved = (ctypes.cast(entry, ctypes.c_void_p).value or 0) - shared[f"launch_{name}"][0][0]
        found[name] = Kernel(
            name,
            tuple(_parameter(word) for word in signature().decode().split()),
            any(WAITS.search(bodies.get(each, "")) for each in reached),
            [(at + moved, size) for each in reached for at, size, _ in shared.get(each, ())],
            sum(_most(shared.get(each, [])) for each in reached),
            bounds.get(name, 0),
            entry,
            lines,
        )
    return found


def _translated(code: str, defines: list[str], names: list[str]) -> str:
    """What g++ is given: the source in a namespace of its own, and an entry for each kernel."""
    if DYNAMIC.search(code):
        code = DYNAMIC.sub(r"\1* \2 = (\1*)::cuda_on_cpu::dynamic;", code)
        head = ["#define CUDA_DYNAMIC"]
    else:
        head = []
    head += ['#include "cuda_on_cpu.h"', *(f"#define {each}" for each in defines)]
    entries = [f"CUDA_KERNEL({name})" for name in names]
    # Not in the namespace's first line: an error's line is the source's.
    return "\n".join([*head, "namespace {", "#line 1", code, "}", *entries, ""])


def _preprocessed(code: str, defines: list[str]) -> str:
    """The source without comments and with its macros replaced, which may make kernels."""
    text = "\n".join([*(f"#define {each}" for each in defines), code])
    command = ["g++", "-E", "-P", "-x", "c++", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"g++ -E failed:\n{done.stderr[:6000]}")
    return done.stdout


def _name(head: str) -> str:
    return re.findall(r"\w+", head)[-1]


def _parameter(word: str) -> Parameter:
    if word.startswith("p") and len(word) > 2:
        return Parameter("p", 8, word[2], int(word[3:]))
    return Parameter(word[0], int(word[1:]))


# ---- which functions a kernel reaches


def _bodies(plain: str) -> dict[str, str]:
    """What stands in braces behind each name and its parentheses, all overloads together."""
    found: dict[str, str] = {}
    at = 0
    while (match := CALLED.search(plain, at)) is not None:
        at = match.end()
        end = _closing(plain, match.end() - 1, "()")
        rest = re.compile(r"\s*(?:const\s*)?\{").match(plain, end)
        if rest is not None:
            close = _closing(plain, rest.end() - 1, "{}")
            name = match.group(1)
            found[name] = found.get(name, "") + plain[rest.end() : close]
    return found


def _closing(text: str, start: int, pair: str) -> int:
    """Behind the bracket that closes the one at ``start``."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == pair[0]) - (text[at] == pair[1])
        if not depth:
            return at + 1
    return len(text)


def _reached(name: str, bodies: dict[str, str]) -> set[str]:
    """The functions that ``name`` may call, itself among them."""
    found: set[str] = set()
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += [word for word in set(_words(bodies.get(each, ""))) if word in bodies]
    return found


def _words(text: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"[A-Za-z_]\w*", text))


def _most(pieces: list[tuple[int, int, str]]) -> int:
    """Bytes of a function's shared memory: of a template's, those of the largest instance."""
    largest: dict[str, int] = {}
    for _, size, variable in pieces:
        largest[variable] = max(size, largest.get(variable, 0))
    return sum(largest.values())


def _shared(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """Shared memory by the function whose it is: address, size, name; and where entries lie.

    The shared memory of a function is its local static variables: it has no others.
    """
    plain, readable = (
        subprocess.run(
            ["nm", "-S", "--no-sort", *flags, str(path)], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for flags in ((), ("-C",))
    )
    found: dict[str, list[tuple[int, int, str]]] = {}
    for mangled, line in zip(plain, readable, strict=True):
        parts = line.split(maxsplit=3)
        name = mangled.split()[-1]
        if name.startswith("launch_"):
            found[name] = [(int(parts[0], 16), 0, "")]
        if not name.startswith("_ZZ") or name.startswith("_ZZN11cuda_on_cpu") or len(parts) < 4:
            continue
        if parts[2] in "bBdD":
            owner, _, variable = parts[3].replace("(anonymous namespace)::", "").rpartition("::")
            owner = re.sub(r"\(.*|<.*", "", owner).split()[-1].rpartition("::")[2]
            piece = (int(parts[0], 16), int(parts[1], 16), variable)
            found.setdefault(owner, []).append(piece)
    return found
