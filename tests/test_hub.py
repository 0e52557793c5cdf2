"""Models on the Hugging Face Hub: what is uploaded, without a network, into a local folder."""

import json
import pathlib
import re
import shutil

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from tiny import tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, CausalGraph
from sb3_fcdl.evaluation import make_env
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET
from sb3_fcdl.hub import from_hub, push_to_hub, write_for_hub

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("matplotlib")

PLANNER = {"horizon": 2, "n_iterations": 1, "n_candidates": 8, "n_elites": 4}


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """Repositories are folders here. A call that would go to the network is an error."""
    made = []

    def create_repo(api, repo_id, *, private=None, exist_ok=False):
        made.append((repo_id, private, exist_ok, api.token))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(api, *, repo_id, folder_path, commit_message):
        made.append((repo_id, commit_message))
        shutil.copytree(folder_path, tmp_path / repo_id)

    def hf_hub_download(repo_id, filename, *, revision=None, token=None):
        made.append((repo_id, filename, revision, token))
        return str(tmp_path / repo_id / filename)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return tmp_path, made


@pytest.fixture(scope="module")
def model():
    settings = {"learning_starts": 20, "batch_size": 16, "planner": "cem", "planner_kwargs": PLANNER}
    return FCDL("MlpPolicy", "CartPole-v1", gamma=1.0, seed=0, **settings).learn(40)


def test_a_pushed_model_comes_back(local_hub, model):
    folder, calls = local_hub
    address = push_to_hub(model, "me/pole", make_env("CartPole-v1", 2, {}), n_eval_episodes=2, private=True, token="t")
    assert address == "https://huggingface.co/me/pole"
    assert calls == [("me/pole", True, True, "t"), ("me/pole", "Push a model of sb3_fcdl")]
    loaded = from_hub("me/pole", revision="v1", token="t")
    assert calls[-1] == ("me/pole", "model.zip", "v1", "t")
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert (loaded.predict(observations, deterministic=True)[0] == model.predict(observations, deterministic=True)[0]).all()
    present = {path.name for path in (folder / "me" / "pole").iterdir()}
    assert present == {"model.zip", "README.md", "results.json", "graph.json", "graph.png"}


def test_nothing_is_unpickled_unless_it_is_trusted(local_hub, model, monkeypatch):
    push_to_hub(model, "me/pole", make_env("CartPole-v1", 2, {}), n_eval_episodes=1)
    asked = []
    monkeypatch.setattr(FCDL, "load", classmethod(lambda cls, path, **kwargs: asked.append(kwargs)))
    from_hub("me/pole")
    from_hub("me/pole", trusted=True, gamma=0.5)
    assert asked == [{"env": None, "trusted": False}, {"env": None, "trusted": True, "gamma": 0.5}]


def test_card_says_what_the_model_reaches_and_believes(tmp_path, model):
    env = make_env("CartPole-v1", 2, {})
    write_for_hub(model, tmp_path, "me/pole", env, n_eval_episodes=3, seed=5)
    # Evaluated by SB3 alone, in the same episodes.
    other = make_env("CartPole-v1", 2, {})
    other.seed(EVALUATION_SEED_OFFSET + 5)
    mean, std = evaluate_policy(model, other, 3)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["mean_reward"], results["std_reward"]) == pytest.approx((mean, std))
    assert (results["env"], results["env_kwargs"]) == ("CartPole-v1", {})
    card = (tmp_path / "README.md").read_text()
    (evaluated,) = huggingface_hub.ModelCard(card).data.eval_results
    assert evaluated.metric_value == f"{mean:.2f} +/- {std:.2f}" and evaluated.dataset_name == "CartPole-v1"
    assert f"**{mean:.4g}**" in card and "Mean return of 3 episodes" in card and str(model.causal_graph()) in card
    graph = CausalGraph.from_json(tmp_path / "graph.json")
    assert (graph.probabilities == model.causal_graph().probabilities).all()
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("quick_plans")
def test_card_has_the_contexts_and_code_that_loads_the_model(local_hub):
    """The reward of Chemical is published by the environment, so the card's code must make it."""
    model = tiny_fcdl(dynamics="fcdl").learn(40)
    push_to_hub(model, "me/colours", tiny_vec_env(2), n_eval_episodes=2)
    card = (local_hub[0] / "me" / "colours" / "README.md").read_text()
    rules = [f"{code.rule}" for code in model.codes()]
    assert len(rules) > 1 and all(f" {rule} " in card for rule in rules)
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert 'gym.make("FCDL/Chemical-v0", n_objects=4, n_colors=3)' in code
    names: dict = {}
    exec(compile(code, "card", "exec"), names)
    assert names["action"] == model.predict(names["observation"], deterministic=True)[0]


def test_a_model_without_graph_and_an_environment_without_name(tmp_path):
    class Unnamed(gym.Wrapper):
        spec = None

    env = make_env("CartPole-v1", 1, {})
    model = FCDL("MlpPolicy", env, dynamics="mlp", planner="cem", planner_kwargs=PLANNER, learning_starts=20, seed=0).learn(10)
    env.envs[0] = Unnamed(env.envs[0])
    write_for_hub(model, tmp_path, "me/pole", env, n_eval_episodes=1)
    card = (tmp_path / "README.md").read_text()
    assert "it has no graph" in card and "an environment without a name" in card and "env=...)" in card
    assert not (tmp_path / "graph.json").exists()


def test_a_loaded_model_has_the_graph_of_all_contexts(tmp_path):
    model = tiny_fcdl(dynamics="fcdl").learn(40)
    model.save(tmp_path / "model.zip")
    write_for_hub(FCDL.load(tmp_path / "model.zip"), tmp_path, "me/colours", tiny_vec_env(1), n_eval_episodes=1)
    card = (tmp_path / "README.md").read_text()
    assert "union of all 4 contexts" in card and "## Contexts" not in card


def test_number_of_episodes_is_checked_before_anything_is_written(tmp_path, model):
    with pytest.raises(ValueError, match="n_eval_episodes"):
        write_for_hub(model, pathlib.Path(tmp_path), "me/pole", make_env("CartPole-v1", 1, {}), n_eval_episodes=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("local_hub")
def test_example_of_the_page_runs(model):
    page = (pathlib.Path(__file__).parent.parent / "docs" / "neighbours.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "push_to_hub" in block]
    names: dict = {"model": model}
    exec(compile(example.replace("n_eval_episodes=10", "n_eval_episodes=1"), "neighbours.md", "exec"), names)
    assert names["model"] is not model and names["model"].num_timesteps == 40
