"""The learned actor as a policy of SB3."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from random_env import RandomEnv
from stable_baselines3.common.evaluation import evaluate_policy
from tiny import tiny_fcdl

from sb3_fcdl import FCDL

QUICK = {
    "learning_starts": 30,
    "dynamics": "mlp",
    "dynamics_kwargs": {"hidden_dim": 8},
    "planner_kwargs": {"horizon": 2, "n_iterations": 1, "n_candidates": 4, "n_elites": 2},
}
BOX = spaces.Box(-1, 1, (3,))
DICT = spaces.Dict(a=spaces.Discrete(3, start=1), b=spaces.Box(-1, 1, (2,)), c=spaces.MultiBinary(2))


def learned(observation: spaces.Space, action: spaces.Space, **kwargs: Any) -> FCDL:
    env = RandomEnv(observation, action)
    env.observation_space.seed(0)
    policy = "MultiInputPolicy" if isinstance(observation, spaces.Dict) else "MlpPolicy"
    return tiny_fcdl(env, policy=policy, **QUICK | kwargs).learn(60)


def sampled(space: spaces.Space, n: int) -> Any:
    each = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([one[key] for one in each]) for key in space.spaces}
    return np.stack(each)


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (BOX, spaces.Discrete(3, start=5)),
        (BOX, spaces.MultiDiscrete([2, 3], start=[1, 5])),
        (BOX, spaces.Box(-2, 1, (1, 2))),
        (DICT, spaces.MultiBinary(2)),
        (spaces.Discrete(4, start=-1), spaces.MultiDiscrete([2, 2])),
    ],
    ids=str,
)
def test_acts_in_the_space_and_is_saved_with_the_model(
    observation: spaces.Space, action: spaces.Space, tmp_path: Path
) -> None:
    model = learned(observation, action)
    batch = sampled(model.observation_space, 20)
    actions, state = model.actor.predict(batch)
    assert state is None and actions.shape == (20, *action.shape) and actions.dtype == action.dtype
    assert all(action.contains(each) for each in actions)
    one, _ = model.actor.predict({key: each[0] for key, each in batch.items()} if isinstance(batch, dict) else batch[0])
    assert one.shape == action.shape
    model.save(tmp_path / "model")
    assert np.array_equal(FCDL.load(tmp_path / "model").actor.predict(batch)[0], actions)


def test_actor_of_a_small_system_does_what_its_table_says() -> None:
    model = learned(spaces.Discrete(4), spaces.Discrete(3, start=1))
    table = model.policy.world.values.best
    actions, _ = model.actor.predict(np.arange(4))
    assert actions.tolist() == (table + 1).tolist() and len(set(actions.tolist())) > 1


def test_is_evaluated_as_any_policy() -> None:
    model = learned(BOX, spaces.Discrete(3))
    rewards, lengths = evaluate_policy(model.actor, model.get_env(), 3, return_episode_rewards=True)
    assert len(rewards) == 3 and all(lengths)


def test_there_is_none_without_a_discount() -> None:
    model = tiny_fcdl(gamma=1.0)
    for owner in (model, model.policy):
        with pytest.raises(ValueError, match="the model has no actor: with gamma=1 no values are learned"):
            _ = owner.actor


def test_bad_input_and_a_file_of_its_own_are_refused(tmp_path: Path) -> None:
    model = learned(BOX, spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"predict\(\) was given obs\[1\] = nan"):
        model.actor.predict(np.array([0, np.nan, 0], dtype=np.float32))
    with pytest.raises(ValueError, match="mixing the Gym and the SB3 VecEnv"):
        model.actor.predict(model.get_env().envs[0].reset())
    with pytest.raises(ValueError, match="saved with its model"):
        model.actor.save(tmp_path / "actor")


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (BOX, spaces.Box(-2, 1, (1, 2))),
        (DICT, spaces.MultiDiscrete([2, 3], start=[1, 5])),
        (spaces.Discrete(4, start=-1), spaces.Discrete(3, start=1)),
    ],
    ids=str,
)
def test_onnxruntime_acts_alike(observation: spaces.Space, action: spaces.Space, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = learned(observation, action)
    model.actor.to_onnx(tmp_path / "actor.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "actor.onnx")
    for n_rows in (1, 7):
        batch = sampled(model.observation_space, n_rows)
        given = batch if isinstance(batch, dict) else {"observation": batch}
        types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        fed = {each.name: given[each.name].astype(types[each.type]) for each in session.get_inputs()}
        (answer,) = session.run(["action"], fed)
        expected, _ = model.actor.predict(batch)
        assert answer.shape == expected.shape and np.allclose(answer, expected, atol=1e-5)


def test_learns_what_pays() -> None:
    """Every step pays what the action is worth: the last of three is best, wherever one is."""

    class Paying(RandomEnv):
        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return observation, float(action), *rest

    env = gym.wrappers.TimeLimit(Paying(BOX, spaces.Discrete(3)), 20)
    model = tiny_fcdl(env, policy="MlpPolicy", **QUICK | {"learning_rate": 1e-3, "batch_size": 64}).learn(400)
    actions, _ = model.actor.predict(np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32))
    assert (actions == 2).mean() > 0.9
