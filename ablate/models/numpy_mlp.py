"""`numpy_mlp`: a multi-layer perceptron with backpropagation written out in NumPy, no autograd anywhere.

After Nielsen 2015, chapter 2 (http://neuralnetworksanddeeplearning.com/chap2.html), over whole batches: an image is a row,
so z = aW + b, and a sum over the batch is a matrix product.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.fields import Block

Array = NDArray[np.floating[Any]]
Initialisation = Literal["normal", "lecun", "xavier", "he"]


class NumpyMlp(Block):
    """Pixels → hidden layers of sigmoid units → one output a class, 784–500–50–10 on MNIST; trained without torch.

    Source: an exercise that asks for this network in NumPy alone, by the steps of Nielsen 2015, chapter 2; its author
    shows curves and no figure. Nielsen's own network of 784–30–10 sigmoids reports 95 % on MNIST.
    Stages for a (1, 28, 28) input: 784 → 500 → 50 → classes. The outputs are the last layer's pre-activations, so that
    their softmax and the cross-entropy mean the same as for every other network.
    """

    name: Literal["numpy_mlp"] = "numpy_mlp"
    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65_536)], ...],
        Field(strict=False, max_length=16, description="Units of each hidden layer; an empty list: none."),
    ] = (500, 50)
    initialisation: Annotated[
        Initialisation,
        Field(
            description="Initial weights, drawn normally: with deviation 1 (`normal`), √(1/inputs) (`lecun`), "
            "√(2/(inputs + outputs)) (`xavier`) or √(2/inputs) (`he`). Biases begin at 0."
        ),
    ] = "xavier"

    def check(self, shape: tuple[int, int, int]) -> None:
        """Any input will do."""

    def sizes(self, shape: tuple[int, int, int], classes: int) -> tuple[int, ...]:
        """Units of every layer, inputs first."""
        return (shape[0] * shape[1] * shape[2], *self.hidden, classes)


@dataclass
class Layer:
    """Weights of one layer, or their gradients. weights: (inputs, outputs). bias: (outputs,)."""

    weights: Array
    bias: Array


Network = list[Layer]


# --- the steps --------------------------------------------------------------------------------------------------------


def initialize_network(
    sizes: Sequence[int],
    initialisation: Initialisation,
    generator: np.random.Generator,
    dtype: type[np.floating[Any]] = np.float32,
) -> Network:
    """sizes: units of every layer, inputs first → a layer between each two of them."""
    network = []
    for inputs, outputs in itertools.pairwise(sizes):
        deviation = {
            "normal": 1.0,
            "lecun": (1 / inputs) ** 0.5,
            "xavier": (2 / (inputs + outputs)) ** 0.5,
            "he": (2 / inputs) ** 0.5,
        }[initialisation]
        weights = generator.standard_normal((inputs, outputs)) * deviation
        network.append(Layer(weights.astype(dtype), np.zeros(outputs, dtype)))
    return network


def pre_activation(layer: Layer, inputs: Array) -> Array:
    """inputs: (n, inputs) → z, (n, outputs)."""
    z: Array = inputs @ layer.weights
    z += layer.bias
    return z


def sigmoid_activation(z: Array) -> Array:
    """1/(1 + exp(−z)), elementwise."""
    # As a hyperbolic tangent, because the exponential overflows.
    a: Array = np.tanh(z / 2)
    a += 1
    a /= 2
    return a


def forward_propagation(network: Network, images: Array) -> list[Array]:
    """images: (n, pixels) → activations of every layer: the images, hidden units, and last the outputs (n, classes).

    The outputs are pre-activations: their softmax is the chance of each class.
    """
    activations = [images]
    for layer in network[:-1]:
        activations.append(sigmoid_activation(pre_activation(layer, activations[-1])))
    activations.append(pre_activation(network[-1], activations[-1]))
    return activations


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """Loss of each image, (n,). targets: (n, classes), each row the chances of the classes."""
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    losses: Array = (targets * (log_total - shifted)).sum(axis=1)
    return losses


def backward_propagate_error(network: Network, activations: list[Array], targets: Array) -> Network:
    """Gradients of the batch's mean loss. activations: as `forward_propagation` left them. targets: (n, classes)."""
    # δ is the gradient for a layer's pre-activation. Of cross-entropy after softmax it is the error itself.
    outputs = activations[-1]
    chances = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    delta = (chances - targets) / len(targets)
    gradients: Network = []
    for position in reversed(range(len(network))):
        inputs = activations[position]
        gradients.append(Layer(inputs.T @ delta, delta.sum(axis=0)))
        if position > 0:
            # σ′(z) = σ(z)(1 − σ(z))
            slope = 1 - inputs
            slope *= inputs
            delta = delta @ network[position].weights.T
            delta *= slope
    return gradients[::-1]


