"""Updates of parameters: lists of arrays, one call for all that are alike in a parameter group."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinygrad_mnist.kernels.base import Array, writes
from tinygrad_mnist.kernels.networks import Networks


class Optimizers(Networks):
    """An optimizer's step in place: parameters and moments are written, gradients are read.

    ``maximize`` turns the gradient g round and ``weight_decay``·p is added to it before all else.
    Lists of moments that an update does without are empty. ``step`` counts from 1; where no formula
    has it, it is there to be counted. Denormal numbers in moments become 0.
    """

    @writes("params", "buffers")
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
        """b ← momentum·b + (1−dampening)·g; p ← p − lr·b; the ``first`` g is not damped.

        With ``nesterov`` p ← p − lr·(g + momentum·b), without momentum p ← p − lr·g.
        """
        add = 1.0 if first else 1 - dampening
        slopes = self._slopes(params, grads, weight_decay, maximize)
        for i, (p, g) in enumerate(zip(params, slopes, strict=True)):
            if momentum:
                self._blend(buffers[i], g, momentum, add, self.xp.empty_like(p))
                g = g + momentum * buffers[i] if nesterov else buffers[i]
            p -= lr * g

    @writes("params", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs")
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
        """m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + eps).

        t is ``step``. With a list of their maxima, these stand for v. Decay that is decoupled
        leaves g alone: p ← p − lr·weight_decay·p first.
        """
        step_size = lr / (1 - beta1**step)
        correction = (1 - beta2**step) ** 0.5
        coupled = 0.0 if decoupled_weight_decay else weight_decay
        slopes = self._slopes(params, grads, coupled, maximize)
        for i, (p, g, m, v) in enumerate(zip(params, slopes, exp_avgs, exp_avg_sqs, strict=True)):
            if weight_decay and decoupled_weight_decay:
                p *= 1 - lr * weight_decay
            scratch = self.xp.empty_like(p)
            self._blend(m, g, beta1, 1 - beta1, scratch)
            self._average_square(v, g, beta2, scratch)
            if max_exp_avg_sqs:
                v = self.xp.maximum(max_exp_avg_sqs[i], v, out=max_exp_avg_sqs[i])
            self.xp.sqrt(v, out=scratch)
            scratch /= correction
            scratch += eps
            self.xp.divide(m, scratch, out=scratch)
            p -= self.xp.multiply(scratch, step_size, out=scratch)

    @writes("params", "sums")
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
        """s ← s + g²; p ← p − lr / (1 + (step−1)·lr_decay) · g / (√s + eps)."""
        rate = lr / (1 + (step - 1) * lr_decay)
        slopes = self._slopes(params, grads, weight_decay, maximize)
        for p, g, total in zip(params, slopes, sums, strict=True):
            scratch = self.xp.empty_like(p)
            total += self.xp.multiply(g, g, out=scratch)
            self.xp.sqrt(total, out=scratch)
            scratch += eps
            self.xp.divide(g, scratch, out=scratch)
            p -= self.xp.multiply(scratch, rate, out=scratch)

    @writes("params", "square_avgs", "acc_deltas")
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
        """v ← ρv + (1−ρ)g²; d = g·√(u + eps)/√(v + eps); u ← ρu + (1−ρ)d²; p ← p − lr·d."""
        slopes = self._slopes(params, grads, weight_decay, maximize)
        for p, g, v, u in zip(params, slopes, square_avgs, acc_deltas, strict=True):
            delta, scratch = self.xp.empty_like(p), self.xp.empty_like(p)
            self._average_square(v, g, rho, scratch)
            self.xp.sqrt(self.xp.add(u, eps, out=delta), out=delta)
            delta /= self.xp.sqrt(self.xp.add(v, eps, out=scratch), out=scratch)
            delta *= g
            p -= self.xp.multiply(delta, lr, out=scratch)
            self._average_square(u, delta, rho, scratch)

    @writes("params", "square_avgs", "grad_avgs", "buffers")
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
        """v ← αv + (1−α)g²; d = g / (√v + eps); b ← momentum·b + d; p ← p − lr·b, or lr·d.

        With ``grad_avgs``, a ← αa + (1−α)g, and v − a², which rounding must not make negative,
        stands for v.
        """
        slopes = self._slopes(params, grads, weight_decay, maximize)
        for i, (p, g, v) in enumerate(zip(params, slopes, square_avgs, strict=True)):
            scratch = self.xp.empty_like(p)
            self._average_square(v, g, alpha, scratch)
            if grad_avgs:
                self._blend(grad_avgs[i], g, alpha, 1 - alpha, scratch)
                self.xp.multiply(grad_avgs[i], grad_avgs[i], out=scratch)
                v = self.xp.maximum(self.xp.subtract(v, scratch, out=scratch), 0, out=scratch)
            self.xp.sqrt(v, out=scratch)
            scratch += eps
            self.xp.divide(g, scratch, out=scratch)
            if buffers:
                self._blend(buffers[i], scratch, momentum, 1.0, scratch)
            p -= self.xp.multiply(buffers[i] if buffers else scratch, lr, out=scratch)

    def _slopes(
        self, params: list[Array], grads: list[Array], weight_decay: float, maximize: bool
    ) -> Iterable[Array]:
        """What to go down along: each gradient, or its negative, with the decay's part."""
        slopes: Iterable[Array] = (-g for g in grads) if maximize else grads
        if not weight_decay:
            return slopes
        return (g + weight_decay * p for p, g in zip(params, slopes, strict=True))

    def _blend(self, moment: Array, x: Array, keep: float, add: float, scratch: Array) -> None:
        """moment ← keep·moment + add·x; ``x`` may be ``scratch``."""
        moment *= keep
        moment += self.xp.multiply(x, add, out=scratch)
        self._flush(moment, self.xp.abs(moment, out=scratch), scratch)

    def _average_square(self, mean: Array, x: Array, keep: float, scratch: Array) -> None:
        """mean ← keep·mean + (1−keep)·x²."""
        self.xp.multiply(x, x, out=scratch)
        mean *= keep
        mean += self.xp.multiply(scratch, 1 - keep, out=scratch)
        self._flush(mean, mean, scratch)

    def _flush(self, x: Array, size: Array, scratch: Array) -> None:
        """Denormal numbers of ``x`` to zero, where its ``size`` |x| is below the least normal one.

        A moment that decays into them slows every later step. One scratch array serves a whole
        update: several large ones would go back to the system and come anew at every step.
        """
        x *= self.xp.greater_equal(size, np.finfo(x.dtype).tiny, out=scratch)
