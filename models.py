"""Multilayer perceptrons of the same shape, batched: their parameters share tensors, and they are evaluated together.

Gradients are computed in closed form and in place, without autograd, so an update is a short list of matrix products
that a CUDA graph can capture.
"""

import itertools
import math
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def _made_by_intel(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        return "GenuineIntel" in cpuinfo.read_text(encoding="utf-8")
    except OSError:  # only Linux has it
        return "GenuineIntel" in platform.processor()


# oneDNN's float32 matrix product, with bias and ReLU fused. PyTorch has it for its compiler, under this name.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None

# On AMD processors it is twice as fast as MKL, which PyTorch calls otherwise and which uses AVX-512 only on Intel.
# On Intel processors MKL is faster: an update at 128 units takes a third less time with it.
_USES_ONEDNN = _ONEDNN is not None and not _made_by_intel()

_THIN = 8  # columns up to which MKL is faster anyway, measured for batches of 128

_LAYER_NORM_EPS = 1e-5  # that of ``torch.nn.LayerNorm``


class Activation(NamedTuple):
    """An activation function whose derivative can be computed from its outputs."""

    module: type[nn.Module]
    apply: Callable[[Tensor], Tensor]  # in place
    gradient: Callable[[Tensor, Tensor], Tensor]  # w.r.t. the inputs, from that w.r.t. the outputs, and the outputs


ACTIVATIONS = {
    "relu": Activation(
        nn.ReLU, torch.relu_, lambda gradient, outputs: torch.ops.aten.threshold_backward(gradient, outputs, 0)
    ),
    "tanh": Activation(nn.Tanh, torch.tanh_, torch.ops.aten.tanh_backward),
    "elu": Activation(
        nn.ELU, functional.elu_, lambda gradient, outputs: torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, outputs)
    ),
}


class Normalized(NamedTuple):
    """What the backward pass of a layer norm needs."""

    inputs: Tensor  # (..., B, width)
    mean: Tensor  # (..., B, 1)
    inverse_std: Tensor  # (..., B, 1)


class Activations(NamedTuple):
    """What the backward pass of a network needs."""

    outputs: list[Tensor]  # inputs, each hidden layer after its activation, and outputs
    normalized: list[Normalized]  # for each hidden layer, if there are layer norms

    def rows(self, rows: slice) -> "Activations":
        """Return the activations of some rows of the batch."""
        outputs = [layer[..., rows, :] for layer in self.outputs]
        # PyTorch's backward kernel of layer norm reads them as if they were contiguous.
        normalized = [Normalized(*(x[..., rows, :].contiguous() for x in layer)) for layer in self.normalized]
        return Activations(outputs, normalized)


def parameter_count(sizes: Sequence[int]) -> int:
    """Return the number of parameters P of a multilayer perceptron with layers of these widths."""
    return sum(map(math.prod, _shapes(sizes)))


