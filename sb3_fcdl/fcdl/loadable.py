"""An algorithm whose files of a model and of a replay buffer can also be read without running code from them."""

import io
import pathlib
import pickle
from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from fcdl_envs.arguments import OrNone, check, integer
from sb3_fcdl.datasets import open_minari, read_minari
from sb3_fcdl.fcdl import model_files
from sb3_fcdl.fcdl.arguments import check_arguments
from sb3_fcdl.fcdl.buffer_files import save_buffer
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.training.experience import Experience, check_keeps_ends
from sb3_fcdl.world.declared import Declared
from sb3_fcdl.world.gate import check_buffer

if TYPE_CHECKING:
    from minari import MinariDataset

SelfLoadable = TypeVar("SelfLoadable", bound="LoadableAlgorithm")


class LoadableAlgorithm(OffPolicyAlgorithm):
    """
    What ``FCDL`` adds to SB3's files: a configuration as JSON in that of a model, arrays instead of a pickle for that of a
    buffer, and checks of what is loaded.
    """

    policy: FCDLPolicy

    @property
    @abstractmethod
    def experience(self) -> Experience:
        """The recorded transitions, as the model learns from them."""

    @abstractmethod
    def check_env_fits(self, env: VecEnv) -> Declared:
        """
        :param env: that the model is to be used in
        :return: what it publishes
        :raises ValueError: if the environment does not fit the model
        """

    @classmethod
    def load(
        cls: type[SelfLoadable], path: str | pathlib.Path | io.BufferedIOBase, *args: Any, trusted: bool = True, **kwargs: Any
    ) -> SelfLoadable:
        """
        See ``BaseAlgorithm.load``; arguments of the constructor replace the saved ones. Random numbers are seeded anew, by the
        model's seed and its timesteps: trained on, it meets other episodes than at its beginning.

        :param trusted: False: runs no code from the file, which unpickling it does, and imports nothing that it names. Takes
            ``env``, ``device`` and arguments of the constructor. What is no data, such as a ``reward_fn`` or a class of one's
            own, must then be passed, or be published by ``env``
        :raises ValueError: if ``dynamics`` or ``planner`` is unknown, or something must be passed; says what
        :raises RuntimeError: if the saved weights are those of another ``dynamics``
        """
        check_arguments(kwargs)
        if not trusted:
            return cls._load_portable(path, *args, **kwargs)
        # SB3 sets attributes by the names of these arguments.
        attributes = {"dynamics": "dynamics_name", "planner": "planner_name"}
        model = super().load(path, *args, **{attributes.get(name, name): value for name, value in kwargs.items()})
        if model.env is not None:
            model.check_env_fits(model.env)
        _seed_what_follows(model)
        return model

    @classmethod
    def _load_portable(
        cls: type[SelfLoadable],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfLoadable:
        if not force_reset:
            raise ValueError(
                "only a trusted file goes on in the middle of an episode: leave force_reset and trusted as they are"
            )
        data = model_files.algorithm_data(path, None if env is None else cls._wrap_env(env), kwargs)
        model = cls(data.pop("policy_class"), data.pop("env"), device=device, _init_setup_model=False)  # type: ignore[call-arg]
        vars(model).update(data)
        model._setup_model()
        # Reads the weights alone, and no pickles.
        model.set_parameters(path, device=device)  # type: ignore[arg-type]
        if model.env is not None:
            model.check_env_fits(model.env)
        _seed_what_follows(model)
        return model

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """See ``BaseAlgorithm.save``; the file also holds the configuration as JSON, for ``load(..., trusted=False)``."""
        archive = io.BytesIO()
        super().save(archive, exclude, include)
        model_files.add_configuration(archive, model_files.algorithm_configuration(self))
        file = open_path(path, "w", suffix="zip")
        try:
            file.write(archive.getvalue())
        finally:
            if file is not path:
                file.close()

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        See ``OffPolicyAlgorithm.load_replay_buffer``. A path that ends in ``.npz`` is read without unpickling, so
        that the file runs no code. A model that has observed nothing takes the scale of the variables from the buffer.

        :raises ValueError: if the buffer is of another number of environments, of other spaces, or no buffer, or holds a
            number that is not finite; the present one is kept
        """
        present = getattr(self, "replay_buffer", None)
        self.replay_buffer = None
        try:
            if model_files.is_npz(path):
                loaded: ReplayBuffer | None = model_files.read_buffer(self, path, truncate_last_traj)
            else:
                with open_path(path, "r", suffix="pkl") as file:
                    super().load_replay_buffer(file, truncate_last_traj)
                loaded = self.replay_buffer
        except (AssertionError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is no replay buffer, or it is damaged: {error!r}") from error
        finally:
            self.replay_buffer = present
        assert loaded is not None
        self._take_up(loaded, path)

    def _take_up(self, loaded: ReplayBuffer, source: Any) -> None:
        """Replaces the replay buffer by one that somebody else filled, or refuses it."""
        for name in ("n_envs", "observation_space", "action_space"):
            theirs, ours = getattr(loaded, name), getattr(self, name)
            if theirs != ours:
                raise ValueError(f"{source} holds transitions with {name} = {theirs}, the model has {name} = {ours}")
        check_keeps_ends(loaded, self.policy.learner)
        check_buffer(self.policy.world.factorization, loaded)
        self.replay_buffer = loaded
        self.experience.take_scale()

    def fit_offline(
        self: SelfLoadable, dataset: "str | MinariDataset", gradient_steps: int = 1000, batch_size: int | None = None
    ) -> SelfLoadable:
        """
        Learn from a dataset of Minari, without a step of the environment. Its transitions replace those of the replay buffer;
        calling it again, or ``learn``, goes on from there. Needs minari (extra ``minari``); nothing is downloaded.

        :param dataset: the id of a dataset on this machine, or an opened one
        :param gradient_steps: updates
        :param batch_size: windows in an update; None: those of the algorithm
        :return: the model
        :raises FileNotFoundError: if there is no such dataset
        :raises ValueError: if the model has several environments, the dataset is of other spaces, or it holds a number that is
            not finite; the replay buffer is kept
        """
        check(gradient_steps=(gradient_steps, integer(0)), batch_size=(batch_size, OrNone(integer(1))))
        if self.n_envs != 1:
            raise ValueError(f"the model has {self.n_envs} environments: make it with one to learn from a dataset")
        opened = open_minari(dataset)
        for name in ("observation_space", "action_space"):
            theirs, ours = getattr(opened, name), getattr(self, name)
            if theirs != ours:
                raise ValueError(f"{opened.id} has {name} = {theirs}, the model has {name} = {ours}")
        assert self.replay_buffer is not None
        size = max(self.buffer_size, int(opened.total_steps))
        # Of the same kind, made as SB3 makes it.
        loaded = type(self.replay_buffer)(
            size, self.observation_space, self.action_space, device=self.device, n_envs=1, **self.replay_buffer_kwargs
        )
        read_minari(opened, loaded, self.policy.world.factorization.buffer_actions)
        self._take_up(loaded, opened.id)
        if not hasattr(self, "_logger"):
            self.set_logger(configure(None, []))
        self.train(gradient_steps, batch_size or self.batch_size)
        return self

    def save_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """See ``OffPolicyAlgorithm.save_replay_buffer``; a path that ends in ``.npz`` gets arrays instead of a pickle."""
        if not model_files.is_npz(path):
            return super().save_replay_buffer(path)
        assert self.replay_buffer is not None
        save_buffer(self.replay_buffer, str(path))


def _seed_what_follows(model: OffPolicyAlgorithm) -> None:
    """SB3 seeds a loaded model as a new one: trained on, it would begin with the episodes of the beginning again."""
    if model.seed is not None and model.num_timesteps > 0:
        (drawn,) = np.random.SeedSequence([model.seed, model.num_timesteps]).generate_state(1)
        # Half of the range: SB3 adds the index of an environment.
        model.set_random_seed(int(drawn) // 2)
