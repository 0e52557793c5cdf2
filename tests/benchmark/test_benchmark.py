"""The floors and the ceiling by value, intervals, tables and result files."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from fcdl_envs.chemical_system import ChemicalSystem
from sb3_fcdl.benchmark import BENCHMARKS, benchmark_of, chemical_tasks
from sb3_fcdl.benchmark.base import ReferencePolicy
from sb3_fcdl.benchmark.chemical import CEILING, FixedOrder, NoOp, Random, RandomWithoutRoot, TrueDynamicsPlanner
from sb3_fcdl.evaluation import Task, TaskResult, evaluate_tasks, make_env
from sb3_fcdl.evaluation.contexts import ContextResult
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET, bootstrap_interval
from sb3_fcdl.runs import Run, append_csv, format_table, read_csv
from sb3_fcdl.runs.table import ContextCsvRow

RESULT = TaskResult("n=2", mean=12.3456, ci_low=11.0, ci_high=13.5, success=0.25, n_episodes=20, predict_ms=4.0)
ENV_ID = "FCDL/Chemical-v0"
RUN = Run(ENV_ID, "dynamics_seed=3 rule=full_fork", algo="FCDL", seed=1, timesteps=30_000, wall_s=61.25)


def means(policy, rule, n_episodes=10):
    env_kwargs = {"rule": rule, "dynamics_seed": 0}
    results = evaluate_tasks(policy, ENV_ID, env_kwargs, chemical_tasks()[1:], n_episodes, n_envs=n_episodes)
    return [result.mean for result in results]


def observation(colors, goal):
    """One observation of three objects with two colours; a goal of None is outside the match set."""
    rows = np.eye(2, dtype=np.float32)
    goals = [np.zeros(2, dtype=np.float32) if color is None else rows[color] for color in goal]
    return {"state": rows[colors].reshape(1, -1), "goal": np.concatenate(goals)[None]}


@pytest.mark.parametrize(("rule", "expected"), [("full_fork", [3.125, 25 / 6, 6.25]), ("full_chain", [12.5, 12.5, 12.5])])
def test_doing_nothing_scores_what_the_match_set_says(rule, expected):
    np.testing.assert_allclose(means(NoOp(10, 5), rule), expected, rtol=1e-6)


@pytest.mark.parametrize(("rule", "expected"), [("full_fork", [22.375, 70 / 3, 24.25]), ("full_chain", [24.4, 24.6, 24.8])])
def test_fixing_in_index_order_scores_what_the_specification_says(rule, expected):
    np.testing.assert_allclose(means(FixedOrder(10, 5), rule, n_episodes=20), expected, atol=0.5)


def test_random_actions_below_the_root_score_their_expectation_on_the_fork():
    # An action only sets one of the nine objects below the root, to a right colour once in five times.
    steps_right = sum((1 - (8 / 9) ** step) / 5 for step in range(1, 26))
    expected = [(25 + n_wrong * steps_right) / (n_wrong + 1) for n_wrong in (7, 5, 3)]
    np.testing.assert_allclose(means(RandomWithoutRoot(10, 5), "full_fork", n_episodes=500), expected, atol=0.35)


@pytest.mark.parametrize(
    ("rule", "task", "bound"),
    [
        pytest.param("full_fork", "n=2", 20.5, marks=pytest.mark.slow),
        pytest.param("full_fork", "n=4", 22.4, marks=pytest.mark.slow),
        ("full_fork", "n=6", 23.7),
        pytest.param("full_chain", "n=2", 21.5, marks=pytest.mark.slow),
        pytest.param("full_chain", "n=4", 21.5, marks=pytest.mark.slow),
        pytest.param("full_chain", "n=6", 20.8, marks=pytest.mark.slow),
    ],
)
def test_planning_on_the_true_dynamics_reaches_the_ceiling(rule, task, bound):
    planner = TrueDynamicsPlanner(ChemicalSystem(rule, dynamics_seed=0))
    tasks = [each for each in chemical_tasks() if each.name == task]
    (result,) = evaluate_tasks(planner, ENV_ID, {"rule": rule, "dynamics_seed": 0}, tasks, n_episodes=50, n_envs=50)
    assert result.mean >= bound


def test_ceiling_is_repeatable_and_leaves_the_global_generator_alone():
    colors, goal = np.zeros((3, 4), dtype=int), np.tile(np.eye(3)[[0, 1, 2, 0]], (3, 1, 1))
    before = th.get_rng_state()
    first, again = (TrueDynamicsPlanner(ChemicalSystem(n_objects=4, n_colors=3), seed=7) for _ in range(2))
    for _ in range(3):
        np.testing.assert_array_equal(first.plan_from(colors, goal).actions, again.plan_from(colors, goal).actions)
    assert th.equal(before, th.get_rng_state())


def test_states_are_numbered_if_int64_has_room():
    largest = th.nn.functional.one_hot(th.full((1, 21), 7), 8).flatten(1).float()
    key = TrueDynamicsPlanner(ChemicalSystem(n_objects=21, n_colors=8)).key
    assert key is not None and key(largest).tolist() == [8**21 - 1] == [2**63 - 1]
    assert TrueDynamicsPlanner(ChemicalSystem(n_objects=22, n_colors=8)).key is None


def test_fixed_order_repairs_the_first_mismatch_inside_the_match_set():
    policy = FixedOrder(3, 2)
    assert policy.predict(observation([0, 1, 1], [0, None, 0]))[0] == 2 * 2 + 0
    assert policy.predict(observation([0, 1, 1], [1, 0, 0]))[0] == 0 * 2 + 1
    assert policy.predict(observation([0, 1, 1], [0, None, 1]))[0] == 2 * 2 + 1, "nothing to repair: keep the last colour"


@pytest.mark.parametrize("rule", ["full_fork", "full_chain"])
def test_no_noise_changes_the_returns_of_floors_and_ceiling(rule):
    """The ceiling plans on the true state; what the noise makes of an object is seen by a model alone."""
    task, sizes = Task("n=3", {"task": "test", "n_noisy": 3}), {"rule": rule, "n_objects": 7, "n_colors": 3}
    means = {}
    for noise in ("none", "scale", "color"):
        env_kwargs = {**sizes, "noise": noise}
        policies = benchmark_of(ENV_ID).references(ENV_ID, env_kwargs, 0, None)
        results = {name: evaluate_tasks(policy, ENV_ID, env_kwargs, [task], 5) for name, policy in policies.items()}
        means[noise] = {name: result.mean for name, (result,) in results.items()}
    assert means["none"] == means["scale"] == means["color"]
    assert len(set(means["none"].values())) == 5


def test_ceiling_plans_from_the_true_colors():
    env = make_env(ENV_ID, 5, {"task": "test", "n_noisy": 4, "noise": "color"})
    env.seed(0)
    noisy = env.reset()
    true = np.stack([state["colors"] for state in env.env_method("get_state")])
    assert (noisy["state"].reshape(5, 10, 5).argmax(-1) != true).any()
    planner, twin = (TrueDynamicsPlanner(ChemicalSystem(), seed=3) for _ in range(2))
    planner.attach(env)
    assert planner.predict(noisy)[0].tolist() == twin.plan_from(true, noisy["goal"]).actions[:, 0].tolist()


def test_random_actions_are_uniform_and_leave_the_root_alone_if_asked():
    batch = {key: np.repeat(rows, 6000, axis=0) for key, rows in observation([0, 1, 1], [0, 0, 0]).items()}
    counts = np.bincount(Random(3, 2).predict(batch)[0], minlength=6)
    np.testing.assert_allclose(counts, 1000, atol=150)
    counts = np.bincount(RandomWithoutRoot(3, 2).predict(batch)[0], minlength=6)
    np.testing.assert_allclose(counts, [0, 0, 1500, 1500, 1500, 1500], atol=150)


def test_planner_models_the_most_likely_step_of_the_true_system():
    system = ChemicalSystem(n_objects=4, n_colors=3, dynamics_seed=1)
    planner = TrueDynamicsPlanner(system)
    colors = np.array([[1, 0, 2, 1], [0, 2, 1, 0]])
    state = planner._one_hot(colors)
    action = np.array([4, 0])
    step = planner._step(state, th.eye(12)[action]).next_state
    expected = np.eye(3)[system.most_likely_step(colors, action)].reshape(2, -1)
    np.testing.assert_array_equal(step.numpy(), expected)
    assert planner.key(state).tolist() == [1 + 0 * 3 + 2 * 9 + 1 * 27, 0 + 2 * 3 + 1 * 9 + 0 * 27]


@pytest.mark.parametrize("env_id", BENCHMARKS)
def test_the_help_describes_every_reference_and_options_are_arguments_of_the_environment(env_id):
    benchmark = benchmark_of(env_id)
    assert list(benchmark.rows) == list(benchmark.references(env_id, {}, 0, None))
    for option in benchmark.options:
        for choice in option.choices:
            gym.make(env_id, **{option.name: choice}).close()


def test_reference_policies_come_from_floor_to_ceiling():
    policies = benchmark_of(ENV_ID).references(ENV_ID, {"n_objects": 5, "n_colors": 3}, 0, None)
    assert list(policies) == ["no-op", "random", "random, root excluded", "fix in index order", CEILING]
    env = make_env(ENV_ID, 20, {"n_objects": 5, "n_colors": 3})
    env.seed(0)
    batch = env.reset()
    policies[CEILING].attach(env)
    taken = {name: policy.predict(batch)[0] for name, policy in policies.items()}
    colors, goal = (batch[key].reshape(20, 5, 3) for key in ("state", "goal"))
    colors, wanted, counts = colors.argmax(-1), goal.argmax(-1), goal.any(-1)
    # An action is three times the object, plus the colour.
    assert taken["no-op"].tolist() == (12 + colors[:, 4]).tolist()
    differs = counts & (colors != wanted)
    repairs = [3 * row.argmax() + wanted[index, row.argmax()] for index, row in enumerate(differs)]
    assert differs.any(-1).all() and taken["fix in index order"].tolist() == repairs
    assert taken["random"].min() < 3 <= taken["random, root excluded"].min()
    twin = TrueDynamicsPlanner(ChemicalSystem(n_objects=5, n_colors=3), seed=0)
    assert taken[CEILING].tolist() == twin.plan_from(colors, batch["goal"]).actions[:, 0].tolist()


def test_tasks_are_those_that_exist_for_the_number_of_objects():
    assert [task.name for task in chemical_tasks()] == ["train", "n=2", "n=4", "n=6"]
    assert [task.name for task in chemical_tasks(8)] == ["train", "n=2", "n=4"]
    assert [task.name for task in chemical_tasks(5)] == ["train"]


def test_same_seed_gives_the_same_episodes_and_another_seed_others():
    env_kwargs = {"n_objects": 5, "n_colors": 3}
    first, again, other = (
        evaluate_tasks(NoOp(5, 3), ENV_ID, env_kwargs, chemical_tasks(5), n_episodes=4, seed=seed)[0].mean
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_result_counts_successes_and_episodes():
    task = Task("easy", {"task": "test", "n_noisy": 0})
    (result,) = evaluate_tasks(FixedOrder(5, 3), ENV_ID, {"n_objects": 5, "n_colors": 3}, [task], n_episodes=3, n_envs=2)
    assert (result.task, result.success, result.n_episodes) == ("easy", 1.0, 3)
    # The local fork: one of the four wrong objects is set right at each step, 2/5 after the first.
    assert result.mean == pytest.approx((2 + 3 + 4) / 5 + 22, abs=1e-4)
    assert result.predict_ms > 0
    with pytest.raises(ValueError, match="n_episodes"):
        evaluate_tasks(NoOp(5, 3), ENV_ID, {}, [task], n_episodes=0)


def test_bootstrap_interval_of_a_large_sample_is_the_normal_one():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    mean, low, high = bootstrap_interval(values)
    half_width = 1.96 * values.std() / 20
    assert mean == values.mean()
    np.testing.assert_allclose([low, high], [mean - half_width, mean + half_width], atol=0.02)
    assert bootstrap_interval(values) == (mean, low, high)
    assert bootstrap_interval(np.array([5.0, 5.0])) == (5.0, 5.0, 5.0)


def test_bootstrap_interval_of_two_values_by_hand():
    # Means of resamples: 0 with probability 1/4, 1/2 with 1/2, 1 with 1/4.
    assert bootstrap_interval(np.array([0.0, 1.0]), confidence=0.6) == (0.5, 0.0, 1.0)
    assert bootstrap_interval(np.array([0.0, 1.0]), confidence=0.4) == (0.5, 0.5, 0.5)


def test_table_has_a_row_a_policy_and_aligned_columns():
    lines = format_table({"FCDL": [RESULT], "a longer name": [RESULT]}).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["policy", "n=2", "ms/predict"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["FCDL", "12.35 [11.00, 13.50] 25 %", "4.00"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[-1].endswith("20 episodes a task.")


def test_result_file_round_trip(tmp_path):
    path = tmp_path / "results" / "chemical.csv"
    append_csv(path, RUN, [RESULT])
    append_csv(path, RUN, [RESULT, RESULT])
    header = "env,env_kwargs,algo,seed,timesteps,wall_s,task,mean,ci_low,ci_high,success,n_episodes"
    assert path.read_text().splitlines()[0] == header
    rows = read_csv(path)
    assert len(rows) == 3
    assert rows[0] == rows[2]
    assert (rows[0].env, rows[0].env_kwargs, rows[0].mean, rows[0].success) == (ENV_ID, RUN.env_kwargs, 12.3456, 0.25)


def test_graphs_have_a_file_of_their_own(tmp_path):
    path = tmp_path / "contexts.csv"
    context = ContextResult("n=2", 20, share=1 / 3, missing=0.5, extra=2.0, same_code=float("nan"), same_graph=0.75)
    append_csv(path, RUN, [context])
    (row,) = read_csv(path, ContextCsvRow)
    assert (row.algo, row.task, row.n_true_edges, row.share, row.shd) == ("FCDL", "n=2", 20, 0.3333, 2.5)
    assert np.isnan(row.same_code) and row.same_graph == 0.75
    with pytest.raises(ValueError, match=r"contexts\.csv has the columns"):
        append_csv(path, RUN, [RESULT])


def test_a_file_keeps_the_order_of_its_columns(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("env,env_kwargs,algo,seed,timesteps,task,mean,ci_low,ci_high,success,n_episodes,wall_s\n")
    append_csv(path, RUN, [RESULT])
    assert path.read_text().splitlines()[1].endswith("30000,n=2,12.3456,11.0,13.5,0.25,20,61.25")
    assert read_csv(path)[0].wall_s == 61.25


def test_a_file_with_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv has the columns a, b"):
        append_csv(path, RUN, [RESULT])
    assert path.read_text() == "a,b\n1,2\n"


def test_environment_that_nobody_here_wrote():
    """CartPole's own batch resets in another way than SB3's, and it tells no success."""
    env = gym.make("CartPole-v1")
    env.reset(seed=EVALUATION_SEED_OFFSET)
    lengths = [0, 0, 0]
    for episode in range(3):
        while not env.step(0)[2]:
            lengths[episode] += 1
        env.reset()

    class Left(ReferencePolicy):
        def act(self, observation):
            return np.zeros(len(observation), dtype=int)

    [result] = evaluate_tasks(Left(), "CartPole-v1", {}, [Task("train")], n_episodes=3, n_envs=1)
    assert result.mean == pytest.approx(np.mean(lengths) + 1)
    assert np.isnan(result.success)
    assert "%" not in format_table({"left": [result]}).splitlines()[2]
