"""Tables and pictures of results, with figures by hand; and the files that they are read from."""

import json

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from tiny import tiny_env
from toy import squeezed

from sb3_fcdl.cli import main
from sb3_fcdl.evaluation import TaskResult
from sb3_fcdl.evaluation.contexts import ContextResult
from sb3_fcdl.evaluation.statistics import estimate, iqm, probability_of_improvement
from sb3_fcdl.experiments.lines import lines_of
from sb3_fcdl.experiments.pictures import KINDS, picture
from sb3_fcdl.experiments.tables import Layout, table
from sb3_fcdl.runs import Run, append_csv

# Of FCDL and MLP on two tasks, four seeds.
SCORES = {
    ("FCDL", "train"): [10.0, 13.0, 11.0, 20.0],
    ("FCDL", "n=2"): [5.0, 8.0, 6.0, 7.0],
    ("MLP", "train"): [12.0, 9.0, 11.0, 10.0],
    ("MLP", "n=2"): [1.0, 2.0, 6.0, 4.0],
}


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "results.csv"
    for rule, shift in (("full_fork", 0.0), ("full_chain", 100.0)):
        for seed in range(4):
            for algo in ("FCDL", "MLP"):
                # Before its end a run is no better than nothing.
                for timesteps, factor in ((500, 0), (1000, 1)):
                    run = Run("FCDL/Chemical-v0", f"dynamics_seed={seed} rule={rule}", algo, seed, timesteps, timesteps / 10)
                    means = {task: factor * (SCORES[algo, task][seed] + shift) for task in ("train", "n=2")}
                    append_csv(path, run, [TaskResult(task, mean, 0, 0, 0.25, 5, 1.0) for task, mean in means.items()])
            for name, mean in (("random", 0.0), ("ceiling", 20.0)):
                run = Run("FCDL/Chemical-v0", f"dynamics_seed={seed} rule={rule}", name, seed, 0, 0.0)
                append_csv(path, run, [TaskResult(task, mean, 0, 0, 1.0, 5, 1.0) for task in ("train", "n=2")])
    return path


def rows_of(csv, **layout):
    where = {"rule": "full_fork", **layout.pop("where", {})}
    return squeezed(table(lines_of(csv), Layout(where=where, **layout))).splitlines()


def test_a_cell_is_over_the_seeds_of_the_last_evaluation(csv):
    rows = rows_of(csv, labels={"MLP": "dense"}, also=("seeds", "timesteps", "wall_s"))
    assert rows[0] == "| | seeds | train | n=2 | timesteps | s |"
    assert rows[2] == "| FCDL | 4 | 13.5 [10.0, 20.0] | 6.5 [5.0, 8.0] | 1,000 | 100 |"
    assert rows[3:] == [
        "| dense | 4 | 10.5 [9.0, 12.0] | 3.2 [1.0, 6.0] | 1,000 | 100 |",
        "| random | 4 | 0.0 | 0.0 | 0 | 0 |",
        "| ceiling | 4 | 20.0 | 20.0 | 0 | 0 |",
    ]


def test_rows_columns_and_values_are_chosen(csv):
    rows = rows_of(csv, order=("ceiling", "MLP"), has_others=False, values=("mean", "success%"), cell="seeds", digits=0)
    assert rows[0] == "| | train | n=2 | success%, train | success%, n=2 |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| ceiling", "| MLP"]
    assert rows[3] == "| MLP | 12 / 9 / 11 / 10 | 1 / 2 / 6 / 4 | 25 / 25 / 25 / 25 | 25 / 25 / 25 / 25 |"
    by_time = rows_of(csv, rows=("env", "algo"), columns=("timesteps",), where={"task": "train"}, labels={"algo": "model"})
    assert by_time[0] == "| env | model | 500 | 1,000 |"
    assert by_time[2] == "| FCDL/Chemical-v0 | FCDL | 0.0 | 13.5 [10.0, 20.0] |"
    assert by_time[5] == "| FCDL/Chemical-v0 | ceiling | 20.0 | 20.0 |"


def test_statistics_stand_in_cells(csv):
    found = estimate([np.array(SCORES["FCDL", "train"])])
    assert found.value == 12.0  # of 11 and 13
    assert f"| FCDL | 12.0 [{found.low:.1f}, {found.high:.1f}] |" in rows_of(csv, cell="iqm")[2]
    better = probability_of_improvement([np.array(SCORES["FCDL", "n=2"])], [np.array(SCORES["MLP", "n=2"])])
    assert better.value == (3 + 4 + 3.5 + 4) / 16
    improvement = rows_of(csv, cell="improvement", over="MLP", digits=2)
    assert improvement[2].endswith(f"| {better.value:.2f} [{better.low:.2f}, {better.high:.2f}] |")
    assert improvement[3].startswith("| MLP | 0.50 [")


