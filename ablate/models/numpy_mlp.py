"""`numpy_mlp`: a multi-layer perceptron with backpropagation written out in NumPy, no autograd anywhere.

After Nielsen 2015, chapter 2 (http://neuralnetworksanddeeplearning.com/chap2.html), for whole batches: an image is a row, so
z = aW + b, and a sum over the batch is a matrix product.
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

from ablate.models.options import ModelOptions

OPTIMIZERS = ("sgd", "adam", "adamw")
"""Optimizers whose rules of update are written out in NumPy."""

Array = NDArray[np.floating[Any]]
Initialisation = Literal["normal", "lecun", "xavier", "he"]


class NumpyMlp(ModelOptions):
    """Pixels → hidden layers of sigmoid units → one output for each class, 784–500–50–10 on MNIST; trained without torch.

    Source: an exercise that asks for this network in NumPy only, in the steps of Nielsen 2015, chapter 2; its author shows
    curves and no accuracy. Nielsen reports 95 % on MNIST for a network of 784–30–10 sigmoids.
    Stages for a (1, 28, 28) input: 784 → 500 → 50 → classes. The outputs are the last layer's pre-activations, so that
    softmax and cross-entropy are the same as for every other network.
    """

    name: Literal["numpy_mlp"] = "numpy_mlp"
    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65_536)], ...],
        Field(
            strict=False,
            max_length=16,
            description="Units of each hidden layer; an empty list: no hidden layer.",
            examples=[[500], [30, 20]],
        ),
    ] = (500, 50)
    initialisation: Annotated[
        Initialisation,
        Field(
            description="Initial weights: normal with mean 0 and standard deviation 1 (normal), √(1/inputs) (lecun), "
            "√(2/(inputs + outputs)) (xavier) or √(2/inputs) (he). Biases start at 0.",
            examples=["normal", "he"],
        ),
    ] = "xavier"

    def check(self, shape: tuple[int, int, int]) -> None:
        """Accept every shape."""

    def sizes(self, shape: tuple[int, int, int], classes: int) -> tuple[int, ...]:
        """Return the units of every layer, inputs first."""
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
    """Return a network with random weights. sizes: units of every layer, inputs first, with a layer between each two."""
    network = []
    for inputs, outputs in itertools.pairwise(sizes):
        std = {
            "normal": 1.0,
            "lecun": (1 / inputs) ** 0.5,
            "xavier": (2 / (inputs + outputs)) ** 0.5,
            "he": (2 / inputs) ** 0.5,
        }[initialisation]
        weights = generator.standard_normal((inputs, outputs)) * std
        network.append(Layer(weights.astype(dtype), np.zeros(outputs, dtype)))
    return network


def pre_activation(layer: Layer, inputs: Array) -> Array:
    """Return z = aW + b, (n, outputs). inputs: (n, inputs)."""
    z: Array = inputs @ layer.weights
    z += layer.bias
    return z


def sigmoid_activation(z: Array) -> Array:
    """Return 1/(1 + exp(−z)), elementwise."""
    # By the hyperbolic tangent, because the exponential overflows.
    a: Array = np.tanh(z / 2)
    a += 1
    a /= 2
    return a


def forward_propagation(network: Network, images: Array) -> list[Array]:
    """Return the activations of every layer: the images, hidden units, and last the outputs (n, classes).

    images: (n, pixels). The outputs are pre-activations: their softmax gives the probability of each class.
    """
    activations = [images]
    for layer in network[:-1]:
        activations.append(sigmoid_activation(pre_activation(layer, activations[-1])))
    activations.append(pre_activation(network[-1], activations[-1]))
    return activations


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """Return the loss of each image, (n,). targets: (n, classes), each row the probabilities of the classes."""
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    losses: Array = (targets * (log_total - shifted)).sum(axis=1)
    return losses


def backward_propagate_error(network: Network, activations: list[Array], targets: Array) -> Network:
    """Return the gradients of the batch's mean loss. activations: from `forward_propagation`. targets: (n, classes)."""
    # δ is the gradient of a layer's pre-activation. For cross-entropy after softmax it is probabilities minus targets.
    outputs = activations[-1]
    probabilities = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    delta = (probabilities - targets) / len(targets)
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
    """Scale the gradients in place so that their joint norm is at most `most`, as torch's `clip_grad_norm_` does."""
    slopes = arrays(gradients)
    norm = np.sqrt(sum(np.vdot(slope, slope) for slope in slopes))
    share = most / (norm + 1e-6)
    if share < 1:
        for slope in slopes:
            slope *= share  # noqa: PLW2901 — in place


@dataclass
class Momentum:
    """Update rule of stochastic gradient descent, as `torch.optim.SGD`. velocity: None before the first step."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    velocity: list[Array] | None = None


@dataclass
class Adaptive:
    """Update rule of Adam, or of AdamW if `decoupled`, as `torch.optim`. means, squares: running averages."""

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    decoupled: bool = False
    epsilon: float = 1e-8
    steps: int = 0
    means: list[Array] | None = None
    squares: list[Array] | None = None


def update_weights(network: Network, gradients: Network, rule: Momentum | Adaptive, lr: float) -> None:
    """Change the weights in place by one step with learning rate `lr`; `rule` holds the optimizer's state."""
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
    """Train one step on a batch and return the losses (n,) and outputs (n, classes) from before the update.

    images: (n, pixels). targets: (n, classes), each row the probabilities of the classes. max_grad_norm: largest norm of the
    gradient; None: no clipping.
    """
    activations = forward_propagation(network, images)
    gradients = backward_propagate_error(network, activations, targets)
    if max_grad_norm is not None:
        clip_gradients(gradients, max_grad_norm)
    update_weights(network, gradients, rule, lr)
    return cross_entropy(activations[-1], targets), activations[-1]


# --- the weights of a network -----------------------------------------------------------------------------------------


def arrays(network: Network) -> list[Array]:
    """Return all weights and biases, layer by layer: the arrays themselves, no copies."""
    return [array for layer in network for array in (layer.weights, layer.bias)]


def digest(network: Network) -> str:
    """Return a digest of every weight and bias, bit for bit."""
    weights = hashlib.sha256()
    for array in arrays(network):
        weights.update(np.ascontiguousarray(array).tobytes())
    return weights.hexdigest()[:16]
