"""FCDL on every kind of observation and action, behind SB3's wrappers."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from random_env import RandomEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize
from tiny import tiny_fcdl

from sb3_fcdl import FCDL
from sb3_fcdl.evaluation.paired import one_step
from sb3_fcdl.world.factorization import Factorization

SMALL = {
    "learning_starts": 60,
    "train_freq": 10,
    "dynamics_kwargs": {"hidden_dim": 8, "n_codes": 2},
    "planner_kwargs": {"horizon": 2, "n_iterations": 1, "n_candidates": 6, "n_elites": 2},
}


OBSERVATIONS = {
    "box": spaces.Box(-1, 1, (3,)),
    "matrix": spaces.Box(-1, 1, (2, 2), np.float64),
    "integers": spaces.Box(0, 9, (2,), np.uint8),
    "discrete": spaces.Discrete(3, start=-1),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "dict": spaces.Dict(
        a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2,)), c=spaces.MultiBinary(2), d=spaces.MultiDiscrete([2, 2])
    ),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=1),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(2),
    "box": spaces.Box(-2, 1, (2,)),
    "matrix": spaces.Box(-1, 1, (1, 2)),
}
PAIRS = [(name, "discrete") for name in OBSERVATIONS] + [("dict", name) for name in ACTIONS if name != "discrete"]


@pytest.mark.parametrize(("observation", "action"), PAIRS)
def test_learns_saves_loads_and_predicts(observation, action, tmp_path):
    env = RandomEnv(OBSERVATIONS[observation], ACTIONS[action])
    env.observation_space.seed(0)
    model = tiny_fcdl(env, policy="MultiInputPolicy", planner="icem", **SMALL).learn(70)
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=env)
    batch = [env.observation_space.sample() for _ in range(3)]
    stacked = {key: np.stack([each[key] for each in batch]) for key in batch[0]} if observation == "dict" else np.stack(batch)
    actions, state = model.predict(stacked, deterministic=True)
    again, _ = loaded.predict(stacked, deterministic=True)
    assert np.array_equal(actions, again) and actions.shape == (3, *env.action_space.shape) and state[0].shape[0] == 3
    for each, expected in zip(batch, actions, strict=True):
        one, _ = loaded.predict(each, deterministic=True)
        assert env.action_space.contains(one) and np.allclose(one, expected, atol=1e-6)
    graph = loaded.local_graph(batch[0], actions[0])
    assert len(graph.parent_names) == len(model.policy.world.factors.parents)
    loaded.learn(10, reset_num_timesteps=False)


MASKS = {
    "discrete": ([False, True, True], lambda action: action in (2, 3)),
    "multi_discrete": ([True, False, False, True, True], lambda action: action[0] == 0 and action[1] > 0),
    "multi_binary": ([False, True, True, True], lambda action: action[0] == 1),
}


@pytest.mark.parametrize("planner", ["cem", "icem", "mppi"])
@pytest.mark.parametrize("action", MASKS)
def test_masked_actions_are_never_taken(action, planner):
    mask, is_allowed = MASKS[action]
    env = RandomEnv(OBSERVATIONS["box"], ACTIONS[action], np.array(mask))
    kwargs = SMALL | {"planner_kwargs": {"horizon": 2, "n_iterations": 2, "n_candidates": 8}, "learning_starts": 30}
    if planner != "mppi":
        kwargs["planner_kwargs"] |= {"n_elites": 2}
    model = tiny_fcdl(env, policy="MlpPolicy", planner=planner, exploration_rate=0.3, **kwargs).learn(48)
    taken = model.replay_buffer.actions[:48, 0]
    assert all(is_allowed(each if len(each) > 1 else int(each[0])) for each in taken)
    assert len(np.unique(taken, axis=0)) > 1
    for deterministic in (True, False):
        planned, _ = model.predict(env.observation_space.sample(), deterministic=deterministic, action_masks=np.array(mask))
        assert is_allowed(planned)


def test_sb3_contribs_masked_evaluation(tmp_path):
    maskable = pytest.importorskip("sb3_contrib.common.maskable.evaluation")
    callbacks = pytest.importorskip("sb3_contrib.common.maskable.callbacks")
    mask, is_allowed = MASKS["multi_discrete"]
    env = RandomEnv(OBSERVATIONS["box"], ACTIONS["multi_discrete"], np.array(mask))
    evaluation = callbacks.MaskableEvalCallback(
        make_vec_env(lambda: env), eval_freq=20, n_eval_episodes=1, log_path=str(tmp_path), verbose=0, warn=False
    )
    model = tiny_fcdl(env, policy="MlpPolicy", **SMALL | {"learning_starts": 30}).learn(60, evaluation)
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [20, 40, 60]
    taken, paid = [], []

    def watch(variables, _):
        taken.append(variables["actions"][0].tolist())
        paid.append(float(variables["reward"]))

    mean, _ = maskable.evaluate_policy(model, make_vec_env(lambda: env), n_eval_episodes=2, callback=watch, warn=False)
    assert mean == pytest.approx(sum(paid) / 2) and len(taken) == len(paid) > 2
    assert all(is_allowed(action) for action in taken)


def test_actions_are_stored_scaled_in_one_row_whatever_their_shape():
    """By hand: 0 is the middle of [-1, 1] and two thirds of the way through [-2, 1]."""
    stored = {name: Factorization(OBSERVATIONS["box"], ACTIONS[name]).buffer_actions for name in ("box", "matrix", "discrete")}
    assert stored["box"](np.array([[0, 1], [-2, -0.5]])) == pytest.approx(np.array([[1 / 3, 1], [-1, 0]]))
    assert stored["matrix"](np.array([[[0.25, -1]]])).tolist() == [[0.25, -1]]
    assert stored["discrete"](np.array([3, 1])).tolist() == [[3], [1]]
    # What reads actions as environments take them, whatever their shape.
    policy = FCDL("MlpPolicy", RandomEnv(OBSERVATIONS["box"], ACTIONS["matrix"]), **SMALL).policy
    observation, action = np.zeros(3, np.float32), np.zeros((1, 2), np.float32)
    assert one_step(policy)(observation[np.newaxis], action[np.newaxis]).next_state.mode().shape == (1, 3)
    assert policy.local_graph(observation, action).parent_names[-2:] == ("action[0,0]", "action[0,1]")


def icem_fcdl(env) -> FCDL:
    return tiny_fcdl(env, policy="MlpPolicy", planner="icem", **SMALL | {"learning_starts": 20}).learn(60)


def test_warm_start_travels_through_state_and_ends_with_the_episode():
    env = make_vec_env(lambda: RandomEnv(OBSERVATIONS["box"], ACTIONS["box"]), n_envs=2)
    model = icem_fcdl(env)
    observation = env.reset()
    first, state = model.predict(observation, deterministic=True)
    assert state[0].shape == (2, model.policy.planner.n_kept, 2, 2)
    anew = model.predict(observation, state, np.array([True, True]), deterministic=True)
    assert np.array_equal(anew[0], first) and np.array_equal(anew[1][0], state[0], equal_nan=True)
    mixed, warm = (
        model.predict(observation, state, starts, deterministic=True)[0] for starts in (np.array([True, False]), None)
    )
    assert np.array_equal(mixed[0], first[0]) and np.array_equal(mixed[1], warm[1])
    with pytest.raises(ValueError, match="warm_start must have shape"):
        model.predict(observation, (state[0][:1],))


def test_collection_threads_the_warm_start(monkeypatch):
    env = make_vec_env(lambda: RandomEnv(OBSERVATIONS["box"], ACTIONS["discrete"]), n_envs=2)
    model = icem_fcdl(env)
    given, returned, predict = [], [], model.policy.predict

    def watched(observation, state=None, episode_start=None, **kwargs):
        given.append((state, episode_start))
        action, state = predict(observation, state, episode_start, **kwargs)
        returned.append(state)
        return action, state

    monkeypatch.setattr(model.policy, "predict", watched)
    model.learn(40, reset_num_timesteps=False)
    states, starts = zip(*given, strict=True)
    assert all(state is before for state, before in zip(states[1:], returned, strict=False))
    rows = model.replay_buffer.pos - len(given) + np.arange(len(given))
    assert np.array_equal(np.stack(starts)[1:], model.replay_buffer.dones[rows[:-1]] > 0)


def test_evaluation_threads_the_warm_start(monkeypatch):
    env = make_vec_env(lambda: RandomEnv(OBSERVATIONS["box"], ACTIONS["discrete"]), n_envs=2)
    model = icem_fcdl(env)
    given, predict = [], model.predict
    monkeypatch.setattr(model, "predict", lambda *args, **kwargs: given.append(kwargs["state"]) or predict(*args, **kwargs))
    evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert given[0] is None and all(state is not None for state in given[1:])


def test_model_sees_what_vec_normalize_hands_out():
    env = VecNormalize(make_vec_env(lambda: RandomEnv(spaces.Box(50, 60, (2,)), ACTIONS["discrete"])), norm_obs=True)
    model = tiny_fcdl(env, policy="MlpPolicy", exploration_rate=1.0, **SMALL).learn(200)
    windows = model.experience.draw(5000).windows  # each row, almost surely
    raw = model.policy.world.decode(windows.state)
    assert raw.abs().max() < 5  # the environment's own numbers begin at 50
    rows = model.replay_buffer.observations[:200, 0]
    normalized = env.normalize_obs(rows)
    np.testing.assert_allclose(np.unique(raw[..., 0].numpy().round(3)).min(), normalized[:, 0].min(), atol=2e-3)
    evaluate_policy(model, env, n_eval_episodes=2, warn=False)


def test_vec_normalize_of_categories_or_of_what_a_function_reads_is_refused():
    mixed = spaces.Dict(place=spaces.Box(-1, 1, (2,)), kind=spaces.Discrete(2))
    env = make_vec_env(lambda: RandomEnv(mixed, ACTIONS["discrete"]))
    model = tiny_fcdl(VecNormalize(env, norm_obs_keys=["place"]), policy="MultiInputPolicy", **SMALL).learn(90)
    assert model._n_updates > 0
    box = make_vec_env(lambda: RandomEnv(OBSERVATIONS["box"], ACTIONS["discrete"]))
    with pytest.raises(ValueError, match="norm_obs=False"):
        tiny_fcdl(VecNormalize(box), policy="MlpPolicy", reward_fn=lambda *_: th.zeros(1))
    model = tiny_fcdl(box, policy="MlpPolicy", reward_fn=lambda *_: th.zeros(1))
    with pytest.raises(ValueError, match="norm_obs=False"):
        model.set_env(VecNormalize(box))
    assert model.get_env() is box


def test_frames_are_variables():
    env = VecFrameStack(make_vec_env(lambda: RandomEnv(OBSERVATIONS["box"], ACTIONS["discrete"]), n_envs=2), n_stack=2)
    model = tiny_fcdl(env, policy="MlpPolicy", **SMALL).learn(90)
    assert model.policy.world.factors.state_names == tuple(f"obs[{index}]" for index in range(6))


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, SubprocVecEnv])
def test_cartpole_runs_unedited(vec_env_cls):
    env = make_vec_env("CartPole-v1", n_envs=2, vec_env_cls=vec_env_cls)
    model = FCDL("MlpPolicy", env, seed=0, buffer_size=10_000).learn(30)
    # A rollout is two steps of two environments.
    assert model.num_timesteps == 32 and model.policy.world.factors.state_names == ("obs[0]", "obs[1]", "obs[2]", "obs[3]")
    env.close()


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), "is an image"),
        (spaces.Dict(arm=spaces.Dict(hand=spaces.Discrete(2))), "FlattenObservation"),
        (spaces.Tuple([spaces.Discrete(2)]), "FlattenObservation"),
    ],
)
def test_what_sb3_would_refuse_otherwise_is_refused_with_a_remedy(observation, message):
    with pytest.raises(ValueError, match=message):
        tiny_fcdl(RandomEnv(observation, ACTIONS["discrete"]), policy="MultiInputPolicy")
    with pytest.raises(ValueError, match="finite bounds"):
        tiny_fcdl(RandomEnv(OBSERVATIONS["box"], spaces.Box(-np.inf, np.inf, (1,))), policy="MlpPolicy")


def test_a_model_remembers_that_vec_normalize_changed_what_it_learned_from(tmp_path):
    env = VecNormalize(make_vec_env(lambda: RandomEnv(spaces.Box(50, 60, (2,)), ACTIONS["discrete"])))
    model = tiny_fcdl(env, policy="MlpPolicy", **SMALL).learn(80)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    env.save(str(tmp_path / "normalization"))
    alone = FCDL.load(tmp_path / "model")
    alone.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="which VecNormalize hides"):
        alone.imagined_env()
    for look in (alone.codes, alone.causal_graph, lambda: alone.trainer.train(alone.experience, 1, 16)):
        with pytest.raises(ValueError, match=r"load it with the environment in VecNormalize\.load\(\)"):
            look()
    together = FCDL.load(tmp_path / "model", env=VecNormalize.load(str(tmp_path / "normalization"), env.venv))
    together.load_replay_buffer(tmp_path / "buffer")
    assert [code.share for code in together.codes()] == [code.share for code in model.codes()]
    together.trainer.train(together.experience, 1, 16)