def test_tasks_together_are_strata_and_scores_between_floor_and_ceiling(csv):
    rows = rows_of(csv, columns=(), cell="iqm", normalize=("random", "ceiling"), digits=3)
    scores = [np.array(SCORES["FCDL", task]) / 20 for task in ("train", "n=2")]
    found = estimate(scores)
    assert found.value == pytest.approx(iqm(np.concatenate(scores))) == pytest.approx((7 + 8 + 10 + 11) / 80)
    assert rows[0] == "| | mean |" and rows[2] == f"| FCDL | {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] |"
    assert rows[4:] == ["| random | 0.000 |", "| ceiling | 1.000 |"]
    with pytest.raises(ValueError, match="FCDL cannot be normalized: no-op and ceiling have no line"):
        rows_of(csv, normalize=("no-op", "ceiling"))


def test_nothing_to_show_says_what_there_is(csv):
    with pytest.raises(
        ValueError, match=r"no line has \{'rule': 'none'\}; the lines have \{'rule': \['full_chain', 'full_fork'"
    ):
        rows_of(csv, where={"rule": "none"})
    with pytest.raises(
        ValueError, match="no line has 'accuracy'; the lines have dynamics_seed, rule, env, env_kwargs, algo, seed,"
    ):
        rows_of(csv, values=("mean", "accuracy%"))


def test_lines_that_are_not_told_apart_are_refused(csv):
    lines = lines_of(csv)
    for draw in (table, lambda lines, layout: picture(lines, layout, "profile")):
        with pytest.raises(
            ValueError, match=r"seed 0 of FCDL, task train, .* differ in rule full_fork and full_chain: .*--where rule="
        ):
            draw(lines, Layout())
    both = squeezed(table(lines, Layout(rows=("rule", "algo"), where={"task": "train"}, digits=0, also=("wall_s",))))
    assert "| full_fork | FCDL | 14 [10, 20] | 100 |" in both and "| full_chain | FCDL | 114 [110, 120] | 100 |" in both
    # The same lines given twice are no contradiction; another figure of the same run is.
    assert rows_of(csv) == squeezed(table(lines + lines, Layout(where={"rule": "full_fork"}))).splitlines()
    other = [{**line, "mean": 3.0} for line in lines[:4] if line["timesteps"] == 1000]
    with pytest.raises(ValueError, match=r"with mean 10\.0 and 3.0, of the same settings: give files that have a run once"):
        table(lines + other, Layout(where={"rule": "full_fork"}))


def test_seconds_are_of_all_runs_of_a_row(csv):
    lines = [{**line, "wall_s": line["wall_s"] * (3 if line.get("rule") == "full_chain" else 1)} for line in lines_of(csv)]
    rows = squeezed(table(lines, Layout(columns=("rule", "task"), also=("wall_s",)))).splitlines()
    assert rows[2].startswith("| FCDL |") and rows[2].endswith("| 200 |")
    without = [{key: value for key, value in line.items() if key != "wall_s"} for line in lines]
    with pytest.raises(ValueError, match="leave wall_s out of --also"):
        table([lines[0], *without], Layout(where={"rule": "full_fork"}, also=("wall_s",)))


def test_floor_and_ceiling_need_not_be_among_the_rows(csv):
    expected = "| FCDL | 0.675 [0.500, 1.000] | 0.325 [0.250, 0.400] |"
    chosen = {"order": ("FCDL",), "has_others": False}, {"where": {"algo": "FCDL"}}
    for layout in chosen:
        assert rows_of(csv, normalize=("random", "ceiling"), digits=3, **layout)[2:] == [expected]
    with pytest.raises(ValueError, match=r"random and random have the same score, 0\.0, on .*: leave it out by --where"):
        rows_of(csv, normalize=("random", "random"))


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({}, "FCDL; MLP; random; ceiling: say which by --over, got None"),
        ({"over": "PPO"}, "say which by --over, got 'PPO'"),
        ({"over": "MLP", "rows": ("rule", "algo")}, "give one name in --rows, got rule, algo"),
    ],
)
def test_an_improvement_over_nothing_is_refused(csv, layout, said):
    with pytest.raises(ValueError, match=said):
        rows_of(csv, cell="improvement", **layout)


