"""Returns of action sequences under a model: the plain loop, and one that computes no step twice."""

from abc import ABC, abstractmethod
from collections import defaultdict
from itertools import count
from typing import Any

import torch as th

from sb3_fcdl.memo import Memo, enlarged
from sb3_fcdl.planning.actions import Actions, BoxActions, CategoricalActions
from sb3_fcdl.planning.problem import KeyFn, Problem, Step

Place = tuple[th.Tensor, Any]
"""
Where candidates are, a row for every candidate, and what belongs to the step that led there (see the kinds of rollout); None
before the first step.
"""

# Rows whose reward and end are asked for at once: enough that a call costs nothing, and few enough that the activations of a
# head of 128 units (a quarter of a MiB) stay in a cache.
N_OUTCOMES = 512


class Rollout(ABC):
    """
    Evaluates action sequences from the current state of B environments.

    :param problem: what to maximise
    :param state: encoded current state, ``[B, D]``
    :param goal: encoded task of each environment, ``[B, G]``
    :param actions: what an action is
    :param action_mask: the values allowed at the first step, ``[B, sum(sizes)]``, bool; None: all
    """

    def __init__(
        self, problem: Problem, state: th.Tensor, goal: th.Tensor, actions: Actions, action_mask: th.Tensor | None = None
    ) -> None:
        self.action_mask = action_mask
        self.problem = problem
        self.state = state
        self.goal = goal
        self.actions = actions

    def evaluate(self, sequences: th.Tensor, asks_policy: bool = False) -> th.Tensor:
        """
        The return of each sequence, see :class:`~sb3_fcdl.planning.problem.Problem`; ``-inf`` where it is not finite.

        :param sequences: ``[B, N, H, *]``, where ``*`` is the shape of one action; int64, for a box float
        :param asks_policy: whether the first sequence of each environment becomes what the policy of the problem does, if
            there is one, in place; where that is forbidden, its first action stays
        :return: returns, ``[B, N]``
        """
        n_envs, n_candidates, horizon = sequences.shape[:3]
        actions = sequences.movedim(2, 0).flatten(1, 2)
        places = [self._start(n_candidates)]
        for step, action in enumerate(actions.unbind()):
            if asks_policy and self.problem.policy is not None:
                encoded = self.problem.policy(self._states_at(places[-1], slice(None, None, n_candidates)), self.goal)
                proposed = self.actions.decode(encoded).to(action)
                if step == 0 and self.action_mask is not None:
                    is_allowed = self.allows(encoded).view(-1, *(1,) * len(self.actions.shape))
                    proposed = proposed.where(is_allowed, action[::n_candidates])
                sequences[:, 0, step] = action[::n_candidates] = proposed
            places.append(self._follow(places[-1], action))
        # What a step pays changes nothing of where it leads: a learned reward is asked once for all of them.
        rewards, ended = self._outcomes_of(places, actions)
        discounts = self.problem.discount ** th.arange(horizon + 1, dtype=th.float64, device=rewards.device)
        discounts = discounts.to(rewards.dtype).unsqueeze(1)
        rewards = rewards * discounts[:-1]
        if self.problem.value is not None:
            value = self.problem.value(self._states_at(places[-1]), self.goal.repeat_interleave(n_candidates, dim=0))
            rewards = th.cat([rewards, discounts[-1] * value.to(rewards.dtype).unsqueeze(0)])
        if ended is not None:
            alive = th.cat([th.ones_like(ended[:1]), (1 - ended).cumprod(dim=0)])[: len(rewards)]
            # what a state after the end pays does not count, whatever it is: it need not be a number
            rewards = (alive * rewards).where(alive != 0, 0)
        # added one after another, so that equal sequences have equal returns wherever they stand
        returns = rewards.cumsum(dim=0)[-1]
        return returns.where(returns.isfinite(), -th.inf).view(n_envs, n_candidates)

    def allows(self, encoded: th.Tensor) -> th.Tensor:
        """
        :param encoded: first actions of each environment, ``[B, ..., A]``
        :return: whether they are allowed, ``[B, ...]``
        """
        if self.action_mask is None:
            return encoded.new_ones(encoded.shape[:-1], dtype=th.bool)
        forbidden = ~self.action_mask.view(len(encoded), *(1,) * (encoded.dim() - 2), -1)
        return (encoded * forbidden).sum(-1) == 0

    @abstractmethod
    def _start(self, n_candidates: int) -> Place:
        """The place of N candidates in each of B environments, before their first step."""

    @abstractmethod
    def _follow(self, place: Place, action: th.Tensor) -> Place:
        """
        One step of every candidate.

        :param place: where they are
        :param action: what they do, ``[B * N, *]``
        :return: where they are then
        """

    @abstractmethod
    def _outcomes_of(self, places: list[Place], actions: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        """
        What the steps of every candidate pay.

        :param places: where they were, before the first step and after each
        :param actions: what they did, ``[H, B * N, *]``
        :return: rewards ``[H, B * N]``, and how likely each step ended the episode, ``[H, B * N]``; None: episodes never end
        """

    @abstractmethod
    def _states_at(self, place: Place, candidates: slice = slice(None)) -> th.Tensor:
        """The states of the candidates, ``[B * N, D]``, or of some of them."""

    def _outcomes(
        self, state: th.Tensor, action: th.Tensor, step: Step, goal: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor | None]:
        """
        What R modelled steps pay, less the price of their uncertainty, and how likely each ended the episode, ``[R]``;
        ``action`` is not yet encoded. A step that chance decides pays what it is worth, and nothing comes after it.
        """
        problem, rewards, ended = self.problem, [], []
        for rows in zip(*(tensor.split(N_OUTCOMES) for tensor in (state, action, step.next_state, goal)), strict=True):
            before, encoded, after = rows[0], self.actions.encode(rows[1], state.dtype), rows[2]
            rewards.append(problem.reward(before, encoded, after, rows[3]).to(state.dtype))
            if problem.termination is not None:
                ended.append(problem.termination(before, encoded, after, rows[3]).to(state.dtype))
        reward, end = th.cat(rewards), th.cat(ended) if ended else None
        if problem.expected is not None and step.is_chance is not None and (chance := step.is_chance.nonzero()[:, 0]).numel():
            end = th.zeros_like(reward) if end is None else end
            encoded = self.actions.encode(action[chance], state.dtype)
            reward[chance], end[chance] = problem.expected(state[chance], encoded, goal[chance]).to(reward.dtype), 1.0
        if problem.uncertainty_coef:
            if step.uncertainty is None:
                raise ValueError("uncertainty_coef is a price of uncertainty, and the problem's step tells none")
            reward = reward - problem.uncertainty_coef * step.uncertainty.to(reward.dtype)
        return reward, end


class PlainRollout(Rollout):
    """
    Every step of every sequence goes through the model. Never waits for the device.

    A place is the states of the candidates, and the step that led there.
    """

    def _start(self, n_candidates: int) -> Place:
        return self.state.repeat_interleave(n_candidates, dim=0), None

    def _follow(self, place: Place, action: th.Tensor) -> Place:
        step = self.problem.step(place[0], self.actions.encode(action, self.state.dtype))
        return step.next_state, step

    def _outcomes_of(self, places: list[Place], actions: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        states, step = th.stack([state for state, _ in places[:-1]]), _joined([step for _, step in places[1:]])
        horizon, n_rows = actions.shape[:2]
        goal = self.goal.repeat_interleave(n_rows // len(self.goal), dim=0).repeat(horizon, 1)
        if step.is_chance is not None:
            # nothing comes after the first
            chance = step.is_chance.view(horizon, n_rows)
            step = step._replace(is_chance=(chance & (chance.cumsum(0) == 1)).flatten())
        reward, ended = self._outcomes(states.flatten(0, 1), actions.flatten(0, 1), step, goal)
        return reward.view(horizon, n_rows), None if ended is None else ended.view(horizon, n_rows)

    def _states_at(self, place: Place, candidates: slice = slice(None)) -> th.Tensor:
        return place[0][candidates]


class MemoRollout(Rollout):
    """
    Every distinct (environment, state, action) goes through the model once, however many sequences and calls meet it. The
    returns are those of :class:`PlainRollout`. Not for a box: continuous actions hardly ever repeat.

    What is known is a graph: a node is a state of one environment, an edge an action taken there. Nodes ``0 .. B-1`` are the
    current states, which may be any floats. A place is the nodes of the candidates, and the edges that led there.

    :param key: code of a state that the problem's step returned; equal states of an environment share a node
    """

    # room made at once: more nodes than the default planners visit (benchmarks/speed.py counts 4300 rows in a plan for ten)
    NODES_PER_ENV = 512
    # with more, the table of edges is larger than what it saves
    MAX_ACTIONS = 1024

    def __init__(
        self,
        problem: Problem,
        state: th.Tensor,
        goal: th.Tensor,
        actions: CategoricalActions,
        action_mask: th.Tensor | None = None,
        *,
        key: KeyFn,
    ) -> None:
        super().__init__(problem, state, goal, actions, action_mask)
        self.numbering = actions
        self.n_actions = actions.n
        self.key = key
        # node of each (environment, key); a new one is given the next number
        self._node_ids: defaultdict[tuple[int, int], int] = defaultdict(count(len(state)).__next__)
        # one row per node, with room to spare
        self._node_state = state
        self._node_env = th.arange(len(state), device=state.device)
        # the node that each pair (node, action) leads to
        self._edges = Memo()
        # one row per edge; what the last ones pay is not yet known
        self._edge_pair = self._node_env.new_empty(0)
        self._new_steps: list[Step] = []
        self._edge_reward = state.new_empty(0)
        self._edge_ended = state.new_empty(0)
        self._reserve(self.NODES_PER_ENV * len(state))

    def _start(self, n_candidates: int) -> Place:
        return th.arange(len(self.state), device=self.state.device).repeat_interleave(n_candidates), None

    def _follow(self, place: Place, action: th.Tensor) -> Place:
        node = place[0]
        pair = node * self.n_actions + self.numbering.number(action)
        edge = self._edges.rows(pair, len(self._node_env) * self.n_actions, self._expand)
        return self._edges.answers[edge], edge

    def _expand(self, pair: th.Tensor) -> th.Tensor:
        """
        Compute where distinct pairs lead that have no edge.

        :param pair: ``node * n_actions + number of the action``, ``[R]``
        :return: nodes, ``[R]``
        """
        node, number = pair // self.n_actions, pair % self.n_actions
        state, env = self._node_state.index_select(0, node), self._node_env.index_select(0, node)
        step = self.problem.step(state, self.actions.encode(self.numbering.numbered(number), state.dtype))
        self._edge_pair = th.cat([self._edge_pair, pair])
        self._new_steps.append(step)
        return self._nodes_of(step.next_state, env)

    def _outcomes_of(self, places: list[Place], actions: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        n_known = len(self._edge_reward)
        if n_known < len(self._edge_pair):
            node, number = self._edge_pair[n_known:] // self.n_actions, self._edge_pair[n_known:] % self.n_actions
            state, goal = self._node_state.index_select(0, node), self.goal.index_select(0, self._node_env[node])
            step = _joined(self._new_steps)
            self._new_steps = []
            reward, ended = self._outcomes(state, self.numbering.numbered(number), step, goal)
            self._edge_reward = th.cat([self._edge_reward, reward])
            self._edge_ended = th.cat([self._edge_ended, th.zeros_like(reward) if ended is None else ended])
        edges = th.stack([edge for _, edge in places[1:]])
        return self._edge_reward[edges], self._edge_ended[edges]

    def _states_at(self, place: Place, candidates: slice = slice(None)) -> th.Tensor:
        return self._node_state.index_select(0, place[0][candidates])

    def _nodes_of(self, state: th.Tensor, env: th.Tensor) -> th.Tensor:
        """Nodes of the given states, ``[R]``; made where they do not exist."""
        codes = zip(env.tolist(), self.key(state).tolist(), strict=True)
        nodes = th.tensor([self._node_ids[code] for code in codes], device=state.device)
        n_nodes = len(self.state) + len(self._node_ids)
        if n_nodes > len(self._node_env):
            self._reserve(2 * n_nodes)
        # a node that is written twice is written the same
        self._node_state[nodes] = state
        self._node_env[nodes] = env
        return nodes

    def _reserve(self, n_nodes: int) -> None:
        """Make room for that many nodes."""
        self._node_state = enlarged(self._node_state, n_nodes)
        self._node_env = enlarged(self._node_env, n_nodes)


def _joined(steps: list[Step]) -> Step:
    """Steps of the same model, one after another."""

    def joined(tensors: list[th.Tensor | None]) -> th.Tensor | None:
        given = [each for each in tensors if each is not None]
        return th.cat(given) if given else None

    next_state = th.cat([each.next_state for each in steps])
    return Step(next_state, joined([each.uncertainty for each in steps]), joined([each.is_chance for each in steps]))


def make_rollout(
    problem: Problem, state: th.Tensor, goal: th.Tensor, actions: Actions, action_mask: th.Tensor | None = None
) -> Rollout:
    """The fastest rollout for this kind of action, state and device; see :class:`Rollout` for the parameters."""
    # Without a key only common beginnings of sequences could be shared, which saves about what it costs. On any other device
    # than a CPU the host would wait at every depth for what the memo knows.
    if not isinstance(actions, BoxActions) and problem.key is not None and state.device.type == "cpu":
        if actions.n <= MemoRollout.MAX_ACTIONS:
            return MemoRollout(problem, state, goal, actions, action_mask, key=problem.key)
    return PlainRollout(problem, state, goal, actions, action_mask)
