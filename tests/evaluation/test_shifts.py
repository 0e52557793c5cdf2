import json
import math

import gymnasium as gym
import numpy as np
import pytest
from gated import GatedEnv
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from tiny import tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL
from sb3_fcdl.cli import main
from sb3_fcdl.evaluation import Normal, ShiftedVecEnv, evaluate_shift, parse_shift
from sb3_fcdl.evaluation.paired import one_step
from sb3_fcdl.world.factorization import default_factors


def gated_vec_env() -> DummyVecEnv:
    return DummyVecEnv([GatedEnv, GatedEnv])


def short_vec_env() -> VecEnv:
    """Two of the tiny Chemicals, in episodes of eight steps."""
    return tiny_vec_env(2, max_episode_steps=8)


@pytest.fixture(scope="module")
def model():
    return tiny_fcdl(tiny_vec_env(2), dynamics_kwargs={"hidden_dim": 16, "n_codes": 4}).learn(60)


def test_only_the_chosen_variables_are_shown_wrongly():
    env = ShiftedVecEnv(gated_vec_env(), GatedEnv.factorization, {"y": Normal(100, 0.001), "gate": "open"})
    observations = env.reset()
    for _ in range(3):
        clean = env.clean
        assert isinstance(clean, np.ndarray)
        assert observations[:, :2].tolist() == [[0, 1], [0, 1]]
        assert np.array_equal(observations[:, 2], clean[:, 2]) and (clean[:, 3] < 10).all()
        assert observations[:, 3] == pytest.approx([100, 100], abs=0.1)
        observations, rewards, _, _ = env.step(np.array([[1.0], [2.0]]))
        assert rewards == pytest.approx(-abs(env.clean[:, 2] - 1))


@pytest.mark.parametrize(("text", "shift"), [("Normal(100,2)", Normal(100, 2)), ("21.5", 21.5)])
def test_the_shift_of_a_number_may_be_text_as_on_the_command_line(text, shift):
    by_text, by_value = (ShiftedVecEnv(gated_vec_env(), GatedEnv.factorization, {"y": each}) for each in (text, shift))
    assert np.array_equal(by_text.reset()[:, 3], by_value.reset()[:, 3]) and (by_text.clean[:, 3] == 5).all()
    with pytest.raises(ValueError, match=r"y cannot be shifted by 'Norm\(0\)'; allowed: 'noise', Normal\(mean, std\)"):
        ShiftedVecEnv(gated_vec_env(), GatedEnv.factorization, {"y": "Norm(0)"})


def test_noise_scales_a_one_hot_and_keeps_its_place():
    env = ShiftedVecEnv(tiny_vec_env(200), tiny_vec_env(1).get_attr("factorization")[0], {"obj2": "noise"})
    shown, clean = env.reset()["state"], env.clean["state"]
    factors = shown[:, 6:9].sum(1)
    assert shown[:, 6:9] == pytest.approx(clean[:, 6:9] * factors[:, None])
    assert np.array_equal(np.delete(shown, range(6, 9), 1), np.delete(clean, range(6, 9), 1))
    # Normal with standard deviation 100, 200 draws: within four standard errors.
    assert abs(factors.mean()) < 4 * 100 / 200**0.5 and abs(factors.std() - 100) < 4 * 100 / 400**0.5


class CountingEnv(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (2,), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        return np.array([10, 20], np.uint8), {}

    def step(self, action):
        return np.array([10, 20], np.uint8), 0.0, False, False, {}


def test_shifts_of_whole_numbers_do_not_wrap_round():
    env = DummyVecEnv([CountingEnv])
    factors = default_factors(env.observation_space, env.action_space)
    assert ShiftedVecEnv(env, factors, {"obs[1]": 1000.0}).reset().tolist() == [[10, 1000]]


def test_without_a_shift_nothing_differs_and_returns_are_those_of_sb3(model):
    report = evaluate_shift({"fcdl": model}, short_vec_env, {}, n_episodes=3)
    (result,) = report.results
    env = short_vec_env()
    env.seed(1_000_000)
    assert result.mean == result.shifted_mean == pytest.approx(evaluate_policy(model, env, 3)[0])
    assert result.same_code == result.same_graph == 1
    assert result.error == result.shifted_error == pytest.approx(share_of_wrong_colours(model))


def share_of_wrong_colours(model):
    """In three episodes of two environments, step by step; the last step of an episode leaves it and does not count."""
    env, n_left, wrong = short_vec_env(), [1, 2], []  # as SB3 shares three episodes between two
    env.seed(1_000_000)
    predict, observation, state, starts = one_step(model), env.reset(), None, np.ones(2, dtype=bool)
    while any(n_left):
        actions, state = model.predict(observation, state, starts, deterministic=True)
        expected = predict(observation, actions).next_state.mode().numpy()
        observation, _, starts, _ = env.step(actions)
        colours, found = (array.reshape(2, 4, 3).argmax(-1) for array in (observation["state"], expected))
        for row, is_last in enumerate(starts):
            if n_left[row] and not is_last:
                wrong.append(colours[row] != found[row])
            n_left[row] -= bool(n_left[row] and is_last)
    assert len(wrong) == 3 * 7
    return np.mean(wrong)


@pytest.mark.parametrize(("shifted", "is_disturbed"), [("y", False), ("x", True)])
def test_error_grows_if_and_only_if_something_depends_on_the_shifted_variable(shifted, is_disturbed):
    # Nothing else depends on y, and y depends on x.
    graph = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 0]])
    kwargs = {"dynamics": "oracle", "dynamics_kwargs": {"graph": graph, "hidden_dim": 8}}
    oracle = FCDL("MlpPolicy", GatedEnv(), learning_starts=20, planner_kwargs={"horizon": 2}, seed=0, **kwargs).learn(40)
    (result,) = evaluate_shift({"oracle": oracle}, gated_vec_env, {shifted: Normal(0, 100)}, n_episodes=2).results
    assert (result.shifted_error > result.error) == is_disturbed and (result.shifted_error == result.error) != is_disturbed
    assert result.same_graph == 1 and math.isnan(result.same_code)


