"""Equal predictions are made once, and are those that are made one by one."""

import pytest
import torch as th
from dense import scrambled, tables_used

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import DYNAMICS, ContextTreeDynamics
from sb3_fcdl.dynamics.lookup.distinct import Keys
from sb3_fcdl.dynamics.lookup.features import ParentInputs

FACTORS = Factors(
    state=(Variable("a", 2), Variable("b", 3), Variable("c", 2)), action=(Variable("push", 4), Variable("pull", 2))
)
N_ROWS = 60


def rows(seed: int) -> tuple[th.Tensor, th.Tensor]:
    """Encoded states and actions, ``[R, D]`` and ``[R, A]``."""
    th.manual_seed(seed)
    columns = [th.eye(each.width, dtype=th.float64)[th.randint(each.width, (N_ROWS,))] for each in FACTORS.parents]
    return th.cat(columns[:3], dim=-1), th.cat(columns[3:], dim=-1)


@pytest.fixture(autouse=True)
def many(monkeypatch):
    """So that a few predictions are many, and all may be different."""
    monkeypatch.setattr(Keys, "FEWEST", 1)
    monkeypatch.setattr(Keys, "MOST", 1.0)


@pytest.fixture
def calls(monkeypatch):
    """What is found."""
    found, distinct = [], Keys.distinct
    monkeypatch.setattr(Keys, "distinct", lambda *args: found.append(distinct(*args)) or found[-1])
    return found


@pytest.mark.parametrize("name", ["fcdl", "fcdl_tree", "ncd", "oracle"])
def test_predictions_are_those_of_matrix_products(name, calls):
    th.manual_seed(0)
    model = scrambled(DYNAMICS[name](FACTORS, hidden_dim=8)).eval()
    if isinstance(model, ContextTreeDynamics):
        model.tree.split(0, th.eye(13, dtype=th.float64)[0], 0.5)
        model.graphs.copy_((th.rand_like(model.graphs) < 0.5).double())
    state, action = rows(0)
    with th.no_grad():
        found = model.step(state, action).next_state.log_prob(state)
        with tables_used(False):
            expected = model.step(state, action).next_state.log_prob(state)
    assert calls[0] is not None and calls[1] is None
    th.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@th.no_grad()
def test_each_is_found_once():
    """By brute force: a tuple of child, context and what the parents are, for each prediction."""
    state, action = rows(1)
    model = ContextTreeDynamics(FACTORS, hidden_dim=8).double().eval()
    inputs = model.features.bind(with_state_gradient=False).read(state, action)
    code, mask = th.randint(5, (N_ROWS,)), (th.rand(3, N_ROWS, 5) < 0.5).double()
    found = Keys(FACTORS, n_contexts=64).distinct(inputs, mask, code)
    assert found is not None
    seen = th.where(mask > 0, inputs.categories, -1).tolist()
    made_from = [(child, int(code[row]), *seen[child][row]) for child in range(3) for row in range(N_ROWS)]
    assert len(found.chosen) == len(set(made_from)) < len(made_from)
    assert [made_from[int(found.chosen[number])] for number in found.number.flatten()] == made_from
    assert found.sizes == [sum(each[0] == child for each in set(made_from)) for child in range(3)]
    assert (found.child * N_ROWS + found.row == found.chosen).all() and found.child.bincount().tolist() == found.sizes


def inputs_of(factors: Factors, dense: tuple[int, ...] = ()) -> ParentInputs:
    rows = th.zeros(4, len(factors.parents), dtype=th.int64)
    return ParentInputs(th.zeros(4, factors.state_width + factors.action_width), rows, dense, rows)


@pytest.mark.parametrize(
    ("why", "factors", "dense", "fewest", "gradient"),
    [
        ("a corrupted parent", FACTORS, (1,), 1, False),
        ("a gradient is wanted", FACTORS, (), 1, True),
        ("too few to pay", FACTORS, (), 13, False),
        ("numbers of 64 bits are too short", Factors((Variable("x", 9),) * 20, (Variable("a", 2),)), (), 1, False),
    ],
)
def test_all_are_made(monkeypatch, why, factors, dense, fewest, gradient):
    monkeypatch.setattr(Keys, "FEWEST", fewest)
    with th.set_grad_enabled(gradient):
        mask = th.ones(len(factors.state_variables), 4, len(factors.parents))
        assert Keys(factors, 0).distinct(inputs_of(factors, dense), mask, None) is None


@th.no_grad()
def test_all_are_made_where_most_are_different(monkeypatch):
    mask = th.ones(3, 4, 5)
    inputs = inputs_of(FACTORS)
    two = inputs._replace(categories=inputs.categories + th.tensor([[0], [0], [0], [1]]))
    found = Keys(FACTORS, 0).distinct(two, mask, None)
    assert found is not None and found.sizes == [2, 2, 2]
    monkeypatch.setattr(Keys, "MOST", 0.4)
    assert Keys(FACTORS, 0).distinct(two, mask, None) is None
