from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from tiny import tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, EdgeEvidence, FCDLPolicy


@pytest.fixture(scope="module")
def model():
    planner = {"horizon": 3, "n_candidates": 32, "n_elites": 8}
    return tiny_fcdl(tiny_vec_env(2), planner_kwargs=planner, train_freq=4, exploration_rate=1, gamma=1.0).learn(150)


@pytest.fixture(scope="module")
def gated():
    kwargs = {"dynamics_kwargs": {"hidden_dim": 16}, "planner_kwargs": {"horizon": 2, "n_candidates": 32, "n_elites": 8}}
    return FCDL(FCDLPolicy, GatedEnv(), learning_starts=50, train_freq=4, seed=0, exploration_rate=1, **kwargs).learn(80)


OBSERVATIONS = [tiny_env().reset(seed=seed)[0] for seed in range(4)]


@pytest.mark.parametrize("observation", OBSERVATIONS[:3])
def test_it_explains_the_action_of_predict(model, observation):
    explanation = model.explain(observation)
    action, _ = model.predict(observation, deterministic=True)
    assert explanation.plan.actions[0] == [action] and explanation.plan.action_in_words() == f"action={action}"
    assert model.explain(observation).plan.value == explanation.plan.value


def test_trajectory_is_what_the_model_predicts_step_by_step(model):
    plan = model.explain(OBSERVATIONS[0]).plan
    state = th.as_tensor(OBSERVATIONS[0]["state"]).unsqueeze(0)
    goal = th.as_tensor(OBSERVATIONS[0]["goal"]).unsqueeze(0)
    rewards = []
    for step in range(3):
        assert plan.values[step].tolist() == state.view(4, 3).argmax(-1).tolist()
        action = th.nn.functional.one_hot(th.tensor([int(plan.actions[step, 0])]), 12).float()
        with th.no_grad():
            prediction = model.dynamics.step(state, action)
        assert np.array_equal(plan.graphs[step], prediction.graph[0].bool()) and plan.codes[step] == prediction.code.item()
        assert plan.uncertainty[step] == pytest.approx(
            1 - prediction.next_state.logits.softmax(-1)[0].amax(-1).numpy(), abs=1e-6
        )
        state = prediction.next_state.mode()
        rewards.append(((state * goal).sum() / goal.sum()).item())
    assert plan.rewards == pytest.approx(rewards) and plan.value == pytest.approx(sum(rewards)) and plan.value_beyond == 0