def clip_gradients(gradients: Network, most: float) -> None:
    """Shrink the gradients in place so that all of them together are no longer than `most`, as torch's
    `clip_grad_norm_` does.
    """
    slopes = arrays(gradients)
    norm = np.sqrt(sum(np.vdot(slope, slope) for slope in slopes))
    share = most / (norm + 1e-6)
    if share < 1:
        for slope in slopes:
            slope *= share  # noqa: PLW2901 — in place


@dataclass
class Momentum:
    """Rule of update: stochastic gradient descent, as `torch.optim.SGD` does it. velocity: None before the first step."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    velocity: list[Array] | None = None


@dataclass
class Adaptive:
    """Rule of update: Adam, or AdamW if `decoupled`, as `torch.optim` does them. means, squares: running averages."""

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    decoupled: bool = False
    epsilon: float = 1e-8
    steps: int = 0
    means: list[Array] | None = None
    squares: list[Array] | None = None


def update_weights(network: Network, gradients: Network, rule: Momentum | Adaptive, lr: float) -> None:
    """One step of `lr` against the gradients, in place; `rule` keeps what it remembers between steps."""
    values, slopes = arrays(network), arrays(gradients)
    if isinstance(rule, Momentum):
        _descend(values, slopes, rule, lr)
    else:
        _adapt(values, slopes, rule, lr)


def _descend(values: list[Array], slopes: list[Array], rule: Momentum, lr: float) -> None:
    if rule.weight_decay:
        for value, slope in zip(values, slopes, strict=True):
            slope += rule.weight_decay * value  # noqa: PLW2901 — in place
    if rule.momentum and rule.velocity is None:
        rule.velocity = [slope.copy() for slope in slopes]
    elif rule.velocity is not None:
        for velocity, slope in zip(rule.velocity, slopes, strict=True):
            velocity *= rule.momentum  # noqa: PLW2901 — in place
            velocity += slope  # noqa: PLW2901 — in place
    for position, (value, slope) in enumerate(zip(values, slopes, strict=True)):
        if rule.velocity is None:
            step = slope
        elif rule.nesterov:
            step = slope + rule.momentum * rule.velocity[position]
        else:
            step = rule.velocity[position]
        value -= lr * step  # noqa: PLW2901 — in place


def _adapt(values: list[Array], slopes: list[Array], rule: Adaptive, lr: float) -> None:
    if rule.means is None or rule.squares is None:
        rule.means, rule.squares = ([np.zeros_like(v) for v in values] for _ in range(2))
    rule.steps += 1
    shrink1, shrink2 = 1 - rule.beta1**rule.steps, 1 - rule.beta2**rule.steps
    for value, slope, mean, square in zip(values, slopes, rule.means, rule.squares, strict=True):
        if rule.decoupled:
            value *= 1 - lr * rule.weight_decay  # noqa: PLW2901 — in place
        elif rule.weight_decay:
            slope += rule.weight_decay * value  # noqa: PLW2901 — in place
        mean += (1 - rule.beta1) * (slope - mean)  # noqa: PLW2901 — in place
        square += (1 - rule.beta2) * (slope * slope - square)  # noqa: PLW2901 — in place
        value -= (lr / shrink1) * mean / (np.sqrt(square / shrink2) + rule.epsilon)  # noqa: PLW2901


def train(
    network: Network,
    images: Array,
    targets: Array,
    rule: Momentum | Adaptive,
    lr: float,
    max_grad_norm: float | None = None,
) -> tuple[Array, Array]:
    """One step on a batch: forward, backward, update → the losses (n,) and outputs (n, classes) before it.

    images: (n, pixels). targets: (n, classes), each row the chances of the classes. max_grad_norm: longest gradient.
    """
    activations = forward_propagation(network, images)
    gradients = backward_propagate_error(network, activations, targets)
    if max_grad_norm is not None:
        clip_gradients(gradients, max_grad_norm)
    update_weights(network, gradients, rule, lr)
    return cross_entropy(activations[-1], targets), activations[-1]


# --- what others ask of a network -------------------------------------------------------------------------------------


def arrays(network: Network) -> list[Array]:
    """All weights and biases, layer by layer: the arrays themselves."""
    return [array for layer in network for array in (layer.weights, layer.bias)]


def digest(network: Network) -> str:
    """Digest of every weight and bias, bit for bit."""
    found = hashlib.sha256()
    for array in arrays(network):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]
