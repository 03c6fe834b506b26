"""Many small networks as one: a stack of multilayer perceptrons whose parameters share batched tensors."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Stack:
    """`count` multilayer perceptrons with ReLU between their layers, evaluated together.

    Args:
        count: number of networks N.
        sizes: width of the input, of each hidden layer, and of the output.
        device: where the parameters live.
        generator: source of the initial parameters, uniform in +-1/sqrt(inputs) as in ``torch.nn.Linear``.

    Attributes:
        parameters: weight (N, in, out) and bias (N, 1, out) of each layer in turn.
    """

    def __init__(self, count: int, sizes: Sequence[int], device: torch.device, generator: torch.Generator) -> None:
        self.count = count
        self.sizes = tuple(sizes)
        self.parameters: list[Tensor] = []
        for inputs, outputs in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(inputs)
            for rows in (inputs, 1):
                values = torch.rand(count, rows, outputs, generator=generator) * 2 * bound - bound
                self.parameters.append(values.to(device).requires_grad_())

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs (N, B, out) of inputs (N, B, in), each network on its own batch."""
        hidden = inputs
        for layer in range(0, len(self.parameters), 2):
            weight, bias = self.parameters[layer : layer + 2]
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer + 2 < len(self.parameters):
                hidden = hidden.relu_()
        return hidden

    def copy(self) -> "Stack":
        """The same networks with parameters of their own that want no gradient."""
        twin = Stack.__new__(Stack)
        twin.count, twin.sizes = self.count, self.sizes
        twin.parameters = [parameter.detach().clone() for parameter in self.parameters]
        return twin

    def network_state(self, index: int) -> dict[str, Tensor]:
        """Network `index` as the state dict of ``nn.Sequential(nn.Linear, nn.ReLU, ..., nn.Linear)``, on the CPU."""
        state = {}
        for layer in range(0, len(self.parameters), 2):
            weight, bias = (parameter[index].detach().cpu() for parameter in self.parameters[layer : layer + 2])
            state[f"{layer}.weight"] = weight.mT.contiguous()
            state[f"{layer}.bias"] = bias[0].clone()
        return state

    def flat(self) -> np.ndarray:
        """All parameters as float32 (N, P), each network's weights (in, out) and biases one after the other."""
        rows = [parameter.detach().reshape(self.count, -1) for parameter in self.parameters]
        return torch.cat(rows, dim=1).cpu().numpy()


def flat_network(state: dict[str, Tensor]) -> tuple[np.ndarray, tuple[int, ...]]:
    """A network's state dict (see :meth:`Stack.network_state`) as a row (P,) of `Stack.flat`, and its sizes."""
    weights = [value for name, value in state.items() if name.endswith("weight")]
    sizes = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
    rows = [value.mT.reshape(-1) if value.ndim == 2 else value for value in state.values()]
    return torch.cat(rows).numpy().astype(np.float32), sizes
