"""The steps as a PyTorch user writes them; with ``lib`` tinygrad_mnist they are ours."""

import itertools

from peers.workloads import WIDTHS, data


def pytorch_step(step, lib, compiled=None):
    """The step as a function without arguments, for ``lib`` tinygrad_mnist or torch.

    ``compiled`` is None, ``tinygrad_mnist.jit`` or ``torch.compile``: it is given the step as a
    function of images and targets.
    """
    lib.manual_seed(0)
    model, optimizer = network(step, lib)
    cost = cost_of(step, lib)
    x, y, onehot = map(lib.from_numpy, data(step))
    target = onehot if step in ("sgd-10", "full-32-16") else y

    def train(x, target):
        loss = cost(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = train if compiled is None else compiled(train)
    return lambda: run(x, target)


def network(step, lib):
    """The network of a step and its optimizer."""
    nn, optim = lib.nn, lib.optim
    if step.startswith("cnn"):
        model = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
        )  # fmt: skip
        return model, optim.Adagrad(model.parameters())
    if step.startswith("mlp"):
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
        return model, optim.Adam(model.parameters())
    layers = []
    for before, after in itertools.pairwise(WIDTHS[step]):
        layers += [nn.Linear(before, after), nn.Sigmoid()]
    model = nn.Sequential(*(layers[:-1] if step == "full-100" else layers))
    return model, optim.SGD(model.parameters(), lr=0.1)


def cost_of(step, lib):
    """The loss of a step as a function of the network's output and the target."""
    if step == "sgd-10":
        return lambda output, onehot: (output - onehot).square().sum() * (0.5 / len(output))
    if step == "full-32-16":
        return lib.nn.functional.mse_loss
    return lib.nn.functional.cross_entropy
