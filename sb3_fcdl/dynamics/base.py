"""The interface of every dynamics model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.dynamics.rows import masked, weight_of_rows
from sb3_fcdl.graphs.graph import CausalGraph


class Windows(NamedTuple):
    """
    Encoded training windows: ``T`` consecutive transitions of one episode.

    :param state: ``[B, T, D]``
    :param action: ``[B, T, A]``
    :param next_state: the recorded successor of each state, ``[B, T, D]``
    :param valid: False where the window has left its episode, ``[B, T]``, bool; once False, False to the end
    """

    state: th.Tensor
    action: th.Tensor
    next_state: th.Tensor
    valid: th.Tensor

    @property
    def needs_state_gradient(self) -> bool:
        """
        Whether a model that follows the windows is asked for the gradient by the states that it is given: they are its own
        samples after the first step.
        """
        return self.valid.shape[1] > 1 or self.state.requires_grad

    def mean_of_rows(self, by_step: Sequence[th.Tensor]) -> th.Tensor:
        """
        :param by_step: something of each row at each of the ``T`` steps, each ``[B, ...]``
        :return: its mean over valid transitions and all other dimensions, a scalar
        """
        means = [masked(each, self.valid[:, step]).mean() for step, each in enumerate(by_step)]
        return th.stack(means).mean() * weight_of_rows(self.valid, means[0].dtype)

    def mean(self, by_step: Sequence[th.Tensor]) -> th.Tensor:
        """
        :param by_step: something of each variable at each of the ``T`` steps, each ``[B, V]``
        :return: its mean over variables and valid transitions, a scalar
        """
        total = (th.stack(list(by_step), dim=1).mean(-1) * self.valid).sum()
        return total / self.valid.sum().clamp(min=1)


class Prediction(NamedTuple):
    """
    What a model says about the next state.

    :param next_state: its distribution, for each of ``R`` rows
    :param graph: which parents were used, ``[R, V, P]``, 0 or 1; None for a model without masks
    :param code: the context, ``[R]``, int64; None for a model without contexts
    """

    next_state: StateDistribution
    graph: th.Tensor | None = None
    code: th.Tensor | None = None


class Losses(NamedTuple):
    """
    :param total: what the optimizer minimises, a scalar
    :param terms: its parts before they are weighted, scalars by name, detached; logged as ``train/<name>_loss``
    :param codes: the contexts met, ``[R]``, int64; None for a model without contexts
    """

    total: th.Tensor
    terms: dict[str, th.Tensor]
    codes: th.Tensor | None = None


StepFn = Callable[[th.Tensor, th.Tensor], Prediction]
PredictFn = Callable[[th.Tensor, th.Tensor], StateDistribution]
"""From a state, ``[R, D]``, and an action, ``[R, A]``, to the distribution of the next state."""


class DynamicsModel(nn.Module, ABC):
    """
    A model of ``p(next state | state, action)`` over named variables.

    Losses, codes and graphs are returned, never kept on the module. Whether the model samples (training) or takes its
    best guess (planning, evaluation) is torch's own ``module.train(mode)``.

    The model that is trained and the one that predicts are two copies: the second has a running average of the first's
    weights, and its buffers (``register_buffer``). Any other attribute that changes in training would stay behind.

    :param factors: the variables
    """

    # Whether a prediction says which parents it was made from.
    has_graph = True
    # One in so many blocks of transitions is kept from ``loss``, for ``after_update`` to judge by; 0: none.
    holds_out = 0
    # Whether several models of the class can be computed at once, by `torch.func.vmap`: which operations there are, and their
    # shapes, must not depend on the values of tensors.
    can_be_stacked = False

    # What a 1 in each encoded column is in the environment's units, ``[D + A]``. ``Trainer`` sets it.
    units: th.Tensor

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.factors = factors
        self.register_buffer("units", th.ones(factors.state_width + factors.action_width), persistent=False)
        self.layout = StateLayout(factors.state_variables)

    @abstractmethod
    def loss(self, windows: Windows) -> Losses:
        """
        The training loss of a batch of windows. Call it in train mode.

        :param windows: encoded windows from the replay buffer
        :return: the total to minimise and its parts
        """

    def stepper(self) -> StepFn:
        """
        The model as a function of ``(state [R, D], action [R, A])``, for as long as the weights stay as they are.

        What depends on the weights alone is computed once, here. The function is deterministic, and each row of its
        answer depends on the same row of the input only.

        :raises RuntimeError: in train mode
        """
        if self.training:
            raise RuntimeError("the model is in train mode: call eval() before planning or reading graphs")
        return self._stepper()

    @abstractmethod
    def _stepper(self) -> StepFn:
        """What ``stepper`` returns; the model is in eval mode."""

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        """
        What the model learns otherwise than by gradient: nothing, unless a model says so. Called after every update.

        :param n_updates: updates so far, this one included
        :param sample_windows: draws that many different windows from the replay buffer, or all if there are fewer. Where the
            model ``holds_out``, those that no ``loss`` is given, and at first perhaps none
        """

    def step(self, state: th.Tensor, action: th.Tensor) -> Prediction:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :return: the prediction for each row
        """
        return self.stepper()(state, action)

    def require_graph(self) -> None:
        """:raises ValueError: if the model has no graph"""
        if not self.has_graph:
            raise ValueError(f"{type(self).__name__} predicts every variable from all parents: it has no graph")

    def local_graph(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """
        The graph that the model uses for each row, ``[R, V, P]``, 0 or 1.

        :raises ValueError: if the model has no graph
        """
        self.require_graph()
        graph = self.step(state, action).graph
        assert graph is not None
        return graph

    @abstractmethod
    def context_graphs(self) -> list[CausalGraph]:
        """The graph of each context, one for a model without contexts, an empty list for one without graphs."""

    @property
    def contexts(self) -> list[int]:
        """Numbers of the contexts that there are, among ``context_graphs``: all, unless a model says otherwise."""
        return list(range(len(self.context_graphs())))

    @property
    def context_variables(self) -> tuple[str, ...]:
        """Names of the variables that the choice of the context reads: all, unless a model says otherwise."""
        return self.factors.parent_names

    @property
    def context_features(self) -> tuple[tuple[str, ...], ...]:
        """
        What the choice of the context looks at, by names: one variable, or two whose difference it is. Each of
        ``context_variables`` by itself, unless a model says otherwise.
        """
        return tuple((name,) for name in self.context_variables)

    def variable_importance(self) -> dict[str, float]:
        """
        What each variable is worth for the choice of the context: how much worse one step is predicted if the choice sees the
        variable of other transitions.

        :return: nats, by name; 0: the variable does not take part. Empty: the model does not measure it, or has not yet
        """
        return {}

    @property
    def free_entries(self) -> np.ndarray:
        """Which entries of a graph are learned rather than given, ``[V, P]``, bool."""
        return np.ones((len(self.factors.state_variables), len(self.factors.parents)), dtype=bool)

    def unroll(self, windows: Windows, predict: PredictFn) -> Iterator[th.Tensor]:
        """
        The model follows a window on its own samples, and is measured by the recorded states.

        :param windows: of ``T`` transitions
        :param predict: from a state and an action to the distribution of the next state
        :return: for each step the negative log-likelihood of each variable, nats, ``[B, V]``
        """
        state = windows.state[:, 0]
        last = windows.state.shape[1] - 1
        for step in range(last + 1):
            distribution = predict(state, windows.action[:, step])
            yield -distribution.log_prob(windows.next_state[:, step])
            if step < last:
                # Rows that have left their episode pass through too: own samples under real actions, harmless to averages.
                state = distribution.sample()

    def unrolled_nll(self, windows: Windows, predict: PredictFn) -> th.Tensor:
        """
        :param windows: of ``T`` transitions
        :param predict: see ``unroll``
        :return: negative log-likelihood, mean over variables and valid transitions, nats, a scalar
        """
        return windows.mean(list(self.unroll(windows, predict)))
