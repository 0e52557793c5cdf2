"""Several models of one class that learn side by side: what they disagree about is not known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch as th
from torch import nn
from torch.func import functional_call, vmap

from fcdl_envs.arguments import Keywords, OrNone, Subclass, check, integer
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.dense import DenseDynamics, GraphlessDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.mlp import MLPDynamics

Compute = Callable[..., tuple[th.Tensor, ...]]


@dataclass(frozen=True)
class MixtureDistribution(StateDistribution):
    """
    What several models say, each as probable. By itself it is the distribution of independent variables with the mixture's
    probabilities, means and standard deviations: so its uncertainty includes what the models disagree about. A sample is
    drawn from one of the models, by itself for each row.

    :param members: their distributions, with a first dimension more
    """

    members: StateDistribution

    @classmethod
    def of(cls, members: StateDistribution) -> "MixtureDistribution":
        """
        :param members: ``[M, R, ...]`` each
        """
        logits = members.logits.log_softmax(-1).logsumexp(0)
        variance = members.log_std.mul(2).exp().mean(0) + _deviation(members.mean).square()
        return cls(members.layout, logits, members.mean.mean(0), variance.log() / 2, members)

    def sample(self, generator: th.Generator | None = None) -> th.Tensor:
        n_members, n_rows = self.members.logits.shape[:2]
        device = self.members.logits.device
        member = th.randint(n_members, (n_rows,), generator=generator, device=device)
        return _at(self.members, (member, th.arange(n_rows, device=device))).sample(generator)

    def disagreement(self) -> th.Tensor:
        """
        Standard deviation over the models of the mean of a number, in standard deviations of the variable in the data, or of
        the probability of a category; the largest over variables and categories, ``[R]``.
        """
        of_categories = _deviation(self.members.logits.softmax(-1)).flatten(1)
        return th.cat([of_categories, _deviation(self.members.mean)], dim=-1).amax(-1)


class Ensemble(GraphlessDynamics):
    """
    Several models of one class: they start differently, and learn from the same windows (Lakshminarayanan et al., 2017). The
    elites predict: those whose error is smallest on transitions that none of them learns from (Janner et al., 2019).

    Members whose class ``can_be_stacked`` are computed at once, others one after the other. Graphs are those of members:
    ``ensemble.models[0].context_graphs()``.

    :param factors: the variables
    :param model: class of the members
    :param model_kwargs: its keyword arguments
    :param n_members: how many
    :param n_elites: how many of them predict
    :raises ValueError: if ``n_members`` is below 1, or ``n_elites`` is not between 1 and ``n_members``
    :raises TypeError: if an argument is of a wrong type
    """

    elites: th.Tensor
    held_out_errors: th.Tensor

    # Updates from one choice of the elites to the next, and transitions that it is made by.
    ELITES_EVERY = 100
    N_JUDGED = 1000

    def __init__(
        self,
        factors: Factors,
        model: type[DynamicsModel] = MLPDynamics,
        model_kwargs: Mapping[str, Any] | None = None,
        n_members: int = 7,
        n_elites: int = 5,
    ) -> None:
        check(
            model=(model, Subclass(DynamicsModel)),
            model_kwargs=(model_kwargs, OrNone(Keywords())),
            n_members=(n_members, integer(1)),
        )
        check(n_elites=(n_elites, integer(1, n_members, "n_members")))
        super().__init__(factors)
        self.members = nn.ModuleList(model(factors, **(model_kwargs or {})) for _ in range(n_members))
        for member in self.models:
            member.layout = self.layout  # one instead of many modules to walk through in every update
        self.is_batched = model.can_be_stacked
        self.holds_out = self.models[0].holds_out or 10
        self.register_buffer("elites", th.arange(n_elites))
        self.register_buffer("held_out_errors", th.full((n_members,), th.nan))

    @property
    def models(self) -> list[DynamicsModel]:
        """The members."""
        return [member for member in self.members if isinstance(member, DynamicsModel)]

    def loss(self, windows: Windows) -> Losses:
        """The sum of the members' losses; of its terms the mean."""
        if self.is_batched:
            names: list[str] = []

            def compute(member: DenseDynamics) -> tuple[th.Tensor, ...]:
                total, terms, _ = member.loss(windows)
                names[:] = list(terms)
                return total, *terms.values()

            total, *terms = self._at_once(range(len(self.members)), compute)
            return Losses(total.sum(), {name: term.mean() for name, term in zip(names, terms, strict=True)}, None)
        losses = []
        for member in self.models:
            member.units.copy_(self.units)
            losses.append(member.loss(windows))
        means = {name: th.stack([each.terms[name] for each in losses]).mean() for name in losses[0].terms}
        return Losses(th.stack([each.total for each in losses]).sum(), means, None)

    def _stepper(self) -> StepFn:
        predict = self._predictor(self.elites.tolist())
        return lambda state, action: Prediction(MixtureDistribution.of(predict(state, action)))

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        for member in self.models:
            member.after_update(n_updates, sample_windows)
        if n_updates % self.ELITES_EVERY == 0:
            windows = sample_windows(self.N_JUDGED)
            if windows.valid.any():
                self._choose(windows)

    @th.no_grad()
    def _choose(self, windows: Windows) -> None:
        """
        :param windows: that no loss was given
        """
        was_training = self.training
        self.eval()
        state, action, after = (each[windows.valid] for each in windows[:3])
        said = self._predictor(list(range(len(self.members))))(state, action)
        errors = [-_at(said, (member,)).log_prob(after).mean() for member in range(len(self.members))]
        self.held_out_errors.copy_(th.stack(errors))
        self.elites.copy_(self.held_out_errors.argsort()[: len(self.elites)])
        self.train(was_training)

    def _predictor(self, which: list[int]) -> Callable[[th.Tensor, th.Tensor], StateDistribution]:
        """What members say about the next state, ``[M, R, ...]``, for as long as the weights stay as they are."""
        if self.is_batched:
            weights = self._stacked(which)

            def at_once(state: th.Tensor, action: th.Tensor) -> StateDistribution:
                return StateDistribution(self.layout, *self._at_once(which, _distribution, state, action, weights=weights))

            return at_once
        models = self.models
        steppers = [models[index].stepper() for index in which]

        def in_turn(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            each = [_parts(stepper(state, action).next_state) for stepper in steppers]
            return StateDistribution(self.layout, *(th.stack(part) for part in zip(*each, strict=True)))

        return in_turn

    def _stacked(self, which: Any) -> dict[str, th.Tensor]:
        """Each weight of some members, ``[M, ...]``."""
        named = [dict(self.members[index].named_parameters(prefix="model")) for index in which]
        return {name: th.stack([weights[name] for weights in named]) for name in named[0]}

    def _at_once(
        self, which: Any, compute: Compute, *inputs: th.Tensor, weights: dict[str, th.Tensor] | None = None
    ) -> tuple[th.Tensor, ...]:
        """
        :param which: members
        :param compute: of a member and the inputs
        :return: what it returns, ``[M, ...]`` each
        """
        called, weights = _Called(self.members[0], compute), self._stacked(which) if weights is None else weights

        def of_one(own: dict[str, th.Tensor]) -> tuple[th.Tensor, ...]:
            return functional_call(called, own, inputs)

        return vmap(of_one, randomness="different")(weights)


class _Called(nn.Module):
    """A model whose ``forward`` is a function of it: ``functional_call`` knows no other."""

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(self, *inputs: th.Tensor) -> tuple[th.Tensor, ...]:
        return self.compute(self.model, *inputs)


def _distribution(model: DenseDynamics, state: th.Tensor, action: th.Tensor) -> tuple[th.Tensor, ...]:
    return _parts(model.distribution(state, action))


def _parts(distribution: StateDistribution) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    return distribution.logits, distribution.mean, distribution.log_std


def _deviation(values: th.Tensor) -> th.Tensor:
    """Standard deviation over the first dimension; also of nothing, which ``std`` warns of."""
    return (values - values.mean(0)).square().mean(0).sqrt()


def _at(members: StateDistribution, index: tuple[Any, ...]) -> StateDistribution:
    """Of ``[M, R, ...]`` some."""
    return StateDistribution(members.layout, *(part[index] for part in _parts(members)))
