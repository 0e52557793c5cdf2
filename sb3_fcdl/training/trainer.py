"""The update loop."""

import time
import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import obs_as_tensor

from sb3_fcdl.observations import Observations
from sb3_fcdl.training.experience import Experience
from sb3_fcdl.training.log import TRUTHS, ModelLog
from sb3_fcdl.world.precision import in_float32
from sb3_fcdl.world.world_model import WorldModel

# Updates after which what is new is computed anew: the scale of the variables has changed.
NOVELTY_EVERY = 100


class Trainer:
    """
    Trains a world model, and makes another one the running average of its weights.

    :param learner: what the optimizer moves
    :param average: what predicts, is planned with and looked at
    :param optimizer: of all parameters of the learner
    :param average_decay: of the running average, per update, in [0, 1)
    :param log: is told losses and times
    :param n_updates: gradient steps so far
    """

    def __init__(
        self,
        learner: WorldModel,
        average: WorldModel,
        optimizer: th.optim.Optimizer,
        average_decay: float,
        log: ModelLog,
        n_updates: int = 0,
    ) -> None:
        self.learner = learner
        self.average = average
        self.optimizer = optimizer
        self.average_decay = average_decay
        self.log = log
        self.n_updates = n_updates
        self.has_checked_outcomes = False
        self._warned_of: set[str] = set()

    @in_float32
    def observe(self, observations: Observations, buffer_actions: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """
        Take in what is no part of an update: the scale of each variable, what has been tried and, where the environment tells,
        the true graphs.

        :param observations: before the step, as the model is given them, ``[n_envs, *obs_shape]``
        :param buffer_actions: as SB3's buffers hold them, ``[n_envs, action_dim]``
        :param infos: of the step
        """
        world = self.learner
        tensors = obs_as_tensor(observations, world.device)
        world.factorization.observe(tensors)
        told = {env: graphs for env, info in enumerate(infos) if (graphs := self._true_graphs(env, info))}
        if not (told or world.has_value):
            return
        actions = th.as_tensor(buffer_actions.reshape(len(infos), -1), device=world.device)
        state, action = world.encode(tensors), world.encode_action(actions)
        if world.has_value:
            world.novelty.add(state, action)
        if told:
            rows = list(told)
            self.log.add_graphs(state[rows], action[rows], list(told.values()))

    def _true_graphs(self, env: int, info: dict[str, Any]) -> dict[str, np.ndarray]:
        """
        What an environment tells of the graphs of these variables, by key. What is no such graph is left out with one warning
        a key: the graphs are a diagnostic, and a diagnostic never ends a run.
        """
        factors = self.learner.factors
        shape, told = (len(factors.state_variables), len(factors.parents)), {}
        for name, truth in TRUTHS.items():
            if info.get(name) is None:
                continue
            try:
                graph = np.asarray(info[name], dtype=bool)
            except (TypeError, ValueError):  # rows of different lengths, or no numbers
                graph = np.zeros(())
            if graph.shape == shape:
                told[name] = graph
            elif name not in self._warned_of:
                self._warned_of.add(name)
                warnings.warn(
                    f'info["{name}"] of environment {env} has shape {graph.shape}, the variables ask for {shape}: '
                    f"it is left out of {' and '.join(truth.keys)}",
                    stacklevel=2,
                )
        return told

    @in_float32
    def train(self, experience: Experience, n_updates: int, batch_size: int) -> None:
        """
        Warns, before the first update, if a given reward or termination is not that of the environment.

        :param experience: what is learned from
        :param n_updates: gradient steps
        :param batch_size: windows in each
        """
        self._begin(experience)
        learner, start = self.learner.train(), time.perf_counter()
        for _ in range(n_updates):
            is_due = learner.has_value and self.n_updates % NOVELTY_EVERY == 0
            if is_due and learner.novelty.is_stale(experience.n_recorded):
                learner.novelty.fit(*experience.tried())
            windows, outcomes, ends = experience.draw(batch_size)
            losses = learner.dynamics.loss(windows)
            heads = learner.outcome_losses(outcomes, ends)
            if learner.has_value:
                heads |= learner.value_losses(outcomes, self.average)

            self.optimizer.zero_grad()
            sum(heads.values(), losses.total).backward()
            self.optimizer.step()
            self.n_updates += 1

            learner.dynamics.after_update(self.n_updates, experience.judged)
            self.average.follow(learner, self.n_updates, self.average_decay)
            self.log.add_losses(losses, heads)
        self.log.add_updates(n_updates, time.perf_counter() - start)

    def _begin(self, experience: Experience) -> None:
        experience.check_units()
        if not self.has_checked_outcomes:
            experience.take_scale()
            for sentence in experience.disagreements():
                warnings.warn(sentence, stacklevel=2)
            self.has_checked_outcomes = True
        self.learner.dynamics.units.copy_(self.learner.factorization.units)
        if experience.is_normalized:
            self.learner.factorization.is_normalized.fill_(1)
