"""A tour of Tensor: gradients, a second derivative, an op of one's own, two backends at once.

    python examples/scripting.py

Prints what it finds and checks it; the last line says how far the backends are apart.
"""

import tinygrad_mnist as tg
from tinygrad_mnist import backend, testing
from tinygrad_mnist.autograd import Function, grad

# Tensors are made as in PyTorch; float32 unless told otherwise.
x = tg.tensor([0.5, 1.0, 2.0], requires_grad=True)
y = (x.sin() * x**2).sum()
y.backward()
print("y =", y.item(), " dy/dx =", x.grad)
testing.assert_close(x.grad, x.cos() * x**2 + 2 * x * x.sin())

# A gradient is made of ops, so it has a gradient: Newton's method takes both to the minimum of
# x⁴/4 − 2x, where x³ = 2.
x = tg.tensor(1.0, dtype=tg.float64, requires_grad=True)
for _ in range(6):
    (slope,) = grad(x**4 / 4 - 2 * x, x, create_graph=True)
    (curve,) = grad(slope, x)
    with tg.no_grad():
        x -= slope / curve
print("∛2 =", x.item())
testing.assert_close(x, tg.tensor(2.0, dtype=tg.float64) ** (1 / 3))


class Softsign(Function):
    """x / (1 + |x|), whose slope is 1 / (1 + |x|)²."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x / (1 + x.abs())

    @staticmethod
    def backward(ctx, dY):
        (x,) = ctx.saved_tensors
        return dY / (1 + x.abs()) ** 2


# gradcheck compares with differences, in float64; gradgradcheck the second derivative, too.
z = tg.randn(4, 3, dtype=tg.float64, requires_grad=True)
assert testing.gradcheck(Softsign.apply, (z,)) and testing.gradgradcheck(Softsign.apply, (z,))

# The same script on every backend that runs here; random numbers are the same on each.
answers = {}
for name in [status.name for status in backend.statuses() if status.problem is None]:
    with tg.use_backend(name):
        tg.manual_seed(0)
        w = tg.randn(20, 10, dtype=tg.float64, requires_grad=True)
        tg.nn.functional.dropout(Softsign.apply(w @ w.T)).softmax(1).log().sum().backward()
        answers[name] = w.grad.numpy()
        print(f"{name:<8} {w.grad.norm().item():.15f}")
far = max(abs(answer - answers["numpy"]).max() for answer in answers.values())
print(f"{', '.join(answers)}: at most {far:.1e} apart")
assert far < 1e-12
