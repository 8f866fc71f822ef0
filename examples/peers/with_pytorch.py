"""The steps in PyTorch; with ``lib`` tinygrad_mnist they are ours."""

from peers.workloads import data
from tinygrad_mnist.verification.steps import ONE_HOT, cost_of, network


def pytorch_step(step, lib, compiled=None):
    """The step as a function without arguments, for ``lib`` tinygrad_mnist or torch.

    ``compiled`` is None, ``tinygrad_mnist.jit`` or ``torch.compile``: it is given the step as a
    function of images and targets.
    """
    lib.manual_seed(0)
    model, optimizer = network(step, lib)
    cost = cost_of(step, lib)
    x, y, onehot = map(lib.from_numpy, data(step))
    target = onehot if step in ONE_HOT else y

    def train(x, target):
        loss = cost(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = train if compiled is None else compiled(train)
    return lambda: run(x, target)
