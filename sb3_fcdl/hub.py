"""
Models on the Hugging Face Hub: pushed with a model card, and loaded without running code from them. Needs the extra ``hub``.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from fcdl_envs.arguments import check, integer
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET, AsInTraining, bootstrap_interval
from sb3_fcdl.extras import needs
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.progress import progress
from sb3_fcdl.runs.record import package_versions
from sb3_fcdl.training.checkpoint import MODEL

CARD, GRAPH, PICTURE, RESULTS = "README.md", "graph.json", "graph.png", "results.json"
REPOSITORY = "https://github.com/sb3-fcdl/sb3_fcdl"
# Keyword arguments of `gym.make` and `gym.make_vec` that say nothing of the task.
OF_MAKE = ("num_envs", "vectorization_mode", "render_mode")
TAGS = ("deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-fcdl", "causality")


class Evaluated(NamedTuple):
    """The returns of a model, and where: registered name and keyword arguments of the environment, if it has a name."""

    env_id: str | None
    env_kwargs: dict[str, Any]
    returns: np.ndarray


def push_to_hub(
    model: FCDL,
    repo_id: str,
    eval_env: VecEnv,
    n_eval_episodes: int = 10,
    seed: int = 0,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Push a model of sb3_fcdl",
    progress_bar: bool = False,
) -> str:
    """
    Evaluate a model and upload it with what ``write_for_hub`` writes. Makes the repository if there is none.

    :param model: a trained one
    :param repo_id: ``"user/name"``
    :param eval_env: see ``write_for_hub``
    :param n_eval_episodes: see ``write_for_hub``
    :param seed: see ``write_for_hub``
    :param private: of a new repository; None: as the account has it
    :param token: of the account; None: that of ``hf auth login``
    :param commit_message: of the upload
    :param progress_bar: see ``write_for_hub``
    :return: address of the repository
    :raises ValueError: if ``n_eval_episodes`` is below 1
    """
    with needs("huggingface_hub", "hub"):
        from huggingface_hub import HfApi
    with TemporaryDirectory() as folder:
        write_for_hub(model, Path(folder), repo_id, eval_env, n_eval_episodes, seed, progress_bar)
        api = HfApi(token=token)
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    return address


def from_hub(
    repo_id: str,
    env: GymEnv | None = None,
    filename: str = MODEL,
    revision: str | None = None,
    token: str | None = None,
    trusted: bool = False,
    **kwargs: Any,
) -> FCDL:
    """
    Load a model, downloaded once and then read from the local cache.

    :param repo_id: ``"user/name"``
    :param env: where it is to act; None: none
    :param filename: of the model in the repository
    :param revision: branch, tag or commit; None: the newest
    :param token: of an account that may read the repository
    :param trusted: True: unpickle the file, which **runs code that whoever made it put there**. False: run nothing from it;
        see ``FCDL.load`` for what must then be passed or be published by ``env``
    :param kwargs: further arguments of ``FCDL.load``
    :raises ValueError: see ``FCDL.load``
    """
    with needs("huggingface_hub", "hub"):
        import huggingface_hub
    path = huggingface_hub.hf_hub_download(repo_id, filename, revision=revision, token=token)
    return FCDL.load(path, env=env, trusted=trusted, **kwargs)


def write_for_hub(
    model: FCDL,
    folder: str | Path,
    repo_id: str,
    eval_env: VecEnv,
    n_eval_episodes: int = 10,
    seed: int = 0,
    progress_bar: bool = False,
) -> None:
    """
    Write what ``push_to_hub`` uploads: the model (``model.zip``), its returns (``results.json``), its graph as a picture and
    for ``CausalGraph.from_json`` (``graph.png``, ``graph.json``), and a model card (``README.md``) with returns, graph and
    contexts in words. Shares and rules of contexts are those of the replay buffer; if it is empty, as after ``load``, the
    graph is the union of all contexts, and the contexts are not described.

    :param model: a trained one
    :param folder: an existing one
    :param repo_id: ``"user/name"``, that the card names
    :param eval_env: where the model is evaluated, without ``VecNormalize``. It is seeded and reset
    :param n_eval_episodes: with deterministic actions
    :param seed: of the episodes, none of which training has seen
    :param progress_bar: show how many episodes are done, as SB3's ``learn`` does; needs tqdm and rich (extra ``extra``)
    :raises ValueError: if ``n_eval_episodes`` is below 1, ``seed`` negative, or the model learned from observations that
        ``VecNormalize`` had changed, whose statistics are not part of it
    :raises ImportError: if the extra ``hub`` is not installed, or ``extra`` where a progress bar is wanted
    """
    with needs("huggingface_hub", "hub"):
        from huggingface_hub import EvalResult, ModelCardData
    folder = Path(folder)
    if model.policy.world.factorization.is_normalized:
        raise ValueError(
            "the model learned from observations that VecNormalize had changed, and its statistics are not uploaded: train "
            "with norm_obs=False. FCDL has a normalization of its own"
        )
    check(n_eval_episodes=(n_eval_episodes, integer(1)), seed=(seed, integer(0)))
    with progress("episodes", n_eval_episodes, progress_bar) as has_ended:
        done = _evaluated(model, eval_env, n_eval_episodes, seed, has_ended)
    name, mean, std = done.env_id or "an environment without a name", float(done.returns.mean()), float(done.returns.std())
    metric: dict[str, Any] = {"metric_type": "mean_reward", "metric_value": f"{mean:.2f} +/- {std:.2f}"}
    result = EvalResult(
        "reinforcement-learning", name, name, **metric, task_name="reinforcement-learning", metric_name="mean_reward"
    )
    data = ModelCardData(library_name="sb3_fcdl", tags=[name, *TAGS], model_name="FCDL", eval_results=[result])
    model.save(folder / MODEL)
    results = {"mean_reward": mean, "std_reward": std, "n_eval_episodes": n_eval_episodes, "is_deterministic": True}
    (folder / RESULTS).write_text(json.dumps(results | {"env": done.env_id, "env_kwargs": done.env_kwargs}, indent=2) + "\n")
    body = "\n".join(_card(model, folder, repo_id, name, done))
    (folder / CARD).write_text(f"---\n{data.to_yaml()}\n---\n\n{body}\n", encoding="utf-8")


def _evaluated(model: FCDL, env: VecEnv, n_episodes: int, seed: int, has_ended: Callable[[], Any]) -> Evaluated:
    def note_end(local_variables: dict[str, Any], _: dict[str, Any]) -> None:
        if local_variables["done"]:
            has_ended()

    env.seed(EVALUATION_SEED_OFFSET + seed)
    acting = AsInTraining(model, env)
    returns, _ = evaluate_policy(acting, env, n_episodes, callback=note_end, return_episode_rewards=True)
    spec = env.get_attr("spec")[0]
    if spec is None:
        return Evaluated(None, {}, np.asarray(returns))
    default = gym.spec(spec.id)
    usual = {"max_episode_steps": default.max_episode_steps, **default.kwargs}
    kwargs = {
        name: value
        for name, value in spec.kwargs.items()
        if name not in OF_MAKE and isinstance(value, bool | int | float | str) and not (name in usual and usual[name] == value)
    }
    return Evaluated(spec.id, kwargs, np.asarray(returns))


def _card(model: FCDL, folder: Path, repo_id: str, name: str, done: Evaluated) -> Iterator[str]:
    mean, low, high = bootstrap_interval(done.returns)
    yield f"# FCDL on {name}\n"
    yield (
        f"A causal world model and a policy that plans with it, trained with [sb3_fcdl]({REPOSITORY}), an algorithm for "
        "Stable-Baselines3.\n"
    )
    yield f"## Use\n\n```python\n{_usage(repo_id, done)}```\n"
    yield (
        "`from_hub` runs no code from the file. `FCDL.load`, and `from_hub(..., trusted=True)`, unpickle it: do that only if "
        "you trust whoever made it.\n"
    )
    yield (
        f"## Returns\n\nMean return of {len(done.returns)} episodes with deterministic actions: **{mean:.4g}**, 95 % "
        f"bootstrap interval [{low:.4g}, {high:.4g}].\n"
    )
    yield from _graph(model, folder)
    yield "## Training\n"
    facts = {
        "environment": f"`{name}` {done.env_kwargs or ''}".rstrip(),
        "timesteps": f"{model.num_timesteps}",
        "seed": f"{model.seed}",
        "dynamics": type(model.dynamics).__name__,
        "planner": f"{type(model.policy.planner).__name__}, {model.policy.planner.horizon} steps",
        "gamma": f"{model.gamma}",
        "versions": ", ".join(f"{package} {version}" for package, version in package_versions().items()),
    }
    yield markdown(("", ""), list(facts.items()))


def _usage(repo_id: str, done: Evaluated) -> str:
    if done.env_id is None:
        loaded = f'model = from_hub("{repo_id}", env=...)  # an environment with these spaces'
        return f"from sb3_fcdl.hub import from_hub\n\n{loaded}\n"
    kwargs = "".join(f", {name}={value!r}" for name, value in done.env_kwargs.items())
    return (
        "import gymnasium as gym\n\nimport sb3_fcdl\nfrom sb3_fcdl.hub import from_hub\n\n"
        f'env = gym.make("{done.env_id}"{kwargs})\n'
        f'model = from_hub("{repo_id}", env=env)\n'
        "observation, _ = env.reset(seed=0)\n"
        "action, _ = model.predict(observation, deterministic=True)\n"
        "print(model.explain(observation))\n"
    )


def _graph(model: FCDL, folder: Path) -> Iterator[str]:
    yield "## Causal graph\n"
    if not model.dynamics.has_graph:
        yield f"{type(model.dynamics).__name__} predicts every variable from all variables: it has no graph.\n"
        return
    graph = model.causal_graph()
    (folder / GRAPH).write_text(graph.to_json() + "\n")
    graph.plot().savefig(folder / PICTURE, dpi=100)
    yield f"![Rows: variables at the next step; columns: variables now; a filled cell is an edge]({PICTURE})\n"
    yield f"```text\n{graph}\n```\n"
    if model.experience.is_empty or len(model.dynamics.contexts) == 1:
        return
    codes = model.codes()
    rows = [(str(code.code), f"{100 * code.share:.1f} %", str(code.graph.edges.sum()), str(code.rule)) for code in codes]
    yield f"## Contexts\n\n{markdown(('code', 'share', 'edges', 'rule'), rows)}\n"
    if chosen := ", ".join(model.dynamics.context_variables):
        yield f"Variables that choose the context: {chosen}.\n"
