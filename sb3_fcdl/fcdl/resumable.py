"""An algorithm whose runs can be stopped and go on as if they had not."""

import pathlib
import pickle
import warnings
import zipfile
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn

from sb3_fcdl.fcdl.buffer_files import load_buffer, save_buffer
from sb3_fcdl.fcdl.loadable import LoadableAlgorithm
from sb3_fcdl.training.checkpoint import (
    BUFFER,
    MODEL,
    STATE,
    complete_one,
    put_back_environments,
    put_back_generators,
    put_back_log,
    replaced,
    take_environments,
    take_generators,
    take_log,
)
from sb3_fcdl.training.log import ModelLog
from sb3_fcdl.training.snapshot import put_back, take

SelfResumable = TypeVar("SelfResumable", bound="ResumableAlgorithm")


class ResumableAlgorithm(LoadableAlgorithm):
    """
    Checkpoints of all that a run needs, see ``sb3_fcdl.training.checkpoint``.

    Who inherits it sets the attributes below in ``_setup_model``, and leaves them out of SB3's file.
    """

    model_log: ModelLog
    # Draws what is trained on.
    _window_rng: np.random.Generator
    # The plans that are being carried out; None: there are none.
    _last_plan: tuple[np.ndarray, ...] | None
    # What a checkpoint says of generators and log, until learn() begins.
    _resumed: dict[str, Any] | None = None
    # Whether all that was collected is stored, and what was to be learned from it learned.
    _is_between_rollouts = True

    def save_checkpoint(self, folder: str | pathlib.Path) -> None:
        """
        Write all that a run needs to go on as if it had not stopped: model, replay buffer, environments, generators, and what
        has been measured but not logged. Call it between two rollouts: from a callback's ``_on_rollout_start``, or when
        ``learn`` has returned.

        :param folder: made, or replaced once the new checkpoint is complete
        :raises RuntimeError: within a rollout or an update: the step is counted, and its transition not yet stored
        :raises ValueError: if the replay buffer holds objects, see ``save_buffer``
        """
        if not self._is_between_rollouts:
            raise RuntimeError(
                "a checkpoint is taken between two rollouts, where every step is stored and learned from: call "
                "save_checkpoint in _on_rollout_start of a callback, not in _on_step, or when learn() has returned"
            )
        assert self.replay_buffer is not None and self.env is not None
        # What a checkpoint said, and no learn() has taken up, still holds.
        pending = self._resumed or {
            "generators": take_generators(self._window_rng, self.action_space),
            "log": take_log(self.model_log, getattr(self, "_logger", None)),
        }
        state = {
            **take_environments(self.env),
            "generators": pending["generators"],
            "log": pending["log"],
            "last_plan": take(self._last_plan),
        }
        with replaced(pathlib.Path(folder)) as partial:
            self.save(partial / MODEL)
            save_buffer(self.replay_buffer, partial / BUFFER)
            th.save(state, partial / STATE)

    @classmethod
    def resume(cls: type[SelfResumable], folder: str | pathlib.Path, env: GymEnv | str, **kwargs: Any) -> SelfResumable:
        """
        The model of a checkpoint, with its replay buffer, in new environments that are put into the state of the old ones.
        ``learn(n, reset_num_timesteps=False)`` then goes on bit for bit as the interrupted run would have, on the same machine
        and versions. Warns where the environments' state cannot be taken: the run then goes on in new episodes.

        Like ``load`` it unpickles: resume checkpoints that you trust.

        :param folder: what ``save_checkpoint`` wrote
        :param env: made as for the run, or its registered name
        :param kwargs: see ``load``
        :raises ValueError: if the checkpoint is damaged, or of another environment
        """
        folder = complete_one(pathlib.Path(folder))
        for name in (MODEL, BUFFER, STATE):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} is no checkpoint, or not a complete one: it has no {name}")
        try:
            state = th.load(folder / STATE, weights_only=True)
            model = cls.load(folder / MODEL, env=maybe_make_env(env, verbose=0), force_reset=False, **kwargs)
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise ValueError(f"the checkpoint {folder} is damaged ({error!r}): resume an older one") from error
        assert model.env is not None and model.replay_buffer is not None
        load_buffer(model.replay_buffer, folder / BUFFER)
        # Environments and random actions draw from one generator, as they did.
        model.action_space = model.env.action_space
        reason = state.get("reason") or put_back_environments(state["environments"], model.env)
        if reason:
            warnings.warn(
                f"the environments cannot be put into the state that they had ({reason}): the run goes on in new episodes and "
                "is no repetition. Give the environment get_state() and set_state()",
                stacklevel=2,
            )
            model._last_obs = None
        model.go_on_from(state)
        return model

    def go_on_from(self, state: dict[str, Any]) -> None:
        """
        Take up plans now, generators and log when ``learn`` begins.

        :param state: of a checkpoint
        """
        self._last_plan = put_back(state["last_plan"])
        self._resumed = state

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        # What was collected before has been learned from.
        self._is_between_rollouts = True
        return super().collect_rollouts(*args, **kwargs)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        ready = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._is_between_rollouts = True
        state, self._resumed = self._resumed, None
        if state is not None and reset_num_timesteps:
            warnings.warn(
                "learn() starts a new run with the resumed model: pass reset_num_timesteps=False to go on with the old one",
                stacklevel=3,
            )
        if state is not None and not reset_num_timesteps:
            put_back_log(state["log"], self.model_log, self.logger)
            # Last: whatever came before may have drawn from them.
            put_back_generators(state["generators"], self._window_rng, self.action_space)
        return ready