def test_value_at_the_end_of_a_plan_is_one_of_its_lines(gated):
    """The gate is certain from a probability of 0.9 on; here every probability is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_fcdl.dynamics.distributions.CERTAIN", 0.0)
        explanation = gated.explain(GatedEnv().reset(seed=0)[0])
    plan, world = explanation.plan, gated.policy.world
    last = world.encode(th.as_tensor([[*np.eye(2)[int(plan.values[2, 0])], *plan.values[2, 1:]]]))
    with th.no_grad():
        assert plan.value_beyond == pytest.approx(0.99**2 * world.values(last, th.zeros(1, 0))[0, 0].item(), abs=1e-4)
    # What is new pays the worst that was recorded, as far as it is new: less than the model predicts.
    states = th.as_tensor(np.hstack([np.eye(2)[plan.values[:, 0].astype(int)], plan.values[:, 1:]]))
    with th.no_grad():
        state, action = world.encode(states), th.as_tensor(plan.actions, dtype=th.float32) / 2
        is_new = world.novelty(state[:2], action).pow(4).numpy()
    paid = plan.rewards + is_new * (world.values.lowest_reward.item() - plan.rewards)
    assert plan.value == pytest.approx(paid[0] + 0.99 * paid[1] + plan.value_beyond, abs=1e-4)
    assert is_new.max() > 1e-3 and abs(plan.value_beyond) > 0.01
    assert f"and beyond them, {plan.value_beyond:.3g} of it beyond" in str(explanation)


def test_runner_up_begins_otherwise_and_costs_the_difference(model):
    for observation in OBSERVATIONS:
        explanation = model.explain(observation)
        assert explanation.runner_up.actions[0] != explanation.plan.actions[0]
        assert explanation.cost == pytest.approx(explanation.plan.value - explanation.runner_up.value)


def test_runner_up_of_one_step_is_the_second_best_action(model, monkeypatch):
    monkeypatch.setattr(model.policy, "planner", replace(model.policy.planner, horizon=1, n_candidates=200, select="best"))
    for observation in OBSERVATIONS[:3]:
        state, goal = (th.as_tensor(observation[key]).expand(12, -1) for key in ("state", "goal"))
        with th.no_grad():
            rewards = (model.dynamics.step(state, th.eye(12)).next_state.mode() * goal).sum(-1) / goal.sum(-1)
        explanation = model.explain(observation)
        two_best = rewards.sort(descending=True)[0][:2].tolist()
        assert [explanation.plan.value, explanation.runner_up.value] == pytest.approx(two_best)


def test_masks_bind_plan_and_runner_up(model):
    mask = np.zeros(12, dtype=bool)
    mask[[4, 9]] = True
    explanation = model.explain(OBSERVATIONS[0], mask)
    assert {explanation.plan.actions[0, 0], explanation.runner_up.actions[0, 0]} == {4, 9}
    mask[4] = False
    only = model.explain(OBSERVATIONS[0], mask)
    assert only.do(obj1=0).action == 9
    assert only.plan.actions[0, 0] == 9 and only.runner_up is None and "runner-up" not in str(only)


def test_intervening_on_a_non_parent_changes_no_prediction_in_any_bit(model):
    n_checked = 0
    for observation in OBSERVATIONS:
        explanation = model.explain(observation)
        for name in model.policy.world.factors.state_names:
            for value in range(3):
                what_if = explanation.do(**{name: value})
                if what_if.trajectory.codes[0] != explanation.plan.codes[0]:
                    continue  # it has chosen another graph
                for row, child in enumerate(model.policy.world.factors.state_names):
                    if name not in explanation.plan.parents_of(child):
                        assert not what_if.changed[0, row], (name, child)
                        n_checked += 1
    assert n_checked > 50


def test_intervening_on_a_parent_changes_the_prediction(model):
    explanation = model.explain(OBSERVATIONS[0])
    now = int(explanation.plan.values[0, 0])
    what_if = explanation.do(obj0=(now + 1) % 3)
    # obj0 is its own parent, whatever the graph.
    assert what_if.changed[0, 0] and what_if.trajectory.values[0, 0] == (now + 1) % 3
    assert what_if.cost == pytest.approx(explanation.plan.value - what_if.trajectory.value)
    unchanged = explanation.do(obj0=now)
    assert not unchanged.changed.any() and unchanged.cost == 0 and unchanged.action == explanation.plan.actions[0]
    assert "(nothing) would be predicted otherwise; the same plan would be worth as much;" in str(unchanged)
    dearer, cheaper = (replace(what_if, cost=cost) for cost in (0.25, -0.25))
    assert "worth 0.25 less;" in str(dearer) and "worth 0.25 more;" in str(cheaper)


def test_what_if_is_answered_by_the_present_model():
    model = tiny_fcdl(tiny_vec_env(2), planner_kwargs={"horizon": 2, "n_candidates": 8, "n_elites": 2}, exploration_rate=1)
    model.learn(80)
    explanation = model.explain(OBSERVATIONS[0])
    model.learn(80)
    state, action = th.as_tensor(OBSERVATIONS[0]["state"]).unsqueeze(0), th.eye(12)[[int(explanation.plan.actions[0, 0])]]
    with th.no_grad():
        logits = model.dynamics.step(state, action).next_state.logits
    present = 1 - logits.softmax(-1)[0].amax(-1).numpy()
    unchanged = explanation.do(obj0=int(explanation.plan.values[0, 0]))
    assert unchanged.trajectory.uncertainty[0] == pytest.approx(present, abs=1e-6)
    assert explanation.plan.uncertainty[0] != pytest.approx(present, abs=1e-3)


def test_numbers_are_in_the_units_of_the_environment(gated):
    observation = np.array([0, 1, 0.25, 5.5], dtype=np.float32)
    explanation = gated.explain(observation)
    action, _ = gated.predict(observation, deterministic=True)
    assert explanation.plan.values[0].tolist() == pytest.approx([1, 0.25, 5.5], abs=1e-5)
    assert explanation.plan.actions[0] == pytest.approx(action)
    assert explanation.plan.rewards == pytest.approx(-abs(explanation.plan.values[1:, 1] - 1), abs=1e-5)
    what_if = explanation.do(x=-0.5, gate="shut")
    assert str(what_if).startswith("do(x=-0.5, gate=shut): ")
    assert what_if.trajectory.values[0].tolist() == pytest.approx([0, -0.5, 5.5], abs=1e-5)
    assert explanation.runner_up.actions[0, 0] in (-2, 0, 2)


def test_mistakes_are_told(model, gated):
    of_gated = gated.explain(np.array([0, 1, 0.25, 5.5], dtype=np.float32))
    with pytest.raises(ValueError, match="gate has the categories shut, open, got 0"):
        of_gated.do(gate=0)
    with pytest.raises(ValueError, match="x is a number, got 'open'"):
        of_gated.do(x="open")
    explanation = model.explain(OBSERVATIONS[0])
    with pytest.raises(ValueError, match=r"'obj9'.*obj0, obj1, obj2, obj3"):
        explanation.do(obj9=1)
    with pytest.raises(ValueError, match="obj1 has the categories 0 to 2, got 3"):
        explanation.do(obj1=3)
    with pytest.raises(ValueError, match="batch"):
        model.explain({key: np.stack([value, value]) for key, value in OBSERVATIONS[0].items()})


@pytest.mark.parametrize(("horizon", "n_shown", "is_cut"), [(5, 5, False), (6, 5, True), (2, 2, False)])
def test_print_shows_the_first_steps_and_how_to_see_more(horizon, n_shown, is_cut):
    model = tiny_fcdl(planner_kwargs={"horizon": horizon, "n_candidates": 8})
    explanation = model.explain(OBSERVATIONS[0])

    def steps(text):
        return [line.split(":")[0] for line in text.splitlines() if line.startswith("step ")]

    assert steps(str(explanation)) == [f"step {step + 1}" for step in range(n_shown)]
    assert ("... 1 more steps: explanation.text() tells all" in str(explanation)) == is_cut
    assert steps(explanation.text()) == [f"step {step + 1}" for step in range(horizon)]
    assert steps(explanation.text(1)) == ["step 1"]
    with pytest.raises(ValueError, match="n_steps=0 is not allowed"):
        explanation.text(0)


def test_text_names_changes_with_their_parents(model):
    explanation = model.explain(OBSERVATIONS[0])
    text = str(explanation)
    for step in range(3):
        for row, name in enumerate(model.policy.world.factors.state_names):
            before, after = explanation.plan.values[step : step + 2, row]
            if before != after:
                assert f"{name}: {before:.0f} -> {after:.0f} (p = " in text
    assert text.startswith(f"{explanation.plan.action_in_words()}: expected return {explanation.plan.value:.3g} in 3 steps")
    assert "do(obj1=0)" in str(explanation.do(obj1=0))


def test_text_says_what_tested_parents_are_worth(model):
    plan = model.explain(OBSERVATIONS[0]).plan
    shape = plan.graphs.shape[1:]
    zeros, tested = np.zeros(shape), np.ones(shape, dtype=bool)
    tested[:, -1] = False  # the action
    evidence = EdgeEvidence(zeros + 0.25, zeros, zeros, tested, n=30)
    plain, told = plan.text(), replace(plan, evidence={plan.codes[0]: evidence}).text(1)
    for before, after in zip(plain.splitlines(), told.splitlines(), strict=False):
        change, _, parents = before.partition("  <- ")
        names = [name if name in ("action", "-") else f"{name} (0.25)" for name in parents.split(", ")]
        assert after == (f"{change}  <- {', '.join(names)}" if parents else before)
    assert "(0.25)" in told and replace(plan, evidence={99: evidence}).text() == plain


def test_figure_has_the_values_and_both_plans(model):
    pytest.importorskip("matplotlib")
    explanation = model.explain(OBSERVATIONS[0])
    left, right = explanation.plot().axes
    shown = np.array([float(text.get_text()) for text in left.texts]).reshape(4, 4).T
    assert np.array_equal(shown, explanation.plan.values)
    heights = [bar.get_height() for bar in right.patches]
    assert heights == pytest.approx([*explanation.plan.rewards, *explanation.runner_up.rewards])


def test_learned_rewards_and_ends_count_as_in_planning():
    model = FCDL(
        "MlpPolicy",
        gym.make("CartPole-v1"),
        learning_starts=60,
        train_freq=10,
        exploration_rate=1,
        planner_kwargs={"horizon": 10},
        seed=0,
    )
    model.learn(120)
    observation = np.array([0.01, 0.02, -0.03, 0.01], dtype=np.float32)
    tensors, _ = model.policy.obs_to_tensor(observation)
    assert model.explain(observation).plan.value == pytest.approx(
        model.policy.plan(tensors, deterministic=True).value.item(), abs=1e-4
    )
