"""The house: which module may import which, what stays outside, how large it may grow."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import tinygrad_mnist

PACKAGE = Path(tinygrad_mnist.__file__).parent
BACKENDS = next(
    folder
    for folder in (PACKAGE / "backends", PACKAGE.parent / "backends")
    if (folder / "numpy_backend.py").is_file()
)

# From the bottom up. A module imports only from rows below its own, or from its own subpackage.
LAYERS: list[set[str]] = [
    {"config", "special", "display", "driver", "optional"},
    {"kernels"},
    {"contract"},
    {"backend"},
    {"dispatch", "cuda"},
    {"random", "lines", "flops"},
    {"anomaly"},
    {"autograd"},
    {"checks"},
    {"ops"},
    {"composed"},
    {"in_place"},
    {"tensor"},
    {"creation"},
    {"functions", "testing", "jit"},
    {"nn", "optim", "utils", "machine"},
    {"models", "profiler", "serialization"},
    {"__init__"},  # what the package itself offers: from tinygrad_mnist import __version__
    {"training", "report", "verification"},
    {"command", "runs"},
    {"doctor"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The engine. What is made of tensors alone (composed, creation, nn, …) is not part of it, nor is
# what NumPy lacks (special).
CORE = ("kernels", "contract", "checks", "ops", "tensor", "autograd", "jit")
CORE += ("dispatch", "backend", "config", "random")


def modules() -> list[Path]:
    return sorted(
        p for p in PACKAGE.rglob("*.py") if BACKENDS not in p.parents and "backends" not in p.parts
    )


def backend_files() -> list[Path]:
    return sorted(BACKENDS.rglob("*.py"))


def dotted(path: Path) -> str:
    """``tinygrad_mnist.ops.table`` for its file."""
    root, prefix = (
        (BACKENDS, "tinygrad_mnist.backends")
        if BACKENDS in path.parents
        else (PACKAGE, "tinygrad_mnist")
    )
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join((prefix, *parts))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """The full names that an import statement brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    found = {name for node in ast.walk(tree(path)) for name in imported(node)}
    return {name for name in found if name.split(".")[0] == "tinygrad_mnist"}


def part(name: str) -> str:
    """``ops`` for ``tinygrad_mnist.ops.table.T``; ``__init__`` for what only the package has."""
    piece = (*name.split("."), "__init__")[1]
    known = piece == "backends" or (PACKAGE / piece).is_dir() or (PACKAGE / f"{piece}.py").exists()
    return piece if known else "__init__"


files = pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
all_files = pytest.mark.parametrize(
    "path", [*modules(), *backend_files()], ids=lambda p: f"{p.parent.name}/{p.name}"
)


@files
def test_imports_run_one_way(path: Path) -> None:
    here = part(dotted(path))
    assert here in RANK, f"{here} has no place in LAYERS"
    for name in own_imports(path):
        there = part(name)
        if there == here:
            continue
        assert there in RANK, f"{dotted(path)} imports {name}, which has no place in LAYERS"
        assert RANK[there] < RANK[here], f"{dotted(path)} imports {name} from above it"


@files
def test_the_core_never_imports_a_backend(path: Path) -> None:
    found = {name for name in own_imports(path) if part(name) == "backends"}
    assert not found, f"{dotted(path)} imports {sorted(found)}: backends are named, not imported"


@pytest.mark.parametrize("path", backend_files(), ids=lambda p: p.name)
def test_backends_import_the_contract_and_config_and_nothing_else(path: Path) -> None:
    """And what they share: the numbers that kernels take for static arguments."""
    for name in own_imports(path):
        allowed = ("tinygrad_mnist.kernels", "tinygrad_mnist.config", "tinygrad_mnist.backends.")
        assert name.startswith(allowed), f"{dotted(path)} imports {name}"
        if name.startswith("tinygrad_mnist.backends."):
            own = path.stem.removesuffix("_backend") if path.parent == BACKENDS else ""
            folder = f"{own}_kernels" if own else path.parent.name
            own_or_shared = tuple(f"tinygrad_mnist.backends.{f}" for f in (folder, "numbers."))
            assert name.startswith(own_or_shared), (
                f"{dotted(path)} imports {name}, another backend's"
            )