def test_evaluations_and_monitor_files_of_sb3(tmp_path):
    zoo = tmp_path / "ppo" / "CartPole-v1_3"
    zoo.mkdir(parents=True)
    np.savez(zoo / "evaluations.npz", timesteps=[10, 20], results=[[1.0, 2.0], [3.0, 6.0]], ep_lengths=[[1, 1], [1, 1]])
    first, last = lines_of(zoo / "evaluations.npz")
    assert (first["env"], first["algo"], first["seed"], first["mean"]) == ("CartPole-v1", "PPO", 3, 1.5)
    assert (last["timesteps"], last["mean"]) == (20, 4.5)

    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(
        json.dumps({"env": "m:FCDL/Chemical-v0", "env_kwargs": {"rule": "x"}, "algo": "A, b", "seed": 1})
    )
    env = Monitor(tiny_env(), str(run / "0"))
    returns = []
    for episode in range(103):
        env.reset(seed=episode)
        truncated, total = False, 0.0
        while not truncated:
            _, reward, _, truncated, _ = env.step(episode % 12)
            total += reward
        returns.append(total)
    env.close()
    (line,) = lines_of(run / "0.monitor.csv")
    assert line["mean"] == pytest.approx(np.mean(returns[3:]), abs=1e-5) and line["timesteps"] == 103 * 25
    assert (line["env"], line["algo"], line["rule"]) == ("FCDL/Chemical-v0", "A, b", "x")


def test_graphs_have_a_distance_and_training_has_a_speed(tmp_path):
    run = Run("FCDL/Chemical-v0", "rule=full_fork", "FCDL", 0, 50, 2.0)
    append_csv(tmp_path / "contexts.csv", run, [ContextResult("n=2", 20, 0.5, 3.0, 1.5, 1.0, 1.0)])
    (line,) = lines_of(tmp_path / "contexts.csv")
    assert (line["shd"], line["step_ms"]) == (4.5, 40.0)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("other.csv", "a,b\n1,2\n", "is no result file: give one with the columns env, algo, seed and timesteps"),
        ("monitor.csv", "r,l,t\n1,2,3\n", "is no monitor file of SB3"),
        ("0.monitor.csv", "#{}\nr,l,t\n", "has no episode"),
    ],
)
def test_other_files_are_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        lines_of(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_show_the_same_figures(csv, kind):
    layout = Layout(where={"rule": "full_fork"}, over="MLP", labels={"FCDL": "ours"})
    (axes,) = picture(lines_of(csv), layout, kind).axes
    everything = [np.array(SCORES["FCDL", task]) for task in ("train", "n=2")]
    if kind == "intervals":
        assert [label.get_text() for label in axes.get_yticklabels()] == ["ours", "MLP", "random", "ceiling"]
        found = estimate(everything)
        bar = axes.patches[0]
        assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((found.low, found.high))
        assert axes.lines[0].get_xdata() == pytest.approx([found.value] * 2)
    elif kind == "improvement":
        others = [np.array(SCORES["MLP", task]) for task in ("train", "n=2")]
        assert axes.lines[0].get_xdata() == pytest.approx([probability_of_improvement(everything, others).value] * 2)
    elif kind == "profile":
        line = axes.lines[0]
        above = [(np.concatenate(everything) > threshold).mean() for threshold in line.get_xdata()]
        assert line.get_ydata() == pytest.approx(above)
    else:
        line = axes.lines[0]
        assert line.get_xdata().tolist() == [500, 1000] and line.get_ydata() == pytest.approx(
            [0, iqm(np.concatenate(everything))]
        )


def test_commands_print_and_draw(csv, tmp_path, capsys):
    assert main(["table", str(csv), "--where", "rule=full_fork", "--only", "MLP", "--label", "MLP:dense: 3 layers"]) == 0
    assert squeezed(capsys.readouterr().out).splitlines()[2] == "| dense: 3 layers | 10.5 [9.0, 12.0] | 3.2 [1.0, 6.0] |"
    assert main(["plot", str(csv), "--where", "task=n=2", "rule=full_fork", "--out", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size > 5000
    drawn = ["--kind", "improvement", "--over", "PPO", "--out", str(tmp_path / "b.png")]
    with pytest.raises(SystemExit):
        main(["plot", str(csv), "--where", "rule=full_fork", *drawn])
    assert "there are no runs of 'PPO' to compare with, only of FCDL, MLP" in capsys.readouterr().err
