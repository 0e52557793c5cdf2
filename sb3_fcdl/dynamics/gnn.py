"""A graph neural network over the variables, each of which hears from every other one: the transition of C-SWM."""

from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.arguments import check, integer
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.dense import GraphlessDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.lookup.messages import Ends, Messages
from sb3_fcdl.dynamics.lookup.slots import Slots
from sb3_fcdl.dynamics.stacked import Affine, StackedLinear


class _Products(NamedTuple):
    """
    Products of the matrices that meet without an activation between them, for one version of the weights.

    :param ends: from a variable to the first layer of its edges
    :param own: from a variable to its own first node layer
    :param head: from the last hidden layer of a node to its output
    """

    ends: Ends
    own: Affine
    head: Affine


class GNNDynamics(GraphlessDynamics):
    """
    Each ordered pair of variables sends a message through one shared edge network; the sum of what a variable hears, its own
    embedding and the action pass one shared node network (Kipf et al., 2020, as used by the FCDL paper). It has no graph.

        ``e_i = embedding_i(x_i)``, ``heard_i = sum_{k != i} edge([e_i, e_k])``, ``output_i = head_i(node([e_i, u, heard_i]))``

    The published widths, 256 and 512, need 1.75 times the multiplications of the default ones, which are chosen for a CPU
    (benchmarks/results/README.md, "What the code says of its constants").

    :param factors: the variables
    :param feature_dim: width of the embedding of a variable and of a message (published: 256)
    :param hidden_dim: width of the hidden layers of both networks (published: 512)
    :param n_layers: hidden layers of each network
    """

    def __init__(self, factors: Factors, feature_dim: int = 192, hidden_dim: int = 384, n_layers: int = 3) -> None:
        check(feature_dim=(feature_dim, integer(1)), hidden_dim=(hidden_dim, integer(1)), n_layers=(n_layers, integer(1)))
        super().__init__(factors)
        self.slots = Slots(factors)
        n_slots = self.slots.n_slots
        self.embedding = StackedLinear(n_slots, self.slots.width, feature_dim)
        self.messages = Messages(self.slots, feature_dim, hidden_dim, n_layers)
        self.input_widths = [feature_dim, factors.action_width, feature_dim]
        self.node_input = nn.Linear(sum(self.input_widths), hidden_dim)
        self.node_layers = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(n_layers - 1))
        self.node_output = nn.Linear(hidden_dim, feature_dim)
        self.head = StackedLinear(n_slots, feature_dim, self.slots.output_width)

    def loss(self, windows: Windows) -> Losses:
        products = self._products()
        heard = self.messages.bind(products.ends, windows.valid.numel(), windows.needs_state_gradient)

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            slots = self.slots.read(state)
            outputs = self._node_outputs(products, slots, action, self._node_part(heard(slots)))
            return self.layout.distribution(outputs, state)

        nll = self.unrolled_nll(windows, predict)
        return Losses(nll, {"dynamics": nll.detach()})

    def _stepper(self) -> StepFn:
        products = self._products()
        heard = self.messages.bind_to_plan(products.ends, self._node_part)

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            slots = self.slots.read(state)
            outputs = self._node_outputs(products, slots, action, heard(state, slots))
            return Prediction(self.layout.distribution(outputs, state))

        return step

    def _products(self) -> _Products:
        embedding, last = self.embedding, self.node_output
        source, target = self.messages.first.weight.T.chunk(2)
        own = self.node_input.weight.T[: self.input_widths[0]]
        return _Products(
            Ends(
                Affine(embedding.weight @ source, embedding.bias @ source + self.messages.first.bias),
                Affine(embedding.weight @ target, embedding.bias @ target),
            ),
            Affine(embedding.weight @ own, embedding.bias @ own + self.node_input.bias),
            Affine(last.weight.T @ self.head.weight, last.bias[None] @ self.head.weight + self.head.bias),
        )

    def _node_part(self, heard: th.Tensor) -> th.Tensor:
        """What was heard, ``[..., F]``, as it enters the first node layer, ``[..., hidden_dim]``."""
        return F.linear(heard, self.node_input.weight[:, -self.input_widths[2] :])

    def _node_outputs(self, products: _Products, slots: th.Tensor, action: th.Tensor, heard: th.Tensor) -> th.Tensor:
        """The flat output of the model, ``[R, output_width]``, from what was heard, ``[V, R, hidden_dim]``."""
        of_action = self.node_input.weight.split(self.input_widths, dim=1)[1]
        hidden = (products.own(slots) + F.linear(action, of_action) + heard).relu_()
        for layer in self.node_layers:
            hidden = layer(hidden).relu_()
        return self.slots.write(products.head(hidden))
