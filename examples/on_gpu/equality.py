"""Every op, and nine trainings, beside NumPy's: plain and jitted."""

from typing import Any

import numpy as np

from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist.verification import FAMILIES, TRAININGS
from tinygrad_mnist.verification.outcomes import F32, F64, REFERENCE, Column, Outcome
from tinygrad_mnist.verification.run import outcomes
from tinygrad_mnist.verification.workloads import dtype_of, trained

STEPS = 50
MOST = 1e-4  # relative, of losses and state after so many steps
QUICK = ("products", "mlp-32"), 5  # what is compared, and the steps of trainings


def equality(work: Work) -> None:
    """``verify`` of all families as data; then the trainings, by relative differences."""
    names, steps = QUICK if work.quick else ((*FAMILIES, *TRAININGS), STEPS)
    columns = [Column(work.backend, jit) for jit in (False, True)]
    for name in work.mine(names):
        if name in TRAININGS:
            compare_training(work, name, steps, columns)
        else:
            compare_family(work, name, columns)


def compare_family(work: Work, name: str, columns: list[Column]) -> None:
    (made,) = outcomes(columns, [name], lambda items, title, unit: items)
    for outcome in made:
        work.found.setdefault("families", {})[f"{name}, {outcome.column}"] = as_data(outcome)
        if outcome.failures:
            work.fail(f"{outcome.column}: {len(outcome.failures)} of {name} differ from NumPy")
    work.save()


def as_data(outcome: Outcome) -> Found:
    """A line of verify's table; differences in units in the last place."""
    return {
        "cases": outcome.compared,
        "not recorded": outcome.unrecorded,
        "float32": outcome.largest.get(F32),
        "float64": outcome.largest.get(F64),
        "nearest its tolerance": outcome.worst,
        "of its tolerance": outcome.share,
        "failures": outcome.failures,
    }


def compare_training(work: Work, name: str, steps: int, columns: list[Column]) -> None:
    with np.errstate(all="ignore"):
        expected = trained(name, steps, Column(REFERENCE, jit=False))
        for column in columns:
            found: Found = {"steps": steps, "dtype": str(dtype_of(name))}
            try:
                found |= apart(trained(name, steps, column), expected)
            except Exception as error:  # noqa: BLE001  the other trainings go on
                found["error"] = first_lines(error)
                work.fail(f"{column}: {name}: {found['error']}")
            else:
                worst = max(found["loss"], found["state"])
                if not worst <= MOST:
                    work.fail(f"{column}: {name} is {worst:.1e} from NumPy's, at most {MOST:.0e}")
            work.found.setdefault("trainings", {})[f"{name}, {column}"] = found
            work.save()


def apart(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> Found:
    """The largest relative difference: of a loss to NumPy's, of the state to its largest number."""
    state = {
        name: relative(found[name], y, np.abs(y).max(initial=0))
        for name, y in expected.items()
        if name != "loss"
    }
    worst = max(state, key=lambda name: state[name])
    loss = expected["loss"]
    return {
        "loss": relative(found["loss"], loss, np.abs(loss)),
        "state": state[worst],
        "state of": worst,
        "last loss": float(found["loss"][-1]),
    }


def relative(found: Any, expected: Any, size: Any) -> float:
    """The largest |found − expected| / size, ∞ for what is not finite."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    with np.errstate(all="ignore"):
        share = np.where(difference == 0, 0.0, difference / size)
    return float(np.where(np.isfinite(share), share, np.inf).max(initial=0))


def lines(found: Found) -> list[str]:
    """For the end of the output: the ops in one line a column, the trainings in one each."""
    shown = []
    families = found.get("families", {})
    for column in dict.fromkeys(name.partition(", ")[2] for name in families):
        mine = {k: v for k, v in families.items() if k.partition(", ")[2] == column}
        cases = sum(each["cases"] for each in mine.values())
        broken = [name.partition(",")[0] for name, each in mine.items() if each["failures"]]
        largest = {
            kind: max((each[kind] or 0.0 for each in mine.values()), default=0.0)
            for kind in ("float32", "float64")
        }
        ulps = ", ".join(f"{kind} {ulp:,.1f}" for kind, ulp in largest.items())
        verdict = f"FAIL in {', '.join(broken)}" if broken else "pass"
        shown.append(f"{column}: {len(mine)} families, {cases:,} cases, ulps: {ulps}: {verdict}")
    for name, each in found.get("trainings", {}).items():
        text = each.get("error") or f"loss {each['loss']:.1e}, state {each['state']:.1e}"
        shown.append(f"{name}, {each['steps']} steps {each['dtype']}: {text}")
    return shown
