"""The steps in PyTorch; with ``lib`` tinygrad_mnist they are ours."""

from peers.workloads import data
from tinygrad_mnist.verification.steps import ONE_HOT, cost_of, network


def pytorch_step(step, lib, compiled=None, device=None):
    """The step as a function without arguments, for ``lib`` tinygrad_mnist or torch.

    ``compiled`` is None, ``tinygrad_mnist.jit`` or ``torch.compile``: it is given the step as a
    function of images and targets. ``device`` is where torch computes; ours does on the current
    backend.
    """
    train, batch, _ = training(step, lib, device)
    run = train if compiled is None else compiled(train)
    return lambda: run(*batch)


def training(step, lib, device=None):
    """The step as a function of images and targets, these two, and the model that it trains."""
    lib.manual_seed(0)
    model, optimizer = network(step, lib)
    cost = cost_of(step, lib)
    x, y, onehot = map(lib.from_numpy, data(step))
    target = onehot if step in ONE_HOT else y
    if device is not None:
        model.to(device)  # the parameters keep their identity
        x, target = x.to(device), target.to(device)

    def train(x, target):
        loss = cost(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return train, (x, target), model
