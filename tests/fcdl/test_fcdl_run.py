"""SB3's topic tests for FCDL: run, dict_env, deterministic, train_eval_mode and callbacks."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize
from tiny import ENV_ID, N_ACTIONS, TINY, tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, FCDLPolicy, GymVectorVecEnv


@pytest.mark.parametrize("policy", [FCDLPolicy, "MultiInputPolicy"])
def test_learns_and_evaluates(policy):
    model = tiny_fcdl(policy=policy).learn(60)
    # After the warm-up of 20 transitions every second step is followed by an update.
    assert model._n_updates == (60 - 20) // 2
    mean, _ = evaluate_policy(model, tiny_vec_env(1, max_episode_steps=8), n_eval_episodes=1, warn=False)
    env, total = tiny_env(max_episode_steps=8), 0.0
    (observation, _), done = env.reset(seed=0), False
    while not done:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, done = total + float(reward), terminated or truncated
    assert mean == pytest.approx(total)


# After a warm-up of 20 transitions: at 24, 28 ... 60, and at the ends of episodes of 25. The further run is as long as it
# must be for 30: 24, 28 and 32, or 25 and 50.
@pytest.mark.parametrize(
    ("train_freq", "n_updates"), [(4, (10, 13)), ((4, "step"), (10, 13)), ((1, "episode"), (3, 5))], ids=str
)
def test_train_freq(train_freq, n_updates, tmp_path):
    model = tiny_fcdl(train_freq=train_freq).learn(60)
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=tiny_env()).learn(30)
    assert (model._n_updates, loaded._n_updates) == n_updates


def test_gradient_steps_minus_one_is_one_update_a_transition():
    model = tiny_fcdl(tiny_vec_env(2), train_freq=2, gradient_steps=-1).learn(40)
    # 20 transitions of warm-up; SB3 trains once there are more: at 24, 28, ... 40.
    assert model._n_updates == 20


def test_environments_in_processes_give_the_same_run():
    runs = []
    for vec_env_cls in (DummyVecEnv, SubprocVecEnv):
        env = make_vec_env(f"sb3_fcdl:{ENV_ID}", n_envs=2, env_kwargs=TINY, vec_env_cls=vec_env_cls)
        model = tiny_fcdl(env).learn(60)
        runs.append((model.replay_buffer.rewards[:30].tolist(), model.policy.state_dict()))
        env.close()
    assert runs[0][0] == runs[1][0] and np.shape(runs[0][0]) == (30, 2)
    assert all(th.equal(value, runs[1][1][name]) for name, value in runs[0][1].items())


def test_batched_vec_env():
    env = VecMonitor(GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=5, **TINY)))
    model = tiny_fcdl(env, train_freq=5).learn(250)
    assert len(model.ep_info_buffer) == 10
    assert {episode["l"] for episode in model.ep_info_buffer} == {25}


def test_registered_name_makes_the_environment():
    assert FCDL("MultiInputPolicy", ENV_ID, buffer_size=100).policy.dynamics.free_entries.all()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"train_horizon": 0}, ValueError, "train_horizon"),
        ({"exploration_rate": 1.5}, ValueError, "exploration_rate"),
        ({"train_freq": (1, "century")}, ValueError, "train_freq"),
        ({"dynamics_kwargs": {"n_code": 3}}, TypeError, "'n_code', allowed: graph_prior.*n_codes"),
        ({"planner_kwargs": {"n_actions": 3}}, TypeError, "'n_actions', allowed: horizon"),
        ({"planner_kwargs": {"n_elites": 65}}, ValueError, "n_elites"),
        ({"planner_kwargs": {"discount": 0.9}}, TypeError, "'discount': it is FCDL\\(gamma="),
        ({"planner": "shooting"}, ValueError, "planner='shooting' is not allowed; planner must be one of cem, icem, mppi"),
        ({"reward_fn": "nowhere:reward"}, ValueError, "package.module:function"),
        ({"dynamics_kwargs": {"graph_prior": "dag"}}, ValueError, "order, self, none"),
    ],
)
def test_wrong_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        tiny_fcdl(**kwargs)


def test_mlp_policy_is_refused_for_dict_observations():
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        tiny_fcdl(policy="MlpPolicy")


def test_cnn_policy_says_that_the_model_reads_quantities():
    with pytest.raises(ValueError, match=r"policy='CnnPolicy' is not allowed: .* named quantities, not of pixels"):
        tiny_fcdl(policy="CnnPolicy")
    with pytest.raises(ValueError, match="Policy LstmPolicy unknown"):
        tiny_fcdl(policy="LstmPolicy")


def test_normalized_categorical_observations_are_refused():
    with pytest.raises(ValueError, match="norm_obs"):
        tiny_fcdl(VecNormalize(tiny_vec_env(2), norm_obs=True))
    model = tiny_fcdl(VecNormalize(tiny_vec_env(2), norm_obs=False)).learn(30)
    with pytest.raises(ValueError, match="norm_obs"):
        model.set_env(VecNormalize(tiny_vec_env(2), norm_obs=True))
    model.learn(30)


def test_user_dictionaries_stay_as_they_were():
    kwargs = {"policy_kwargs": {"optimizer_kwargs": {"eps": 1e-5}}, "dynamics_kwargs": {"hidden_dim": 8}}
    model = tiny_fcdl(**kwargs)
    assert kwargs == {"policy_kwargs": {"optimizer_kwargs": {"eps": 1e-5}}, "dynamics_kwargs": {"hidden_dim": 8}}
    assert model.policy.optimizer.defaults["eps"] == 1e-5


def test_two_seeded_runs_are_identical():
    runs = []
    for _ in range(2):
        model = tiny_fcdl(tiny_vec_env(2), seed=3).learn(60)
        rewards, _ = evaluate_policy(
            model,
            tiny_vec_env(1, max_episode_steps=8),
            n_eval_episodes=2,
            deterministic=False,
            return_episode_rewards=True,
            warn=False,
        )
        runs.append((model.replay_buffer.actions[:30].tolist(), rewards, model.policy.state_dict()))
    assert runs[0][:2] == runs[1][:2]
    assert all(th.equal(value, runs[1][2][name]) for name, value in runs[0][2].items())


def test_warm_up_is_random_and_an_untrained_model_never_acts(monkeypatch):
    planned_at = []
    model = tiny_fcdl(learning_starts=20, train_freq=4)
    plan = model.policy.predict

    def watched(*args, **kwargs):
        planned_at.append(model.num_timesteps)
        return plan(*args, **kwargs)

    monkeypatch.setattr(model.policy, "predict", watched)
    model.learn(40)
    # The warm-up ends at 20; the first update comes after the rollout that ends at 24.
    assert planned_at == list(range(24, 40))


def test_exploration_replaces_the_plan_with_its_rate():
    model = tiny_fcdl(tiny_vec_env(4), exploration_rate=1.0).learn(40)
    model.policy.predict = lambda *args, **kwargs: (np.zeros(4, dtype=np.int64), None)
    actions = np.concatenate([model._sample_action(0, n_envs=4)[0] for _ in range(200)])
    assert np.bincount(actions, minlength=N_ACTIONS).min() > 30
    model.exploration_rate = 0.25
    actions = np.stack([model._sample_action(0, n_envs=4)[0] for _ in range(500)])
    # A coin for each environment: 0.25 of the actions are random, of which a twelfth is 0 too.
    assert (actions != 0).mean() == pytest.approx(0.25 * 11 / 12, abs=0.03)
    assert (actions != 0).any(axis=1).mean() == pytest.approx(1 - (1 - 0.25 * 11 / 12) ** 4, abs=0.06)


def test_no_plan_is_made_that_nobody_would_follow(monkeypatch):
    model = tiny_fcdl(exploration_rate=1.0)
    monkeypatch.setattr(model.policy, "predict", lambda *args, **kwargs: pytest.fail("it plans"))
    assert model.learn(40)._n_updates == 10


def test_masked_actions_are_never_taken():
    model = tiny_fcdl(tiny_vec_env(2, forbid_root=True), exploration_rate=0.5).learn(80)
    assert model.replay_buffer.actions[:40].min() >= TINY["n_colors"]


def test_collecting_and_predicting_leave_the_model_alone():
    model = tiny_fcdl(gradient_steps=0, dynamics="fcdl")
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(60)
    model.predict(model.observation_space.sample())
    # But what was tried is no longer new.
    changed = {name for name, value in model.policy.state_dict().items() if not th.equal(before[name], value)}
    assert changed == {"learner.novelty.left", "world.novelty.left"}
    model.gradient_steps = 1
    model.learn(60)
    changed = [name for name, value in model.policy.state_dict().items() if not th.equal(before[name], value)]
    for world in ("learner", "world"):
        quantizer = f"{world}.dynamics.quantizer"
        assert {f"{quantizer}.encoder.0.running_mean", f"{quantizer}.codebook.embedding"} <= set(changed)


def test_evaluation_does_not_disturb_training():
    weights = [
        tiny_fcdl().learn(60, callback).policy.state_dict()
        for callback in (
            None,
            EvalCallback(tiny_env(max_episode_steps=8), eval_freq=20, n_eval_episodes=1, verbose=0, warn=False),
        )
    ]
    assert all(th.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_callbacks_together(tmp_path):
    evaluation = EvalCallback(
        tiny_vec_env(1, max_episode_steps=8),
        eval_freq=20,
        n_eval_episodes=1,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path),
        verbose=0,
    )
    checkpoints = CheckpointCallback(25, str(tmp_path / "checkpoints"), save_replay_buffer=True)
    tiny_fcdl(tiny_vec_env(2)).learn(100, CallbackList([evaluation, EveryNTimesteps(50, checkpoints), checkpoints]))
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [40, 80]
    assert (tmp_path / "best" / "best_model.zip").exists()
    assert (tmp_path / "checkpoints" / "rl_model_50_steps.zip").exists()
    assert (tmp_path / "checkpoints" / "rl_model_replay_buffer_50_steps.pkl").exists()


def test_callback_can_stop_learning():
    assert tiny_fcdl().learn(60, lambda *_: False).num_timesteps == 1


def test_state_space_with_fewer_variables_than_the_default_prior_needs_no_option():
    assert isinstance(tiny_env().observation_space, spaces.Dict)
    assert tiny_fcdl().policy.dynamics.free_entries.sum() == 6


QUICK_PLAN = {"buffer_size": 100, "planner_kwargs": {"horizon": 2, "n_candidates": 4}, "dynamics_kwargs": {"hidden_dim": 8}}


@pytest.mark.parametrize("dynamics", ["fcdl", "mlp"])
def test_the_default_type_of_torch_does_not_matter(dynamics):
    def learned():
        model = FCDL("MlpPolicy", "CartPole-v1", learning_starts=30, batch_size=16, dynamics=dynamics, seed=0, **QUICK_PLAN)
        return model.learn(50)

    expected = learned()
    th.set_default_dtype(th.float64)
    try:
        model = learned()
        assert th.get_default_dtype() == th.float64
    finally:
        th.set_default_dtype(th.float32)
    weights, others = model.policy.state_dict(), expected.policy.state_dict()
    assert all(th.equal(weights[name], others[name]) and weights[name].dtype == others[name].dtype for name in others)
