"""On what the figures were measured."""

import importlib.metadata
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist.machine import calculating

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "cupy", "torch", "jax", "triton", "numba", "pytest")
ASKED = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit"


def machine(work: Work) -> None:
    """The card, its driver and libraries, versions, clocks, the date and the commit."""
    work.found.update(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        python=platform.python_version(),
        system=platform.platform(),
        processor=calculating(),
        versions=versions(),
        backend=work.backend.name,
        details=work.backend.details(),
    )
    runtime = getattr(getattr(work.backend.xp, "cuda", None), "runtime", None)
    if runtime is not None:
        try:
            work.found["card"] = card(runtime)
        except Exception as error:  # noqa: BLE001  what can be read differs from card to card
            work.found["card"] = first_lines(error)
    work.found["nvidia-smi"] = said_by("nvidia-smi", f"--query-gpu={ASKED}", "--format=csv")
    work.save()


def card(runtime) -> Found:
    """What CUDA's runtime tells of the current device."""
    device = runtime.getDevice()
    about = runtime.getDeviceProperties(device)
    free, total = runtime.memGetInfo()
    name = about["name"]
    return {
        "device": device,
        "name": name.decode() if isinstance(name, bytes) else name,
        "capability": f"{about['major']}.{about['minor']}",
        "multiprocessors": about["multiProcessorCount"],
        "L2 bytes": about.get("l2CacheSize"),
        "memory bytes": total,
        "free bytes": free,
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
    }


def versions() -> Found:
    """Of what is installed; CuPy's package has the CUDA version in its name."""
    found = {}
    for each in importlib.metadata.distributions():
        name = (each.metadata["Name"] or "").lower()
        if name in PACKAGES or name.startswith(("cupy-cuda", "nvidia-cublas", "nvidia-cuda-nvrtc")):
            found[name] = each.version
    return dict(sorted(found.items()))


def commit() -> str | None:
    """The checkout's, with a note of what was changed since."""
    found = said_by("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changed = said_by("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{found} with changes" if found and changed else found


def said_by(*command: str) -> str | None:
    """What a command says; None where it is not here or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def lines(found: Found) -> list[str]:
    """For the end of the output."""
    card = found.get("card")
    known = isinstance(card, dict)
    about = (
        f"{card['name']}, {card['memory bytes'] / 2**30:.0f} GiB, driver {card['driver']}, "
        f"CUDA {card['runtime']}"
        if known
        else f"no card: backend {found.get('backend')}"
    )
    named = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
    return [about, f"Python {found.get('python')}, {named}", f"commit {found.get('commit')}"]