def test_a_policy_without_a_model_has_returns_only():
    ppo = PPO("MlpPolicy", gated_vec_env(), n_steps=8, batch_size=8, seed=0)
    report = evaluate_shift({"PPO": ppo}, gated_vec_env, {"y": "noise"}, n_episodes=2)
    (result,) = report.results
    env = gated_vec_env()
    env.seed(1_000_000)
    assert result.mean == pytest.approx(evaluate_policy(ppo, env, 2, warn=False)[0])
    assert math.isnan(result.error) and math.isnan(result.same_code)
    assert str(report).splitlines()[-1].split()[-1] == "-"
    assert json.loads(report.to_json())["results"][0]["error"] is None


def test_shifts_are_in_the_units_of_the_environment_though_models_are_given_normalized_ones():
    def make_pendulum():
        return DummyVecEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=10)])

    env, few = (
        VecNormalize(make_pendulum(), training=False),
        {"horizon": 3, "n_iterations": 1, "n_candidates": 8, "n_elites": 2},
    )
    env.obs_rms.mean, env.obs_rms.var = np.array([0.1, -0.2, 5.0]), np.array([0.5, 0.6, 4.0])
    scale = np.sqrt(env.obs_rms.var + env.epsilon)

    def make_scaled():
        pendulum = gym.make("Pendulum-v1", max_episode_steps=10)
        scaled = TransformObservation(
            pendulum, lambda state: ((state - env.obs_rms.mean) / scale).astype(np.float32), pendulum.observation_space
        )
        return DummyVecEnv([lambda: scaled])

    fcdl = FCDL("MlpPolicy", env, learning_starts=20, dynamics="mlp", planner_kwargs=few, seed=0, device="cpu").learn(24)
    ppo = PPO("MlpPolicy", env, seed=0, device="cpu")
    normalized = evaluate_shift({"FCDL": fcdl, "PPO": ppo}, make_pendulum, {"obs[2]": 3.0}, n_episodes=1)
    by_hand = {"FCDL": fcdl.policy, "PPO": ppo.policy}
    expected = evaluate_shift(by_hand, make_scaled, {"obs[2]": (3.0 - env.obs_rms.mean[2]) / scale[2]}, n_episodes=1)
    for result, other in zip(normalized.results, expected.results, strict=True):
        assert (result.mean, result.shifted_mean) == pytest.approx((other.mean, other.shifted_mean))
    assert normalized.results[0].error == pytest.approx(expected.results[0].error)
    assert normalized.results[0].shifted_error == pytest.approx(expected.results[0].shifted_error)
    with pytest.raises(ValueError, match=r"which VecNormalize hides.*VecNormalize\.load"):
        evaluate_shift({"PPO": ppo}, lambda: VecNormalize(make_pendulum()), {"obs[2]": 3.0})


def test_models_stand_side_by_side_in_text_table_and_picture(model):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    mlp = tiny_fcdl(tiny_vec_env(2), dynamics="mlp", dynamics_kwargs={"hidden_dim": 8}).learn(40)
    report = evaluate_shift({"FCDL": model, "MLP": mlp}, short_vec_env, {"obj3": "noise"}, n_episodes=2)
    frame = report.to_frame()
    assert list(frame.index) == ["FCDL", "MLP"] and math.isnan(frame.loc["MLP", "same_graph"])
    assert frame.loc["FCDL", "mean"] == report.results[0].mean
    text = str(report).splitlines()
    assert text[0] == "obj3: noise; 2 episodes" and text[2].startswith("FCDL") and text[3].startswith("MLP")
    widths = [bar.get_width() for bar in report.plot().axes[0].patches]
    assert widths == [r.mean for r in report.results] + [r.shifted_mean for r in report.results]


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        ({"obj9": "noise"}, "'obj9'.*obj0, obj1"),
        ({"obj1": Normal(0, 1)}, "obj1 is a category"),
        ({"obj1": 3}, "obj1 has the categories 0 to 2, got 3; 'noise' is"),
        ({"obj1": "drop"}, "0 to 2, got 'drop'; 'noise' is"),
    ],
)
def test_mistakes_are_told(model, shifts, message):
    with pytest.raises(ValueError, match=message):
        evaluate_shift({"fcdl": model}, lambda: tiny_vec_env(1), shifts, n_episodes=1)


