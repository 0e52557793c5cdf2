import numpy as np
import pytest
import torch as th
from toy import factors, random_windows

from sb3_fcdl.dynamics import DYNAMICS, GraphPrior
from sb3_fcdl.dynamics.graph.edge_learning import sample_edges
from sb3_fcdl.dynamics.graph.edges import FreeEdges
from sb3_fcdl.dynamics.graph.priors import CERTAIN, prior_log_odds
from sb3_fcdl.dynamics.oracle import OracleDynamics


def log_odds(prior, n_states: int, n_actions: int = 1) -> th.Tensor:
    """Of variables x0, x1, ... and a0, a1, ..."""
    return prior_log_odds(prior, factors([2] * n_states, *[2] * n_actions))


def test_order_prior_gives_self_and_action_edges_and_frees_the_lower_triangle():
    nan, yes, no = float("nan"), CERTAIN, -CERTAIN
    expected = th.tensor([[yes, no, no, yes], [nan, yes, no, yes], [nan, nan, yes, yes]])
    th.testing.assert_close(log_odds("order", 3), expected, equal_nan=True)
    assert log_odds("order", 10).isnan().sum() == 45


def test_self_prior_and_none():
    assert log_odds("self", 3, 2).isnan().sum() == 3 * 5 - 3
    assert (log_odds("self", 3, 2).diagonal() == CERTAIN).all()
    assert log_odds("none", 3, 2).isnan().all()


@pytest.mark.parametrize("base", ["order", "self", "none"])
def test_continuous_variables_depend_on_themselves_whatever_the_base(base):
    """They are predicted as a change of themselves, which no mask can hide."""
    mixed = factors([2, 0, 0], 3)
    assert (prior_log_odds(base, mixed).diagonal()[1:] == CERTAIN).all()
    with pytest.raises(ValueError, match="'x1' is predicted as a change of itself: that edge cannot be forbidden"):
        prior_log_odds(GraphPrior(base, forbidden_edges=(("x1", "x1"),)), mixed)
    graph = np.ones((3, 4))
    graph[0, 0] = graph[2, 2] = 0
    with pytest.raises(ValueError, match="'x2' is predicted as a change of itself: graph must have that edge"):
        OracleDynamics(mixed, graph)


def test_edges_are_given_by_name_beside_the_base():
    prior = GraphPrior("self", required_edges=(("a0", "x0"), ("x1", "x1")), forbidden_edges=(("x0", "x1"),))
    nan, yes, no = float("nan"), CERTAIN, -CERTAIN
    th.testing.assert_close(log_odds(prior, 2), th.tensor([[yes, nan, yes], [no, yes, nan]]), equal_nan=True)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (GraphPrior(required_edges=(("x7", "x0"),)), "unknown variable 'x7', there are x0, x1, a0"),
        (GraphPrior(forbidden_edges=(("x0", "a0"),)), "unknown state variable 'a0', there are x0, x1"),
        (GraphPrior("none", (("x0", "x1"),), (("x0", "x1"),)), r"\('x0', 'x1'\) is both required and forbidden"),
        (GraphPrior("self", forbidden_edges=(("x0", "x0"),)), "base 'self'"),
        (GraphPrior("order", required_edges=(("x1", "x0"),)), "base 'order'"),
        ("dag", "base='dag' is not allowed; base must be one of order, self, none"),
    ],
)
def test_what_contradicts_or_is_unknown_is_named(prior, message):
    with pytest.raises(ValueError, match=message):
        log_odds(prior, 2)


@pytest.mark.parametrize("name", ["fcdl", "ncd", "cdl", "grader"])
def test_every_model_with_a_graph_keeps_to_what_it_is_told(name):
    prior = GraphPrior(required_edges=(("a0", "x1"),), forbidden_edges=(("x0", "x1"), ("x1", "x2")))
    model = DYNAMICS[name](factors([2, 3, 2], 4), graph_prior=prior).eval()
    # Three variables, four parents: three self edges, one required and two forbidden ones are given.
    assert model.free_entries.sum() == 3 * 4 - 6
    windows = random_windows([2, 3, 2], 4, n_rows=40, length=1)
    graphs = model.local_graph(windows.state[:, 0], windows.action[:, 0])
    assert (graphs[:, 1, 3] == 1).all() and (graphs[:, 1, 0] == 0).all() and (graphs[:, 2, 1] == 0).all()


def test_given_entries_never_flip():
    log_odds = th.tensor([CERTAIN, -CERTAIN]).expand(100_000, 2)
    samples = sample_edges(log_odds)
    assert (samples[:, 0] == 1).all() and (samples[:, 1] == 0).all()
    assert th.tensor(CERTAIN).sigmoid() == 1


@pytest.mark.parametrize("log_odds", [-2.0, 0.0, 1.5])
def test_an_edge_is_sampled_with_its_probability(log_odds):
    th.manual_seed(0)
    samples = sample_edges(th.full((50_000,), log_odds))
    assert set(samples.unique().tolist()) <= {0.0, 1.0}
    assert samples.mean().item() == pytest.approx(th.tensor(log_odds).sigmoid().item(), abs=0.01)


def test_gradient_of_a_sample_is_that_of_its_relaxation():
    log_odds = th.zeros(1000, dtype=th.float64, requires_grad=True)
    th.manual_seed(0)
    sample_edges(log_odds).sum().backward()
    th.manual_seed(0)
    uniform = th.rand(1000, dtype=th.float64).clamp(1e-6, 1 - 1e-6)
    # sigmoid(0 + logit(u)) is u itself, and its slope u (1 - u).
    th.testing.assert_close(log_odds.grad, uniform * (1 - uniform))


def test_a_prior_that_leaves_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match=r"no graph to learn.*dynamics='oracle'"):
        FreeEdges(factors([2], 2), "order")
