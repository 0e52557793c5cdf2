"""What docs/neighbours.md shows of other tools is run, with stand-ins for them that note what they are given."""

import pathlib
import re
import sys
import types
from contextlib import nullcontext

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from sb3_fcdl import FCDL

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "neighbours.md").read_text()


def run_example(tool: str, shorter: dict[str, str]) -> dict:
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if f"import {tool}\n" in block]
    names: dict = {}
    for long, short in shorter.items():
        example = example.replace(long, short)
    exec(compile(example, "neighbours.md", "exec"), names)
    return names


@pytest.mark.usefixtures("quick_plans")
def test_example_of_wandb_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    calls: list = []

    class Run:
        id = "r1"

        def log(self, values):
            calls.append(values)

        def finish(self):
            calls.append("finished")

    def init(**kwargs):
        calls.append(kwargs)
        return Run()

    callback = types.ModuleType("wandb.integration.sb3")
    callback.WandbCallback = type("WandbCallback", (BaseCallback,), {"_on_step": lambda self: True})
    wandb = types.ModuleType("wandb")
    wandb.init, wandb.Image, wandb.Table = init, lambda figure: figure.axes, lambda dataframe: dataframe
    for name, module in {"wandb": wandb, "wandb.integration": types.ModuleType(""), "wandb.integration.sb3": callback}.items():
        monkeypatch.setitem(sys.modules, name, module)
    shorter = {"_starts=100": "_starts=20", "learn(200": "learn(24", "log_interval=1": "log_interval=100"}
    model = run_example("wandb", shorter)["model"]
    assert calls[0] == {"project": "fcdl", "mode": "offline", "sync_tensorboard": True} and calls[2] == "finished"
    assert calls[1]["edges"].shape == model.causal_graph().probabilities.shape
    # What W&B reads.
    assert list((tmp_path / "runs" / "r1" / "FCDL_1").glob("events.out.tfevents.*"))


@pytest.mark.usefixtures("quick_plans")
def test_example_of_mlflow_runs(monkeypatch):
    pytest.importorskip("matplotlib")
    told: dict = {"metrics": {}}
    mlflow = types.ModuleType("mlflow")
    mlflow.start_run = nullcontext
    mlflow.log_params = lambda params: told.update(params=params)
    mlflow.log_metric = lambda name, value, step: told["metrics"].setdefault(name, []).append((step, value))
    mlflow.log_figure = lambda figure, file: told.update({file: figure})
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    names = run_example("mlflow", {"_starts=100": "_starts=40", "learn(200": "learn(60"})
    model, metrics = names["model"], told["metrics"]
    assert isinstance(model, FCDL) and told["graph.png"].axes
    assert told["params"] == {"dynamics": "ContextTreeDynamics", "gamma": 0.99, "seed": 0}
    assert {"rollout/ep_rew_mean", "time/update_ms", "train/dynamics_loss", "causal/edges_per_code"} <= set(metrics)
    assert all(type(value) is float for values in metrics.values() for _, value in values)
    last_step, last_edges = metrics["causal/edges_per_code"][-1]
    assert 40 < last_step <= 60 and 0 < last_edges <= model.dynamics.free_entries.size
