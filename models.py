"""Many small networks as one: a stack of multilayer perceptrons whose parameters share batched tensors.

A stack computes its gradient in closed form and in place. So an update is a short list of batched products, which
several threads can work through side by side and a CUDA graph can record.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# oneDNN's float32 product, with the bias and ReLU in the same pass. On AMD's processors it is twice as fast as MKL,
# which PyTorch calls otherwise and which keeps AVX-512 to Intel's. PyTorch has it for its compiler, under this name.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


class Stack:
    """`count` multilayer perceptrons with ReLU between their layers, evaluated together.

    Args:
        count: number of networks N.
        sizes: width of the input, of each hidden layer, and of the output.
        device: where the parameters live.

    Attributes:
        values: all parameters in one tensor (N * P,), so that a step of the optimizer is one kernel; zeros at first.
        parameters: weight (N, in, out) and bias (N, 1, out) of each layer in turn, which are views of `values`.
    """

    def __init__(self, count: int, sizes: Sequence[int], device: torch.device) -> None:
        self.count = count
        self.sizes = tuple(sizes)
        self._shapes = [(rows, outputs) for inputs, outputs in itertools.pairwise(sizes) for rows in (inputs, 1)]
        self.values = torch.zeros(count * sum(map(math.prod, self._shapes)), device=device)
        self.parameters = self.views(self.values)

    def views(self, values: Tensor) -> list[Tensor]:
        """Parts of a tensor that is laid out like `values`, in the shapes of `parameters`."""
        parts = values.split([self.count * math.prod(shape) for shape in self._shapes])
        return [part.view(self.count, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def initialize(self, index: int, generator: torch.Generator) -> None:
        """Draw the parameters of one network, uniform in +-1/sqrt(inputs) as in ``torch.nn.Linear``, on the CPU."""
        for layer, inputs in enumerate(self.sizes[:-1]):
            bound = 1 / math.sqrt(inputs)
            for parameter in self.parameters[2 * layer : 2 * layer + 2]:
                values = torch.rand(parameter.shape[1:], generator=generator)
                parameter[index].copy_(values.mul_(2 * bound).sub_(bound))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """What each layer sees, from the inputs (N, B, in), each network's own, to the outputs (N, B, out)."""
        seen = [inputs]
        for layer in range(0, len(self.parameters), 2):
            weight, bias = self.parameters[layer : layer + 2]
            seen.append(_linear(seen[-1], weight, bias, relu=layer + 2 < len(self.parameters)))
        return seen

    def backward(
        self, seen: Sequence[Tensor], gradient: Tensor, into: Tensor | None = None, inputs: slice | None = None
    ) -> Tensor | None:
        """Gradients of a loss by the chain rule.

        Args:
            seen: what :meth:`forward` returned.
            gradient: of the loss in the outputs (N, B, out).
            into: where the gradient in the parameters is written, laid out like `values`; None: it is not wanted.
            inputs: for which columns of the inputs the gradient is wanted; None: for none.

        Returns:
            The gradient in the inputs (N, B, columns), or None.
        """
        views = self.views(into) if into is not None else None
        for layer in reversed(range(0, len(self.parameters), 2)):
            below, weight = seen[layer // 2], self.parameters[layer]
            if views:
                _product(below.mT, gradient, out=views[layer])
                torch.sum(gradient, 1, keepdim=True, out=views[layer + 1])
            if layer:
                gradient = torch.ops.aten.threshold_backward(_product(gradient, weight.mT), below, 0)  # that of ReLU
            elif inputs is not None:
                return _product(gradient, weight[:, inputs].mT)
        return None

    def row(self, index: int, values: Tensor | None = None) -> Tensor:
        """The parameters (P,) of one network: each weight (in, out) and bias in turn. A copy.

        `values` may be another tensor that is laid out like the stack's own, as the moments of an optimizer are.
        """
        views = self.parameters if values is None else self.views(values)
        return torch.cat([view[index].reshape(-1) for view in views])

    def set_row(self, index: int, row: Tensor, values: Tensor | None = None) -> None:
        """Write what :meth:`row` returned."""
        views = self.parameters if values is None else self.views(values)
        for view, part in zip(views, row.split([math.prod(shape) for shape in self._shapes]), strict=True):
            view[index].copy_(part.view(view.shape[1:]))

    def network_state(self, index: int) -> dict[str, Tensor]:
        """Network `index` as the state dict of ``nn.Sequential(nn.Linear, nn.ReLU, ..., nn.Linear)``, on the CPU."""
        state = {}
        for layer in range(0, len(self.parameters), 2):
            weight, bias = (parameter[index].cpu() for parameter in self.parameters[layer : layer + 2])
            state[f"{layer}.weight"] = weight.mT.contiguous()
            state[f"{layer}.bias"] = bias[0].clone()
        return state


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """Outputs (N, B, out) of one layer."""
    if _ONEDNN and inputs.device.type == "cpu" and weight.shape[-1] > 1:
        rectify = "relu" if relu else "none"
        networks = zip(inputs, weight.mT, bias[:, 0], strict=True)
        return torch.stack([_ONEDNN(x, w, b, rectify, [], "") for x, w, b in networks])
    outputs = _product(inputs, weight).add_(bias) if weight.shape[-1] == 1 else torch.baddbmm(bias, inputs, weight)
    return outputs.relu_() if relu else outputs


def _product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Batched product (N, rows, columns) of (N, rows, n) and (N, n, columns)."""
    if left.device.type != "cpu" or not _ONEDNN:
        return torch.bmm(left, right, out=out)
    if 1 in (left.shape[-1], right.shape[-1]):  # neither oneDNN nor a batched product is any good at vectors
        products = [torch.mm(a, b) for a, b in zip(left, right, strict=True)]
    else:
        products = [_ONEDNN(a, b, None, "none", [], "") for a, b in zip(left, right.mT, strict=True)]
    return torch.stack(products, out=out)


def flat_network(state: dict[str, Tensor]) -> tuple[np.ndarray, tuple[int, ...]]:
    """A network's state dict (see :meth:`Stack.network_state`) as a row (P,) (see :meth:`Stack.row`), and its sizes."""
    weights = [value for name, value in state.items() if name.endswith("weight")]
    sizes = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
    rows = [value.mT.reshape(-1) if value.ndim == 2 else value for value in state.values()]
    return torch.cat(rows).numpy().astype(np.float32), sizes
