"""The update loop."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from tiny import ends_after, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL

SMALL: dict[str, Any] = {"dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 8}}


def weights(module: th.nn.Module) -> list[th.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_optimizer_moves_the_learner_alone_and_the_average_follows() -> None:
    model = tiny_fcdl(learning_starts=1000).learn(40)
    policy = model.policy
    optimized = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in policy.learner.parameters()}
    expected, learned = weights(policy.world), weights(policy.learner)
    for n_updates in (1, 2, 3):
        model.trainer.train(model.experience, 1, 16)
        decay = (1 + n_updates) / (10 + n_updates)
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, policy.learner.parameters(), strict=True)]
    assert model.trainer.n_updates == 3 and not any(map(th.equal, learned, policy.learner.parameters()))
    for (name, parameter), value in zip(policy.world.named_parameters(), expected, strict=True):
        # The last layer of the values has been expressed in another unit at each update.
        if not name.startswith("values.last"):
            assert parameter.detach().numpy() == pytest.approx(value.detach().numpy(), abs=1e-6)


def test_several_updates_at_once_are_those_one_by_one() -> None:
    """Each from a batch of its own, of the generator that the experience has."""
    trained = []
    for counts in ([3], [1, 1, 1], [1, 2]):
        model = tiny_fcdl(**SMALL, learning_starts=1000).learn(40)
        th.manual_seed(1)
        for n_updates in counts:
            model.trainer.train(model.experience, n_updates, 16)
        trained.append((model.trainer.n_updates, weights(model.policy)))
    for n_updates, parameters in trained[1:]:
        assert n_updates == trained[0][0] == 3 and all(map(th.equal, trained[0][1], parameters))


def test_dynamics_is_told_the_number_of_updates_and_given_what_it_may_be_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_fcdl(**SMALL, learning_starts=1000).learn(40)
    told = []
    monkeypatch.setattr(
        model.policy.learner.dynamics, "after_update", lambda number, sample: told.append((number, len(sample(1000).state)))
    )
    model.trainer.train(model.experience, 2, 16)
    model.trainer.train(model.experience, 1, 16)
    # All 40 transitions are distinct windows.
    assert told == [(1, 40), (2, 40), (3, 40)]


def test_count_of_updates_is_right_after_an_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    model = tiny_fcdl(**SMALL, learning_starts=20)
    draw, n_drawn = type(model.experience).draw, 0

    def interrupted(experience: Any, batch_size: int) -> Any:
        nonlocal n_drawn
        n_drawn += 1
        if n_drawn == 8:
            raise KeyboardInterrupt
        return draw(experience, batch_size)

    monkeypatch.setattr(type(model.experience), "draw", interrupted)
    model.gradient_steps = 3  # the third training ends after its first update
    with pytest.raises(KeyboardInterrupt):
        model.learn(60)
    assert model._n_updates == model.trainer.n_updates == 7
    monkeypatch.undo()
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=model.get_env())
    assert loaded.trainer.n_updates == loaded._n_updates == 7
    monkeypatch.setattr(FCDL, "train", ends_after(10, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        loaded.learn(60, reset_num_timesteps=False)
    assert loaded.trainer.n_updates == 10


def test_scale_of_each_variable_and_true_graphs_are_taken_in() -> None:
    model = tiny_fcdl(GatedEnv(), **SMALL)
    observations = np.array([[1, 0, -1, 5], [0, 1, 3, 9]], dtype=np.float32)
    graphs = np.random.default_rng(0).random((2, 3, 4)) < 0.5
    infos = [{"local_graph": graph} for graph in graphs]
    model.trainer.observe(observations, np.array([[0.5], [-1.0]], dtype=np.float32), infos)
    moments = model.policy.world.factorization.moments
    assert moments.count.item() == 2 and moments.mean.tolist() == [0, 0, 1, 7] and moments.std.tolist() == [1, 1, 2, 2]
    states, actions, told = zip(*model.model_log._graph_samples, strict=True)
    assert th.stack(states).tolist() == [[1, 0, -1, -1], [0, 1, 1, 1]] and th.stack(actions).tolist() == [[0.5], [-1]]
    assert np.array_equal(np.stack([each["local_graph"] for each in told]), graphs)
    model.trainer.observe(observations, np.zeros((2, 1), np.float32), [{}, {}])
    assert len(model.model_log._graph_samples) == 2 and moments.count.item() == 4


@pytest.mark.parametrize("name", ["local_graph", "transition_graph"])
@pytest.mark.parametrize("told", [np.ones((2, 2)), [[1], [1, 0]], "none"])
def test_what_is_no_graph_is_left_out_with_one_warning(name: str, told: Any) -> None:
    model = tiny_fcdl(GatedEnv(), **SMALL)
    graph = np.eye(3, 4, dtype=bool)
    infos = [{"local_graph": graph, "transition_graph": graph}, {"local_graph": graph, "transition_graph": graph, name: told}]
    step = np.zeros((2, 4), np.float32), np.zeros((2, 1), np.float32), infos
    with pytest.warns(UserWarning, match=rf'info\["{name}"\] of environment 1 has shape .* left out of causal/') as caught:
        model.trainer.observe(*step)
    assert len(caught) == 1
    model.trainer.observe(*step)  # a warning would be an error
    (other,) = {"local_graph", "transition_graph"} - {name}
    both = {"local_graph", "transition_graph"}
    assert [set(told) for _, _, told in model.model_log._graph_samples] == [both, {other}] * 2


def test_a_wrong_reward_is_told_once_in_each_environment() -> None:
    def wrong(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return next_state[:, 2] + 100

    model = tiny_fcdl(GatedEnv(), **SMALL, reward_fn=wrong, learning_starts=1000).learn(30)
    for _ in range(2):
        with pytest.warns(UserWarning, match="reward_fn disagrees with the environment in 256 of 256"):
            model.trainer.train(model.experience, 1, 8)
        model.trainer.train(model.experience, 1, 8)  # a warning would be an error
        model.set_env(GatedEnv())


def test_model_remembers_what_vec_normalize_changed() -> None:
    env = VecNormalize(make_vec_env(lambda: gym.make("Pendulum-v1")))
    model = tiny_fcdl(env, policy="MlpPolicy", **SMALL, learning_starts=1000).learn(30)
    flags = [world.factorization.is_normalized for world in (model.policy.learner, model.policy.world)]
    # From the first observation on: that is what the scale of the variables is of.
    assert all(flags)
    model.trainer.train(model.experience, 1, 8)
    env.norm_obs = False
    before = weights(model.policy)
    with pytest.raises(ValueError, match="the model learned from observations as VecNormalize had made them"):
        model.trainer.train(model.experience, 1, 8)
    assert model.trainer.n_updates == 1 and all(map(th.equal, before, model.policy.parameters()))
    plain = tiny_fcdl(tiny_vec_env(2), **SMALL).learn(40)
    assert not plain.policy.world.factorization.is_normalized


def test_dynamics_is_told_the_units_of_what_it_is_given() -> None:
    model = FCDL("MlpPolicy", GatedEnv(), learning_starts=1000, planner_kwargs={"horizon": 2}, seed=0, **SMALL).learn(40)
    model.trainer.train(model.experience, 1, 16)
    x, y = model.policy.learner.factorization.moments.std[2:].tolist()
    assert x != y and model.policy.learner.dynamics.units.tolist() == pytest.approx([1, 1, x, y, 2])
