"""Members side by side: what each computes is held against the same member by itself."""

import math

import numpy as np
import pytest
import torch as th
from dense import scrambled
from fcdl.test_every_model import SMALL
from toy import KINDS, factors, random_windows

from sb3_fcdl.dynamics import DYNAMICS, MLPDynamics, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.dynamics.ensemble import Ensemble, MixtureDistribution

STACKED = ["mlp", "modular"]


def make(name: str, kind: str, n_members: int = 3, n_elites: int = 2) -> Ensemble:
    """In float64, with members far from each other."""
    th.manual_seed(0)
    sizes, action_sizes = KINDS[kind]
    ensemble = Ensemble(factors(sizes, *action_sizes), DYNAMICS[name], SMALL[name], n_members, n_elites).double()
    for member in ensemble.models:
        scrambled(member)
    return ensemble


def windows_of(kind: str, n_rows: int = 30, length: int = 1) -> Windows:
    sizes, action_sizes = KINDS[kind]
    return random_windows(sizes, *action_sizes, n_rows=n_rows, length=length, dtype=th.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STACKED)
def test_members_computed_at_once_are_those_computed_one_by_one(name, kind):
    ensemble, windows = make(name, kind), windows_of(kind)
    assert ensemble.is_batched
    losses = ensemble.train().loss(windows)
    losses.total.backward()
    gradients = [parameter.grad.clone() for parameter in ensemble.parameters()]
    ensemble.zero_grad()
    alone = [member.loss(windows) for member in ensemble.models]
    sum(each.total for each in alone).backward()
    th.testing.assert_close(losses.total, sum(each.total for each in alone), rtol=1e-10, atol=1e-10)
    th.testing.assert_close(losses.terms["dynamics"], losses.total.detach() / 3, rtol=1e-10, atol=1e-10)
    for gradient, parameter in zip(gradients, ensemble.parameters(), strict=True):
        th.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_prediction_is_the_mixture_of_the_elites(name):
    ensemble, windows = make(name, "mixed").eval(), windows_of("mixed")
    ensemble.elites.copy_(th.tensor([2, 0]))
    state, action = windows.state[:, 0], windows.action[:, 0]
    with th.no_grad():
        mixture = ensemble.step(state, action).next_state
        elites = [ensemble.models[index].step(state, action).next_state for index in (2, 0)]
    means = th.stack([each.mean for each in elites])
    stds = th.stack([each.log_std.exp() for each in elites])
    # E[var] + var[E], by the second moment.
    variance = (stds**2 + means**2).mean(0) - means.mean(0) ** 2
    th.testing.assert_close(mixture.mean, means.mean(0))
    th.testing.assert_close(mixture.log_std.exp() ** 2, variance)
    probabilities = th.stack([each.logits.softmax(-1) for each in elites])
    th.testing.assert_close(mixture.logits.softmax(-1), probabilities.mean(0))
    # Half the difference is the standard deviation of two.
    differences = [(values[0] - values[1]).abs().flatten(1) / 2 for values in (means, probabilities)]
    th.testing.assert_close(mixture.disagreement(), th.cat(differences, dim=1).amax(1))


def test_a_sample_is_one_of_a_member_drawn_for_each_row():
    layout = StateLayout(factors([0, 0], 2).state_variables)
    n_rows, none = 4000, th.zeros(2, 4000, 0, 1)
    means = th.tensor([[-1.0, 5.0], [1.0, 9.0]]).unsqueeze(1).expand(2, n_rows, 2)
    mixture = MixtureDistribution.of(StateDistribution(layout, none, means, th.full_like(means, -12.0)))
    sample = mixture.sample(th.Generator().manual_seed(0))
    # Both numbers of a row are of the same member.
    is_second = sample[:, 0] > 0
    th.testing.assert_close(sample[:, 1], th.where(is_second, 9.0, 5.0), atol=1e-3, rtol=0)
    assert is_second.float().mean().item() == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / n_rows))
    assert th.equal(sample, mixture.sample(th.Generator().manual_seed(0)))
    th.testing.assert_close(mixture.log_std.exp(), th.tensor([1.0, 2.0]).expand(n_rows, 2), atol=1e-4, rtol=0)


def test_elites_have_the_smallest_error_on_transitions_that_are_held_out():
    ensemble, windows = make("mlp", "mixed", n_members=5, n_elites=2).train(), windows_of("mixed", n_rows=50)
    asked = []

    def held_out(n: int) -> Windows:
        asked.append(n)
        return windows

    ensemble.after_update(Ensemble.ELITES_EVERY - 1, held_out)
    assert asked == [] and ensemble.elites.tolist() == [0, 1]
    ensemble.after_update(Ensemble.ELITES_EVERY, held_out)
    with th.no_grad():
        errors = [
            -member.eval().step(windows.state[:, 0], windows.action[:, 0]).next_state.log_prob(windows.next_state[:, 0]).mean()
            for member in ensemble.models
        ]
    np.testing.assert_allclose(ensemble.held_out_errors.numpy(), errors, rtol=1e-6)
    assert ensemble.elites.tolist() == np.argsort(errors)[:2].tolist() != [0, 1]
    # Both go to the running average, as buffers do.
    assert {"elites", "held_out_errors"} <= ensemble.state_dict().keys()


def test_nothing_held_out_yet_leaves_the_elites():
    ensemble, windows = make("mlp", "mixed"), windows_of("mixed")
    ensemble.after_update(Ensemble.ELITES_EVERY, lambda n: windows._replace(valid=th.zeros_like(windows.valid)))
    assert ensemble.elites.tolist() == [0, 1] and ensemble.held_out_errors.isnan().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_members": 0}, "n_members must be an integer, at least 1"),
        ({"n_members": 3, "n_elites": 4}, "n_elites must be an integer, at least 1 and at most n_members = 3"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(factors([2], 2), MLPDynamics, **arguments)
    with pytest.raises(ValueError, match="model must be a subclass of DynamicsModel"):
        Ensemble(factors([2], 2), dict)
