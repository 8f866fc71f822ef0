"""Layers and losses as functions, named as in PyTorch."""

from tinygrad_mnist.composed.arrangements import pad as pad
from tinygrad_mnist.functions import log_softmax as log_softmax
from tinygrad_mnist.functions import sigmoid as sigmoid
from tinygrad_mnist.functions import softmax as softmax
from tinygrad_mnist.functions import tanh as tanh
from tinygrad_mnist.nn.functional.activations import elu as elu
from tinygrad_mnist.nn.functional.activations import gelu as gelu
from tinygrad_mnist.nn.functional.activations import hardtanh as hardtanh
from tinygrad_mnist.nn.functional.activations import leaky_relu as leaky_relu
from tinygrad_mnist.nn.functional.activations import logsigmoid as logsigmoid
from tinygrad_mnist.nn.functional.activations import mish as mish
from tinygrad_mnist.nn.functional.activations import relu as relu
from tinygrad_mnist.nn.functional.activations import relu6 as relu6
from tinygrad_mnist.nn.functional.activations import silu as silu
from tinygrad_mnist.nn.functional.activations import softmin as softmin
from tinygrad_mnist.nn.functional.activations import softplus as softplus
from tinygrad_mnist.nn.functional.attention import embedding as embedding
from tinygrad_mnist.nn.functional.attention import (
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from tinygrad_mnist.nn.functional.dropouts import dropout as dropout
from tinygrad_mnist.nn.functional.dropouts import dropout2d as dropout2d
from tinygrad_mnist.nn.functional.encodings import one_hot as one_hot
from tinygrad_mnist.nn.functional.images import adaptive_avg_pool2d as adaptive_avg_pool2d
from tinygrad_mnist.nn.functional.images import avg_pool2d as avg_pool2d
from tinygrad_mnist.nn.functional.images import conv1d as conv1d
from tinygrad_mnist.nn.functional.images import conv2d as conv2d
from tinygrad_mnist.nn.functional.images import conv_transpose2d as conv_transpose2d
from tinygrad_mnist.nn.functional.images import fold as fold
from tinygrad_mnist.nn.functional.images import max_pool2d as max_pool2d
from tinygrad_mnist.nn.functional.images import unfold as unfold
from tinygrad_mnist.nn.functional.losses import binary_cross_entropy as binary_cross_entropy
from tinygrad_mnist.nn.functional.losses import (
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from tinygrad_mnist.nn.functional.losses import cross_entropy as cross_entropy
from tinygrad_mnist.nn.functional.losses import huber_loss as huber_loss
from tinygrad_mnist.nn.functional.losses import kl_div as kl_div
from tinygrad_mnist.nn.functional.losses import l1_loss as l1_loss
from tinygrad_mnist.nn.functional.losses import mse_loss as mse_loss
from tinygrad_mnist.nn.functional.losses import nll_loss as nll_loss
from tinygrad_mnist.nn.functional.losses import smooth_l1_loss as smooth_l1_loss
from tinygrad_mnist.nn.functional.normalisation import batch_norm as batch_norm
from tinygrad_mnist.nn.functional.normalisation import group_norm as group_norm
from tinygrad_mnist.nn.functional.normalisation import layer_norm as layer_norm
from tinygrad_mnist.ops.products import linear as linear
