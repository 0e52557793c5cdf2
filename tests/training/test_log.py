"""What is logged of a model while it learns: what is written, held against what happened."""

import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HumanOutputFormat, Logger, configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl.dynamics import FCDLDynamics, Losses
from sb3_fcdl.graphs import CausalGraph
from sb3_fcdl.training.log import ModelLog

KEYS = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/exploration_rate",
    "rollout/success_rate",
    "train/learning_rate",
    "train/dynamics_loss",
    "causal/code_perplexity",
    "causal/edges_per_code",
    "causal/shd",
    "causal/f1",
    "causal/transition_precision",
    "causal/transition_recall",
    "time/plan_ms",
    "time/update_ms",
    "time/fps",
}


def events_of(folder: pathlib.Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def steps_of(events: EventAccumulator, key: str) -> list[int]:
    # Two files of one second are read in the order of their names, where 10 is before 9: go by the clock.
    return [event.step for event in sorted(events.Scalars(key), key=lambda event: event.wall_time)]


class Diary(BaseCallback):
    """What was observed, done and told, a row for each transition."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[np.ndarray, int, dict[str, Any]]] = []

    def _on_step(self) -> bool:
        observed = self.model._last_obs["state"]
        self.rows += [*zip(observed.copy(), self.locals["actions"].tolist(), self.locals["infos"], strict=True)]
        return True


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of two runs, the first of which was continued."""
    folder = tmp_path_factory.mktemp("runs")
    model = tiny_fcdl(tiny_vec_env(2), tensorboard_log=str(folder)).learn(100, log_interval=2)
    model.learn(50, reset_num_timesteps=False)
    model.learn(50)
    return folder


def test_tensorboard_has_the_keys_and_runs_are_numbered(runs):
    assert sorted(path.name for path in runs.iterdir()) == ["FCDL_1", "FCDL_2"]
    events = events_of(runs / "FCDL_1")
    assert set(events.Tags()["scalars"]) >= KEYS
    for key in KEYS:
        assert all(np.isfinite(event.value) for event in events.Scalars(key)), key


class ThreeContexts(FCDLDynamics):
    """Graphs of 1, 2 and 4 edges."""

    def context_graphs(self):
        edges = np.zeros((3, 4, 5), dtype=bool)
        edges[0, 0, 0], edges[1, 0, :2], edges[2, 0, :4] = True, True, True
        names = self.factors.state_names, self.factors.parent_names
        return [CausalGraph(each, *names, f"code {code}") for code, each in enumerate(edges)]


def test_means_of_losses_and_times_and_the_last_codes_by_hand():
    world = tiny_fcdl(dynamics=ThreeContexts, dynamics_kwargs={"hidden_dim": 8}).policy.world
    log = ModelLog(world, horizon=2)
    assert log.summary() == {}
    for dynamics_loss, reward_loss, codes in ((1.0, 8.0, [2, 2, 2, 2]), (4.0, 2.0, [0, 0, 1, 1])):
        terms = {"dynamics": th.tensor(dynamics_loss), "reg": th.tensor(0.5)}
        log.add_losses(Losses(th.tensor(0.0), terms, th.tensor(codes)), {"reward": th.tensor(reward_loss, requires_grad=True)})
    log.add_updates(3, 0.25)
    log.add_updates(1, 0.15)
    log.add_plan(0.01)
    log.add_plan(0.05)
    assert log.summary() == pytest.approx(
        {
            "time/plan_ms": 30,
            "time/update_ms": 100,
            "train/dynamics_loss": 2.5,
            "train/reg_loss": 0.5,
            "train/reward_loss": 5,
            # Of the last update alone: two codes as frequent as each other, and their 1 and 2 edges.
            "causal/code_perplexity": 2,
            "causal/edges_per_code": 1.5,
        }
    )
    assert log.summary() == {}


def test_distance_from_the_truth_by_hand():
    """Free are the six edges from objects above; the model says which of them hold by the first object alone."""

    class Graphs(ThreeContexts):
        def local_graph(self, state, action):
            graph = th.zeros(len(state), 4, 5)
            graph[:, 1, 0], graph[:, 2, 0], graph[:, 3, 3] = state[:, 0], 1, 1
            return graph

    world = tiny_fcdl(dynamics=Graphs, dynamics_kwargs={"hidden_dim": 8, "graph_prior": "order"}).policy.world
    log = ModelLog(world, horizon=2)
    truth = np.zeros((2, 4, 5), dtype=bool)
    truth[:, 1, 0], truth[1, 3, 2], truth[:, 0, 3] = True, True, True
    states = th.zeros(2, 12)
    states[0, 0] = 1
    log.add_graphs(states, th.zeros(2, 12), [{"local_graph": graph} for graph in truth])
    assert log.summary() == {}  # nothing has been learned
    log.add_losses(Losses(th.tensor(0.0), {}, None), {})
    # Free are edges from an object to a later one: of four that the model has three are free, of the truth three.
    assert (
        world.dynamics.free_entries.sum() == 6 and world.dynamics.free_entries[1, 0] and not world.dynamics.free_entries[3, 3]
    )
    # The first row: 1<-0 right, 2<-0 too many; the second: 2<-0 too many, 1<-0 and 3<-2 missed.
    assert log.summary() == pytest.approx({"causal/shd": (1 + 3) / 2, "causal/f1": 2 * 1 / (3 + 3)})
    log.add_losses(Losses(th.tensor(0.0), {}, None), {})
    for _ in range(ModelLog.N_GRAPH_SAMPLES):
        log.add_graphs(states[:1], th.zeros(1, 12), [{"local_graph": truth[0]}])
    assert log.summary() == pytest.approx({"causal/shd": 1, "causal/f1": 2 / 3})  # the second row is forgotten


def test_scores_beside_what_matters_in_a_transition_by_hand():
    """Six entries are free; the model has two of them in every transition, 1<-0 and 2<-0, whatever the environment tells."""

    class Graphs(ThreeContexts):
        def local_graph(self, state, action):
            graph = th.eye(4, 5).repeat(len(state), 1, 1)
            graph[:, 1, 0], graph[:, 2, 0] = 1, 1
            return graph

    world = tiny_fcdl(dynamics=Graphs, dynamics_kwargs={"hidden_dim": 8, "graph_prior": "order"}).policy.world
    log, nothing = ModelLog(world, horizon=2), np.zeros((4, 5), dtype=bool)
    one, three = nothing.copy(), nothing.copy()
    one[1, 0], three[1, 0], three[3, 0], three[3, 1] = True, True, True, True
    told = [{"transition_graph": one, "local_graph": three}, {"transition_graph": three}, {"local_graph": nothing}]
    log.add_graphs(th.zeros(3, 12), th.zeros(3, 12), told)
    log.add_losses(Losses(th.tensor(0.0), {}, None), {})
    assert log.summary() == pytest.approx(
        {
            # Of the first and the third: 2<-0 too many and two missed, then two too many.
            "causal/shd": (3 + 2) / 2,
            "causal/f1": 2 * 1 / (4 + 3),
            # Of the first and the second.
            "causal/transition_precision": 2 / 4,
            "causal/transition_recall": 2 / 4,
        }
    )
    log.add_graphs(th.zeros(256, 12), th.zeros(256, 12), [{"transition_graph": nothing}] * 256)
    log.add_losses(Losses(th.tensor(0.0), {}, None), {})
    assert log.summary() == {"causal/transition_precision": 0}  # of no true edge there is no recall


def test_written_numbers_are_those_of_what_happened(tmp_path):
    diary, model = Diary(), tiny_fcdl(tiny_vec_env(2))
    model.set_logger(configure(str(tmp_path), ["json"]))
    model.learn(60, callback=diary, log_interval=2)
    model.logger.close()
    (written,) = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    # Written when both episodes are over, in the middle of the rollout that follows the twelfth training.
    assert written["time/total_timesteps"] == 50
    rows = diary.rows[:50]
    assert written["rollout/success_rate"] == np.mean([info["is_success"] for *_, info in rows if "is_success" in info][-2:])
    # The model of that time, trained in the same way without the log.
    same = tiny_fcdl(tiny_vec_env(2)).learn(48)
    free, n_wrong, n_both, n_either = model.dynamics.free_entries, [], 0, 0
    n_hits, n_chosen, n_needed = 0, 0, 0
    goal = tiny_env().reset(seed=0)[0]["goal"]
    for state, action, info in rows:
        graph = same.local_graph({"state": state, "goal": goal}, action).edges
        n_wrong.append((graph != info["local_graph"])[free].sum())
        n_both += (graph & info["local_graph"])[free].sum()
        n_either += graph[free].sum() + info["local_graph"][free].sum()
        needed = info["transition_graph"][free]
        n_hits, n_chosen, n_needed = (
            n_hits + (graph[free] & needed).sum(),
            n_chosen + graph[free].sum(),
            n_needed + needed.sum(),
        )
    assert written["causal/transition_precision"] == pytest.approx(n_hits / n_chosen)
    assert written["causal/transition_recall"] == pytest.approx(n_hits / n_needed)
    assert written["causal/shd"] == pytest.approx(np.mean(n_wrong))
    assert written["causal/f1"] == pytest.approx(2 * n_both / n_either)


def test_tensorboard_shows_graphs_contexts_errors_and_hyperparameters(runs):
    pytest.importorskip("matplotlib")
    events = events_of(runs / "FCDL_1")
    tags = events.Tags()
    assert set(tags["images"]) == {"causal/codes", "causal/union"}
    names = [f"obj{index}" for index in range(4)]
    expected = {f"model_error_{steps}/{name}" for steps in (1, 2, 3) for name in names}
    expected |= {"model/error_1", "model/error_2", "model/error_3", "model/imagined_return", "model/recorded_return"}
    assert set(tags["scalars"]) >= expected | {f"code_share/{code}" for code in range(4)}
    assert events.Scalars("model/error_1")[0].value == pytest.approx(
        np.mean([events.Scalars(f"model_error_1/{name}")[0].value for name in names])
    )
    shares = [events.Scalars(f"code_share/{code}")[0].value for code in range(4)]
    assert sum(shares) == pytest.approx(1)
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_a_report_comes_with_the_first_dump_and_every_so_many_later_ones(tmp_path, monkeypatch):
    assert ModelLog.REPORT_EVERY == 10
    monkeypatch.setattr(ModelLog, "REPORT_EVERY", 2)
    small = {"dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 8}}
    model = tiny_fcdl(tensorboard_log=str(tmp_path), learning_starts=30, **small).learn(100, log_interval=1)
    model.learn(50, log_interval=1, reset_num_timesteps=False).learn(25, log_interval=1)
    # An episode has 25 steps, and at the end of the first one nothing has been learned. A new run begins with a report.
    for run, dumps, reports in (("FCDL_1", [50, 75, 100, 125, 150], [50, 100, 150]), ("FCDL_2", [25], [25])):
        events = events_of(tmp_path / run)
        assert steps_of(events, "train/dynamics_loss") == dumps
        assert steps_of(events, "model/error_1") == reports


def test_tensorboard_shows_what_each_variable_is_worth_for_the_context(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    worth = {"obj0": 0.5, "obj1": 0.0, "obj2": -0.25, "obj3": 0.0, "action": 0.125}
    monkeypatch.setattr(FCDLDynamics, "MEASURE_EVERY", 1)
    monkeypatch.setattr(FCDLDynamics, "_measure_importance", lambda model, windows: th.tensor(list(worth.values())))
    tiny_fcdl(tiny_vec_env(2), dynamics="fcdl", tensorboard_log=str(tmp_path)).learn(60, log_interval=2)
    events = events_of(tmp_path / "FCDL_1")
    assert {name: events.Scalars(f"variable_importance/{name}")[0].value for name in worth} == worth


def test_a_line_says_when_other_variables_choose_the_context(monkeypatch):
    model, text = tiny_fcdl(dynamics="fcdl"), io.StringIO()
    model.learn(20)
    model.set_logger(Logger(None, [HumanOutputFormat(text)]))
    log = ModelLog(model.policy.world, 1)
    log.record(model.logger, model.experience, 20, 3)
    assert not text.getvalue(), "the same variables as ever"
    for chosen in (("x", "action"), ("x", "action"), ()):
        monkeypatch.setattr(FCDLDynamics, "context_variables", chosen)
        log.record(model.logger, model.experience, 30, 5)
    assert text.getvalue().splitlines() == [
        f"timestep 30, update 5: the context is chosen by {chosen}" for chosen in ("x, action", "no variable")
    ]


def test_training_is_the_same_without_tensorboard(tmp_path):
    pytest.importorskip("matplotlib")
    with_log = tiny_fcdl(tiny_vec_env(2), tensorboard_log=str(tmp_path / "log")).learn(60, log_interval=1)
    without = tiny_fcdl(tiny_vec_env(2)).learn(60)
    assert steps_of(events_of(tmp_path / "log" / "FCDL_1"), "model/error_1") == [50]
    for one, other in zip(with_log.policy.parameters(), without.policy.parameters(), strict=True):
        assert th.equal(one, other)


def test_a_guest_leaves_the_groups_of_its_host_alone(tmp_path):
    world = tiny_fcdl().policy.world
    for is_guest, group in ((False, {"train", "time"}), (True, {"dynamics"})):
        log, logger = ModelLog(world, 2, is_guest), configure(str(tmp_path), [])
        log.add_losses(Losses(th.tensor(0.0), {"dynamics": th.tensor(3.0)}, None), {})
        log.add_updates(2, 1.0)
        log.record(logger, experience=None, timesteps=0, n_updates=2)
        written = logger.name_to_value
        assert {key.partition("/")[0] for key in written} == group and sorted(written.values()) == [3.0, 500.0]
