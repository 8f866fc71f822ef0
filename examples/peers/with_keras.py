"""The steps in Keras: ``train_on_batch`` of a compiled model."""

import keras
import numpy as np
from keras import layers, losses, optimizers

from peers.workloads import data
from tinygrad_mnist.verification.steps import ONE_HOT, WIDTHS


def keras_step(step):
    """The step as a function without arguments."""
    x, y, onehot = data(step)
    if step.startswith("cnn"):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    loss, target = losses.SparseCategoricalCrossentropy(from_logits=True), y
    if step in ONE_HOT:
        loss, target = losses.MeanSquaredError(), onehot
    stack, optimizer = network(step)
    model = keras.Sequential([keras.Input(x.shape[1:]), *stack])
    model.compile(optimizer, loss)
    tensors = [keras.ops.convert_to_tensor(each) for each in (x, target)]
    return lambda: model.train_on_batch(*tensors)


def network(step):
    """The layers of a step and its optimizer."""
    if step.startswith("cnn"):
        stack = [
            layers.Conv2D(10, 5), layers.MaxPooling2D(2), layers.ReLU(),
            layers.Conv2D(20, 5), layers.SpatialDropout2D(0.5), layers.MaxPooling2D(2),
            layers.ReLU(), layers.Flatten(), layers.Dense(50, activation="relu"),
            layers.Dropout(0.5), layers.Dense(10),
        ]  # fmt: skip
        return stack, optimizers.Adagrad(0.01)
    if step.startswith("mlp"):
        stack = [layers.Dense(128, activation="relu"), layers.Dropout(0.2), layers.Dense(10)]
        return stack, optimizers.Adam()
    stack = [layers.Dense(width, activation="sigmoid") for width in WIDTHS[step][1:-1]]
    stack += [layers.Dense(10, activation=None if step == "full-100" else "sigmoid")]
    return stack, optimizers.SGD(0.1)
