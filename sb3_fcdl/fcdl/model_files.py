"""What ``FCDL`` writes that runs no code when it is read: the configuration of a model as JSON, replay buffers as arrays."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_fcdl.fcdl.buffer_files import load_buffer
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.fcdl.portable import FUNCTIONS, arguments_of, function_to_plain, known, name_of, to_plain
from sb3_fcdl.world.declared import Declared

# In the zip file that FCDL.save writes.
CONFIGURATION = "fcdl.json"
# Attributes of FCDL that are not called as the arguments of its constructor.
PUBLIC_NAMES = {"dynamics_name": "dynamics", "planner_name": "planner"}


def read_configuration(path: Any) -> dict[str, Any]:
    """
    :param path: what ``FCDL.save`` wrote, with or without ``.zip``, or an open file
    :return: its configuration
    :raises ValueError: if there is none
    """
    if isinstance(path, str | Path) and not Path(path).exists():
        path = f"{path}.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read(CONFIGURATION))
    except (KeyError, UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} has no {CONFIGURATION} that can be read: FCDL.save did not write it, or it is damaged"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} has no {CONFIGURATION} that can be read: it holds {type(found).__name__}")
    return found


def add_configuration(path: Any, configuration: dict[str, Any]) -> None:
    """
    :param path: a zip file that is open for reading and writing
    :param configuration: to add to it
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONFIGURATION, json.dumps(configuration, indent=1))


# What FCDL's file holds beside what the model was made with, and beside ``published``. Not ``tensorboard_log``: a file does
# not say where to write.
ATTRIBUTES = (
    *("learning_rate", "buffer_size", "learning_starts", "batch_size", "gamma", "gradient_steps", "optimize_memory_usage"),
    *("replay_buffer_class", "replay_buffer_kwargs", "train_horizon", "exploration_rate", "_stats_window_size", "verbose"),
    *("dynamics_name", "dynamics_kwargs", "planner_name", "planner_kwargs", "policy_kwargs", "policy_class", "heads"),
    *("observation_space", "action_space", "n_envs", "seed"),
    *("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_n_updates", "_episode_num"),
)


def algorithm_configuration(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """
    :param model: an ``FCDL``
    :return: all that it is made of but weights, as JSON has it
    """
    values = vars(model)
    given, published = {name: values[name] for name in FUNCTIONS}, values["published"]
    needed = {name: None if given[name] is not None else getattr(published, name) for name in FUNCTIONS}
    frequency = model.train_freq
    train_freq = frequency if isinstance(frequency, int | tuple) and not hasattr(frequency, "unit") else None
    return {
        "attributes": {name: to_plain(values[name]) for name in ATTRIBUTES}
        | {"train_freq": to_plain(train_freq or (frequency.frequency, frequency.unit.value))}  # type: ignore[union-attr]
        | {name: function_to_plain(function) for name, function in given.items()},
        "published": {"factors": to_plain(published.factors)}
        | {name: function_to_plain(each) for name, each in needed.items()},
    }


def algorithm_data(path: Any, env: VecEnv | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param path: what ``FCDL.save`` wrote
    :param env: to go on in; None: the model is for predictions
    :param given: arguments of the constructor that replace the saved ones
    :return: the attributes of the model, ``env`` among them
    :raises ValueError: if the file is damaged, or names what the user has to give
    """
    private = {public: name for name, public in PUBLIC_NAMES.items()}
    allowed = {*ATTRIBUTES, *FUNCTIONS, *PUBLIC_NAMES.values(), "train_freq", "tensorboard_log"}
    unknown = given.keys() - allowed
    if unknown:
        raise TypeError(f"load() of a file that is not trusted takes no {', '.join(sorted(unknown))}")
    given = {private.get(name, name): value for name, value in given.items()}
    found = read_configuration(path)
    try:
        attributes, published = dict(found["attributes"]), dict(found["published"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its {CONFIGURATION} lacks a part ({error!r})") from error
    missing = {*ATTRIBUTES, *FUNCTIONS, "train_freq"} - attributes.keys() - given.keys()
    if missing:
        raise ValueError(f"{path} is damaged: its {CONFIGURATION} has no {', '.join(sorted(missing))}")
    # Nothing but what FCDL is made of: a file does not choose which attributes it sets.
    attributes = {name: attributes[name] for name in (*ATTRIBUTES, *FUNCTIONS, "train_freq") if name in attributes}
    data = arguments_of(attributes, given, _known, path)
    if env is not None:
        check_for_correct_spaces(env, data["observation_space"], data["action_space"])
        data["n_envs"] = env.num_envs
        data["published"] = None
    else:
        replaced = {name: data[name] for name in FUNCTIONS if data[name] is not None}
        names = {name: published.get(name) for name in ("factors", *FUNCTIONS)}
        data["published"] = Declared(**arguments_of(names, replaced, _known, path))
    return data | {"env": env, "_last_obs": None, "tensorboard_log": given.get("tensorboard_log")}


def is_npz(path: Any) -> bool:
    """Whether a replay buffer there is a file of arrays."""
    return isinstance(path, str | Path) and str(path).endswith(".npz")


def read_buffer(model: OffPolicyAlgorithm, path: Any, truncate_last_traj: bool) -> ReplayBuffer:
    """
    :param model: that it is for
    :param path: what ``save_buffer`` wrote
    :param truncate_last_traj: see ``OffPolicyAlgorithm.load_replay_buffer``
    :return: a replay buffer as the model has it, filled from the file
    :raises ValueError: if the file does not fit
    """
    buffer_class, kwargs = model.replay_buffer_class, dict(model.replay_buffer_kwargs)
    assert buffer_class is not None
    if issubclass(buffer_class, HerReplayBuffer):
        kwargs["env"] = model.env
    buffer = buffer_class(
        model.buffer_size,
        model.observation_space,
        model.action_space,
        device=model.device,
        n_envs=model.n_envs,
        optimize_memory_usage=model.optimize_memory_usage,
        **kwargs,
    )
    load_buffer(buffer, path)
    if isinstance(buffer, HerReplayBuffer) and truncate_last_traj:
        buffer.truncate_last_trajectory()
    return buffer


def _known(name: str) -> Any:
    return FCDLPolicy if name == name_of(FCDLPolicy) else known(name)