class Categories(gym.Env):
    """Observes the same categories always, and counts how it was asked."""

    action_space = spaces.Discrete(2)

    def __init__(self, observation_space, observation):
        self.observation_space, self.observation = observation_space, observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation, {}

    def step(self, action):
        return self.observation, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "observation", "name", "shift", "shown"),
    [
        (spaces.Discrete(3), 1, "obs", 2, 2),
        (spaces.Discrete(3, start=5), 6, "obs", "7", 7),
        (spaces.MultiDiscrete([3, 4]), np.array([1, 2]), "obs[1]", 3, [1, 3]),
        (spaces.MultiBinary(2), np.array([1, 0], np.int8), "obs[0]", 0, [0, 0]),
    ],
)
@pytest.mark.parametrize("is_in_dict", [False, True])
def test_categories_of_a_space_are_set_or_drawn(space, observation, name, shift, shown, is_in_dict):
    if is_in_dict:
        names = spaces.Dict({"obs": space, "x": spaces.Box(-1, 1, (1,), np.float32)})
        given = {"obs": observation, "x": np.zeros(1, np.float32)}
    else:
        names, given = space, observation

    def shifted(shift):
        env = DummyVecEnv([lambda: Categories(names, given)] * 200)
        venv = ShiftedVecEnv(env, default_factors(names, env.action_space), {name: shift})
        seen, clean = venv.reset(), venv.clean
        part, whole = (seen["obs"], clean["obs"]) if is_in_dict else (seen, clean)
        assert part.dtype == whole.dtype and (whole == observation).all()
        return part

    assert (shifted(shift) == shown).all()
    noisy = shifted("noise")
    assert all(space.contains(row if space.shape else space.dtype.type(row)) for row in noisy)
    others = noisy.reshape(200, -1)
    column = int(name[4]) if "[" in name else 0
    n = {"Discrete": 3, "MultiDiscrete": 4, "MultiBinary": 2}[type(space).__name__]
    assert len(np.unique(others[:, column])) == n
    assert (np.delete(others, column, 1) == np.delete(np.atleast_1d(observation), column)).all()
    with pytest.raises(ValueError, match="'noise' is allowed, too"):
        shifted(9)


def test_a_picture_cannot_be_shifted(model):
    class Picture(gym.Env):
        observation_space, action_space = spaces.Box(0, 1, (2, 2), np.float32), spaces.Discrete(2)

    with pytest.raises(ValueError, match="can be shifted are none"):
        evaluate_shift({"fcdl": model}, lambda: DummyVecEnv([Picture]), {"obs": "noise"})
    with pytest.raises(ValueError, match="n_episodes=0 is not allowed; n_episodes must be an integer, at least 1"):
        evaluate_shift({"fcdl": model}, lambda: tiny_vec_env(1), {}, n_episodes=0)


@pytest.mark.parametrize(
    ("text", "shift"),
    [("noise", "noise"), ("Normal(0,100)", Normal(0, 100)), ("Normal(-1.5, 2)", Normal(-1.5, 2)), ("2", 2.0), ("red", "red")],
)
def test_shifts_are_read_from_text(text, shift):
    assert parse_shift(text) == shift == parse_shift(str(shift))


@pytest.mark.parametrize("text", ["Noise", "Normal(1)", "Normal(a,b)", ""])
def test_shifts_that_are_none_are_refused(text):
    for name, allowed in (("y", r"'noise', Normal\(mean, std\) or a number"), ("gate", "the categories shut, open, got")):
        with pytest.raises(ValueError, match=allowed):
            ShiftedVecEnv(gated_vec_env(), GatedEnv.factorization, {name: parse_shift(text)})


def test_command_writes_what_it_prints(model, tmp_path, capsys):
    model.save(tmp_path / "model.zip")
    arguments = ["robustness", "--model", str(tmp_path / "model.zip"), "--shift", "obj3=noise", "--episodes", "2"]
    arguments += ["--env-kwargs", "n_objects=4", "n_colors=3", "--json", str(tmp_path / "report.json")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "obj3: noise; 2 episodes" and printed[2].startswith(f"{tmp_path}  ")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["shifts"] == {"obj3": "noise"} and f"{written['results'][0]['mean']:.2f}" in printed[2]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments[:3], "--shift", "obj9=noise", *arguments[5:]])
    assert "unknown variable 'obj9'" in capsys.readouterr().err
