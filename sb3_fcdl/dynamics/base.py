"""The interface of every dynamics model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.factorization import Factorization
from sb3_fcdl.graph import CausalGraph


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


class Prediction(NamedTuple):
    """
    What a model says about the next state.

    :param logits: unnormalised log-probabilities of each categorical variable, ``[R, D]``
    :param graph: which parents were used, ``[R, V, P]``, 0 or 1; None for a model without masks
    :param code: the context, ``[R]``, int64; None for a model without contexts
    """

    logits: th.Tensor
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


class DynamicsModel(nn.Module, ABC):
    """
    A model of ``p(next state | state, action)`` over named variables.

    Losses, codes and graphs are returned, never kept on the module. Whether the model samples (training) or takes its
    best guess (planning, evaluation) is torch's own ``module.train(mode)``.

    :param factorization: the variables
    :raises ValueError: if a variable is of a kind that the model cannot predict
    """

    def __init__(self, factorization: Factorization) -> None:
        super().__init__()
        continuous = [variable.name for variable in factorization.parents if not variable.is_categorical]
        if continuous:
            raise ValueError(f"only categorical variables are supported for now; continuous: {continuous}")
        self.factorization = factorization
        self.sizes = tuple(variable.n_categories for variable in factorization.state_variables)

    @abstractmethod
    def loss(self, windows: Windows) -> Losses:
        """
        The training loss of a batch of windows. Call it in train mode.

        :param windows: encoded windows from the replay buffer
        :return: the total to minimise and its parts
        """

    @abstractmethod
    def stepper(self) -> StepFn:
        """
        The model as a function of ``(state [R, D], action [R, A])``, for as long as the weights stay as they are.

        What depends on the weights alone is computed once, here. The function is deterministic, and each row of its
        answer depends on the same row of the input only.

        :raises RuntimeError: in train mode
        """

    def step(self, state: th.Tensor, action: th.Tensor) -> Prediction:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :return: the prediction for each row
        """
        return self.stepper()(state, action)

    def most_likely(self, prediction: Prediction) -> th.Tensor:
        """The most probable value of each variable as a one-hot state, ``[R, D]``."""
        return self._one_hot(self._padded(prediction.logits).argmax(-1)).to(prediction.logits.dtype)

    def local_graph(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """
        The graph that the model uses for each row, ``[R, V, P]``, 0 or 1.

        :raises ValueError: if the model has no graph
        """
        graph = self.step(state, action).graph
        if graph is None:
            raise ValueError(f"{type(self).__name__} predicts every variable from all parents: it has no graph")
        return graph

    @abstractmethod
    def context_graphs(self) -> list[CausalGraph]:
        """The graph of each context, one for a model without contexts, an empty list for one without graphs."""

    def sample_straight_through(self, logits: th.Tensor) -> th.Tensor:
        """
        A one-hot sample of each variable that passes the gradient of the Gumbel-softmax (temperature 1) through.

        :param logits: ``[R, D]``
        :return: ``[R, D]``, exactly one-hot
        """
        padded = self._padded(logits)
        gumbel = -th.empty_like(padded).exponential_().log()
        soft = (padded + gumbel).softmax(-1)
        hard = self._one_hot(soft.argmax(-1)).to(soft.dtype)
        soft = self._flat(soft)
        # In this order the difference is exactly zero, so that the sample is exactly one-hot.
        return hard + (soft - soft.detach())

    def negative_log_likelihood(self, logits: th.Tensor, target: th.Tensor) -> th.Tensor:
        """
        :param logits: ``[R, D]``
        :param target: the recorded next state, one-hot, ``[R, D]``
        :return: nats of each variable, ``[R, V]``
        """
        log_probabilities = self._padded(logits).log_softmax(-1)
        return -log_probabilities.gather(-1, self._padded(target).argmax(-1, keepdim=True)).squeeze(-1)

    @property
    def _is_uniform(self) -> bool:
        return len(set(self.sizes)) == 1

    def _padded(self, flat: th.Tensor) -> th.Tensor:
        """``[R, D]`` to ``[R, V, C]``, ``C`` the largest number of categories, missing ones -inf."""
        if self._is_uniform:
            return flat.unflatten(-1, (len(self.sizes), self.sizes[0]))
        width = max(self.sizes)
        parts = [F.pad(part, (0, width - part.shape[-1]), value=-th.inf) for part in flat.split(self.sizes, dim=-1)]
        return th.stack(parts, dim=-2)

    def _flat(self, padded: th.Tensor) -> th.Tensor:
        """``[R, V, C]`` to ``[R, D]``: drops the padding."""
        if self._is_uniform:
            return padded.flatten(-2)
        return th.cat([padded[..., index, :size] for index, size in enumerate(self.sizes)], dim=-1)

    def _one_hot(self, values: th.Tensor) -> th.Tensor:
        """``[R, V]`` indices to ``[R, D]``."""
        return self._flat(F.one_hot(values, max(self.sizes)))
