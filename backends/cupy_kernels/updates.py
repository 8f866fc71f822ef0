"""The optimizers' updates: all tensors of a parameter group in one launch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_mnist.backends.cupy_kernels.launching import Fn, Launching
from tinygrad_mnist.backends.numbers import (
    adadelta_numbers,
    adagrad_numbers,
    adam_numbers,
    rmsprop_numbers,
    sgd_numbers,
)
from tinygrad_mnist.kernels import Array

MOST, LISTS = 80, 5  # what an update takes in one launch: all arguments fit in 4096 bytes
TENSORS = np.dtype(
    [
        ("count", np.int64),
        ("ends", np.int64, (MOST,)),
        ("at", np.uint64, (LISTS, MOST)),
    ]
)


def groups(lists: Sequence[Sequence[Array]]) -> Iterator[tuple[np.ndarray, int]]:
    """The struct ``Tensors`` of up to ``MOST`` tensors at a time, and the elements of these.

    A list of moments may be empty; its pointers are null. Tensors without elements are left out.
    """
    kept = [i for i, p in enumerate(lists[0]) if p.size]
    for start in range(0, len(kept), MOST):
        chosen = kept[start : start + MOST]
        made = np.zeros((), TENSORS)
        made["count"] = len(chosen)
        made["ends"][: len(chosen)] = np.cumsum([lists[0][i].size for i in chosen])
        for pointers, arrays in zip(made["at"], lists, strict=False):
            if arrays:
                pointers[: len(chosen)] = [arrays[i].data.ptr for i in chosen]
        yield made, int(made["ends"][len(chosen) - 1])


class Updates(Launching):
    """The contract's updates, whose numbers of the host reach the kernels in one struct."""

    def sgd_(
        self,
        params: list[Array],
        grads: list[Array],
        buffers: list[Array],
        *,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
        first: bool,
    ) -> None:
        self._update(
            "sgd", sgd_numbers, params, grads, buffers, lr=lr, momentum=momentum,
            dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=maximize,
            first=first,
        )  # fmt: skip

    def adam_(
        self,
        params: list[Array],
        grads: list[Array],
        exp_avgs: list[Array],
        exp_avg_sqs: list[Array],
        max_exp_avg_sqs: list[Array],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled_weight_decay: bool,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "adam", adam_numbers, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs,
            lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize, step=step,
        )  # fmt: skip

    def adagrad_(
        self,
        params: list[Array],
        grads: list[Array],
        sums: list[Array],
        *,
        lr: float,
        lr_decay: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "adagrad", adagrad_numbers, params, grads, sums, lr=lr, lr_decay=lr_decay, eps=eps,
            weight_decay=weight_decay, maximize=maximize, step=step,
        )  # fmt: skip

    def adadelta_(
        self,
        params: list[Array],
        grads: list[Array],
        square_avgs: list[Array],
        acc_deltas: list[Array],
        *,
        lr: float,
        rho: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "adadelta", adadelta_numbers, params, grads, square_avgs, acc_deltas, lr=lr, rho=rho,
            eps=eps, weight_decay=weight_decay, maximize=maximize, step=step,
        )  # fmt: skip

    def rmsprop_(
        self,
        params: list[Array],
        grads: list[Array],
        square_avgs: list[Array],
        grad_avgs: list[Array],
        buffers: list[Array],
        *,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float,
        weight_decay: float,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "rmsprop", rmsprop_numbers, params, grads, square_avgs, grad_avgs, buffers, lr=lr,
            alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay, maximize=maximize,
            step=step,
        )  # fmt: skip

    def _update(self, name: str, fn: Fn, *lists: list[Array], **static: Any) -> None:
        """The kernel ``name`` for all parameters, in one launch of up to ``MOST``.

        An array that is not contiguous is updated as a copy.
        """
        if not lists[0]:
            return
        given = [[self._contiguous(x) for x in arrays] for arrays in lists]
        numbers = self._numbers(fn, **static)
        for tensors, size in groups(given):
            self._each("optimizers", name, size, lists[0][0].dtype, tensors, *numbers)
        for arrays, copies in zip(lists[:1] + lists[2:], given[:1] + given[2:], strict=True):
            for x, copy in zip(arrays, copies, strict=True):
                if copy is not x:
                    x[...] = copy