def test_ops_form_no_circle() -> None:
    """Inside ``ops``, too, imports run one way."""
    names = {dotted(p): own_imports(p) for p in modules() if p.parent.name == "ops"}
    edges = {
        here: {other for other in names for name in found if name.startswith(f"{other}.")} - {here}
        for here, found in names.items()
    }
    edges = {
        here: {o for o in others if o != "tinygrad_mnist.ops"} for here, others in edges.items()
    }
    while edges:
        free = {here for here, others in edges.items() if not others & set(edges)}
        assert free, f"these import each other: {sorted(edges)}"
        edges = {here: others for here, others in edges.items() if here not in free}


@all_files
def test_no_imports_inside_functions(path: Path) -> None:
    """Except of optional packages, which may be missing or slow to load, and of the op table."""
    for function in ast.walk(tree(path)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [n for node in ast.walk(function) for n in imported(node)]
            wrong = [name for name in inside if not _may_be_late(name)]
            assert not wrong, f"{dotted(path)}, {function.name}: imports {wrong}"


def _may_be_late(name: str) -> bool:
    top = name.split(".")[0]
    own = top == "tinygrad_mnist" and not name.startswith("tinygrad_mnist.verification.")
    return not own and top not in sys.stdlib_module_names


@all_files
def test_only_config_reads_the_environment(path: Path) -> None:
    if path == PACKAGE / "config.py":
        return
    for node in ast.walk(tree(path)):
        wrong = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        assert not wrong, f"{dotted(path)}, line {node.lineno}: the environment is config's"
        for name in imported(node):
            assert not name.startswith(("os.environ", "os.getenv")), dotted(path)


@all_files
def test_no_file_is_too_long(path: Path) -> None:
    assert code_lines(path) <= 600, f"{dotted(path)}: {code_lines(path)} lines of code"


def test_the_ops_are_within_their_budget() -> None:
    counted = {dotted(p): code_lines(p) for p in modules() if part(dotted(p)) == "ops"}
    assert sum(counted.values()) <= 800, counted


def test_no_op_is_long() -> None:
    """Forty lines of code: what is longer is two ops, or a check that belongs elsewhere."""
    for path in modules():
        if part(dotted(path)) in ("ops", "composed", "nn", "in_place", "creation"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.FunctionDef):
                    assert function_lines(node) <= 40, f"{dotted(path)}.{node.name}"


def function_lines(node: ast.FunctionDef) -> int:
    doc = ast.get_docstring(node, clean=False)
    whole = (node.end_lineno or 0) - node.lineno + 1
    return whole - (doc.count("\n") + 1 if doc is not None else 0)


def test_the_core_is_within_its_budget() -> None:
    """The engine that runs without ``jit``, and ``jit``, which is as much about what it refuses."""
    counted = {dotted(p): code_lines(p) for p in modules() if part(dotted(p)) in CORE}
    jit = {name: lines for name, lines in counted.items() if part(name) == "jit"}
    assert sum(counted.values()) - sum(jit.values()) <= 3225, counted
    assert sum(jit.values()) <= 1100, jit


def code_lines(path: Path) -> int:
    """Lines with code on them: no blanks, comments or docstrings."""
    with path.open("rb") as file:
        skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)
        skipped += (tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
        lines = {
            line
            for token in tokenize.tokenize(file.readline)
            if token.type not in skipped
            for line in range(token.start[0], token.end[0] + 1)
        }
    return len(lines - set(docstring_lines(tree(path))))


def docstring_lines(module: ast.Module) -> Iterator[int]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(module):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            yield from range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def test_code_lines_counts_code(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    lines = [
        '"""Doc.',
        "",
        'More."""',
        "x = 1  # why",
        "# alone",
        "",
        "def f():",
        '    """D."""',
        "    return (",
        "        x",
        "    )",
    ]
    path.write_text("\n".join(lines))
    assert code_lines(path) == 5


def test_the_package_declares_what_it_imports() -> None:
    """A third-party module is a dependency, an extra, or imported inside a function."""
    declared = {
        "".join(c if c.isalnum() else " " for c in line.split(";")[0].replace("-", "_")).split()[0]
        for line in _requirements()
    }
    declared = {name.lower() for name in declared} | {"pil"}
    for path in [*modules(), *backend_files()]:
        for node in tree(path).body:
            for name in imported(node):
                top = name.split(".")[0]
                known = top in sys.stdlib_module_names or top == "tinygrad_mnist"
                assert known or top.lower() in declared, f"{dotted(path)} imports {top}"


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("tinygrad_mnist") or []
    except importlib.metadata.PackageNotFoundError:
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"].values()
        return [*project["dependencies"], *(line for extra in extras for line in extra)]