def _shapes(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return the shapes of the weight and the bias of each layer in turn."""
    return [(rows, outputs) for inputs, outputs in itertools.pairwise(sizes) for rows in (inputs, 1)]


class BatchedMLP:
    """Multilayer perceptrons, evaluated together.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        values: all parameters of N networks in one tensor (N * P,), so that an optimizer step is one kernel.
        activation: the function between layers, a name in :data:`ACTIVATIONS`.
        layer_norm: whether each hidden layer is normalized before its activation (Ba et al., "Layer Normalization",
            2016, arXiv:1607.06450), without gain and bias: the adjacent weights can do their work.

    Attributes:
        count: number of networks N.
        gradient: what :meth:`backward` computed for `values`, in the same layout.
        parameters: weight (N, in, out) and bias (N, 1, out) of each layer in turn, which are views of `values`.
    """

    def __init__(
        self, sizes: Sequence[int], values: Tensor, activation: str = "relu", layer_norm: bool = False
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation = activation
        self.layer_norm = layer_norm
        self.count = count = len(values) // parameter_count(sizes)
        self._shapes = _shapes(sizes)
        self.values = values
        self.gradient = torch.zeros_like(values)
        self.parameters = self.views(self.values)
        gradients = self.views(self.gradient)
        # oneDNN takes one network at a time; everything else takes all as one batch.
        self._one_by_one = _USES_ONEDNN and values.device.type == "cpu"
        self._parts = [(self.parameters, gradients)]
        if self._one_by_one:
            self._parts = [([p[k] for p in self.parameters], [g[k] for g in gradients]) for k in range(count)]

    def views(self, values: Tensor) -> list[Tensor]:
        """Return views of a tensor with the layout of `values`, in the shapes of `parameters`."""
        parts = values.split([self.count * math.prod(shape) for shape in self._shapes])
        return [part.view(self.count, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def initialize(self, index: int, generator: torch.Generator) -> None:
        """Draw the parameters of one network, uniform in +-1/sqrt(inputs) as in ``torch.nn.Linear``, on the CPU."""
        for layer, inputs in enumerate(self.sizes[:-1]):
            bound = 1 / math.sqrt(inputs)
            for parameter in self.parameters[2 * layer : 2 * layer + 2]:
                values = torch.rand(parameter.shape[1:], generator=generator)
                parameter[index].copy_(values.mul_(2 * bound).sub_(bound))

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[Activations]]:
        """Return the outputs (N, B, out) of inputs (N, B, in), and the activations that :meth:`backward` needs."""
        parts = inputs.unbind() if self._one_by_one else [inputs]
        activations = [
            _forward(part, parameters, self.activation, self.layer_norm)
            for part, (parameters, _) in zip(parts, self._parts, strict=True)
        ]
        return self._joined([network.outputs[-1] for network in activations]), activations

    def backward(
        self,
        activations: Sequence[Activations],
        gradient: Tensor,
        *,
        rows: slice = slice(None),
        parameter_gradient: bool = False,
        input_columns: slice | None = None,
    ) -> Tensor | None:
        """Compute gradients of a loss by the chain rule.

        Args:
            activations: what :meth:`forward` returned.
            gradient: of the loss with respect to the outputs (N, rows, out).
            rows: the rows of the batch that the loss depends on.
            parameter_gradient: whether to compute the gradient of the parameters, into `self.gradient`.
            input_columns: the columns of the inputs to return the gradient of; None: none.

        Returns:
            The gradient of those inputs (N, rows, columns), or None.
        """
        parts = gradient.unbind() if self._one_by_one else [gradient]
        found = [
            _backward(
                network.rows(rows),
                part,
                parameters,
                self.activation,
                into if parameter_gradient else None,
                input_columns,
            )
            for network, part, (parameters, into) in zip(activations, parts, self._parts, strict=True)
        ]
        return None if input_columns is None else self._joined(found)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts) if self._one_by_one else parts[0]

    def row(self, index: int, values: Tensor | None = None) -> Tensor:
        """Return a copy of the parameters (P,) of one network: each weight (in, out) and bias in turn.

        `values` may be another tensor with the layout of the networks' own, such as the moments of an optimizer.
        """
        views = self.parameters if values is None else self.views(values)
        return torch.cat([view[index].reshape(-1) for view in views])

    def set_row(self, index: int, row: Tensor, values: Tensor | None = None) -> None:
        """Set the parameters of one network from what :meth:`row` returned."""
        views = self.parameters if values is None else self.views(values)
        for view, part in zip(views, row.split([math.prod(shape) for shape in self._shapes]), strict=True):
            view[index].copy_(part.view(view.shape[1:]))

    def network_state(self, index: int) -> dict[str, Tensor]:
        """Return network `index` as the CPU state dict of ``nn.Sequential(nn.Linear, nn.ReLU, ..., nn.Linear)``.

        With layer norms, ``nn.LayerNorm(width, elementwise_affine=False)`` comes before each activation. The
        activation may be another one than ReLU.
        """
        state = {}
        for layer in range(len(self.sizes) - 1):
            weight, bias = (parameter[index].cpu() for parameter in self.parameters[2 * layer : 2 * layer + 2])
            place = layer * (3 if self.layer_norm else 2)
            state[f"{place}.weight"] = weight.mT.contiguous()
            state[f"{place}.bias"] = bias[0].clone()
        return state


# Below, tensors belong to one network, (B, in), or to all, (N, B, in).


def _forward(inputs: Tensor, parameters: Sequence[Tensor], activation: str, layer_norm: bool) -> Activations:
    outputs, normalized = [inputs], []
    for layer in range(0, len(parameters), 2):
        weight, bias = parameters[layer : layer + 2]
        hidden = layer + 2 < len(parameters)
        fused = hidden and activation == "relu" and not layer_norm
        values = _linear(outputs[-1], weight, bias, relu=fused)
        if hidden and layer_norm:
            outcome, mean, inverse_std = torch.native_layer_norm(values, values.shape[-1:], None, None, _LAYER_NORM_EPS)
            normalized.append(Normalized(values, mean, inverse_std))
            values = outcome
        if hidden and not fused:
            values = ACTIVATIONS[activation].apply(values)
        outputs.append(values)
    return Activations(outputs, normalized)


def _backward(
    activations: Activations,
    gradient: Tensor,
    parameters: Sequence[Tensor],
    activation: str,
    into: Sequence[Tensor] | None,
    input_columns: slice | None,
) -> Tensor:
    """Return the gradient of `input_columns`, if given; write that of the parameters into `into`, if given."""
    for layer in reversed(range(0, len(parameters), 2)):
        below, weight = activations.outputs[layer // 2], parameters[layer]
        if into:
            _product(below.mT, gradient, out=into[layer])
            torch.sum(gradient, -2, keepdim=True, out=into[layer + 1])
        if layer:
            gradient = ACTIVATIONS[activation].gradient(_product(gradient, weight.mT), below)
            if activations.normalized:
                values, mean, inverse_std = activations.normalized[layer // 2 - 1]
                gradient = torch.ops.aten.native_layer_norm_backward(
                    gradient, values, values.shape[-1:], mean, inverse_std, None, None, [True, False, False]
                )[0]
        elif input_columns is not None:
            gradient = _product(gradient, weight[..., input_columns, :].mT)
    return gradient


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    if inputs.ndim == 3:
        outputs = torch.baddbmm(bias, inputs, weight)
        return outputs.relu_() if relu else outputs
    if weight.shape[-1] == 1:
        return torch.addmm(bias, inputs, weight)
    assert _ONEDNN is not None
    return _ONEDNN(inputs, weight.mT, bias[0], "relu" if relu else "none", [], "")


def _product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    if left.ndim == 3:
        return torch.bmm(left, right, out=out)
    if min(left.shape[-1], right.shape[-1]) <= _THIN:
        return torch.mm(left, right, out=out)
    assert _ONEDNN is not None
    product = _ONEDNN(left, right.mT, None, "none", [], "")
    return product if out is None else out.copy_(product)


def flat_network(state: dict[str, Tensor]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the parameters (P,) of a :meth:`BatchedMLP.network_state` in the order of `row`, and its layer sizes."""
    weights = [value for name, value in state.items() if name.endswith("weight")]
    sizes = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
    rows = [value.mT.reshape(-1) if value.ndim == 2 else value for value in state.values()]
    return torch.cat(rows).numpy().astype(np.float32), sizes
