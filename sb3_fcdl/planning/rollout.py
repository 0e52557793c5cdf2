"""Returns of action sequences under a model: the plain loop, and one that computes no step twice."""

from abc import ABC, abstractmethod
from collections import defaultdict
from itertools import count

import torch as th

from sb3_fcdl.planning.actions import Actions, DiscreteActions
from sb3_fcdl.planning.base import KeyFn, RewardFn, StepFn


class Rollout(ABC):
    """
    Evaluates action sequences from the current state of B environments.

    :param step: the model
    :param reward: reward of one modelled step
    :param state: encoded current state, ``[B, D]``
    :param goal: encoded task of each environment, ``[B, G]``
    :param actions: what an action is
    """

    def __init__(self, step: StepFn, reward: RewardFn, state: th.Tensor, goal: th.Tensor, actions: Actions) -> None:
        self.step = step
        self.reward = reward
        self.state = state
        self.goal = goal
        self.actions = actions

    @abstractmethod
    def evaluate(self, sequences: th.Tensor) -> th.Tensor:
        """
        Sum of the rewards along each sequence; ``-inf`` where it is not finite.

        :param sequences: ``[B, N, H]`` int64 for discrete actions, ``[B, N, H, A]`` float for a box
        :return: returns, ``[B, N]``
        """


class PlainRollout(Rollout):
    """Every step of every sequence goes through the model. Never waits for the device."""

    def evaluate(self, sequences: th.Tensor) -> th.Tensor:
        n_envs, n_candidates, horizon = sequences.shape[:3]
        state = self.state.repeat_interleave(n_candidates, dim=0)
        goal = self.goal.repeat_interleave(n_candidates, dim=0)
        returns = state.new_zeros(n_envs * n_candidates)
        for depth in range(horizon):
            action = self.actions.encode(sequences[:, :, depth].flatten(0, 1), state.dtype)
            next_state = self.step(state, action)
            returns += self.reward(state, action, next_state, goal).to(returns.dtype)
            state = next_state
        return _worst_if_not_finite(returns).view(n_envs, n_candidates)


class MemoRollout(Rollout):
    """
    Every distinct (environment, state, action) goes through the model once, however many sequences and calls meet it. The
    returns are those of :class:`PlainRollout`. For discrete actions only: continuous ones hardly ever repeat.

    What is known is a graph: a node is a state of one environment, an edge an action taken there. Nodes ``0 .. B-1`` are the
    current states, which may be any floats.

    :param key: code of a state that ``step`` returned; equal states of an environment then share a node. Without it a node
        is a sequence of actions, and only common prefixes are shared
    """

    # room made at once; what the planner's defaults need, so that they never copy
    NODES_PER_ENV = 512

    def __init__(
        self,
        step: StepFn,
        reward: RewardFn,
        state: th.Tensor,
        goal: th.Tensor,
        actions: DiscreteActions,
        key: KeyFn | None = None,
    ) -> None:
        super().__init__(step, reward, state, goal, actions)
        self.n_actions = actions.n
        self.key = key
        self.n_nodes = len(state)
        # node of each (environment, key); a new one is given the next number
        self._node_ids: defaultdict[tuple[int, int], int] = defaultdict(count(len(state)).__next__)
        # one row per node, with room to spare
        self._node_state = state
        self._node_env = th.arange(len(state), device=state.device)
        # edge of each pair (node, action), -1 where none is known; int32 because the size of this table is what costs time
        self._edge_ids = th.full((len(state) * self.n_actions,), -1, dtype=th.int32, device=state.device)
        # one row per edge
        self._edge_reward = state.new_empty(0)
        self._edge_target = self._node_env.new_empty(0)
        self._reserve(self.NODES_PER_ENV * len(state))

    def evaluate(self, sequences: th.Tensor) -> th.Tensor:
        n_envs, n_candidates, horizon = sequences.shape
        node = th.arange(n_envs, device=sequences.device).repeat_interleave(n_candidates)
        returns = self.state.new_zeros(n_envs * n_candidates)
        for depth in range(horizon):
            pair = node * self.n_actions + sequences[:, :, depth].flatten()
            edge = self._edge_ids[pair]
            unknown = pair[edge < 0]
            if len(unknown):
                self._expand(unknown.unique())
                edge = self._edge_ids[pair]
            returns += self._edge_reward[edge]
            node = self._edge_target[edge]
        return _worst_if_not_finite(returns).view(n_envs, n_candidates)

    def _expand(self, pair: th.Tensor) -> None:
        """
        Compute the edges of distinct pairs that have none.

        :param pair: ``node * n_actions + action``, ``[R]``
        """
        node = pair // self.n_actions
        state, env = self._node_state.index_select(0, node), self._node_env.index_select(0, node)
        action = self.actions.encode(pair % self.n_actions, state.dtype)
        next_state = self.step(state, action)
        reward = self.reward(state, action, next_state, self.goal.index_select(0, env))
        n_edges = len(self._edge_reward)
        self._edge_ids[pair] = th.arange(n_edges, n_edges + len(pair), dtype=th.int32, device=pair.device)
        self._edge_reward = th.cat([self._edge_reward, reward.to(self._edge_reward.dtype)])
        self._edge_target = th.cat([self._edge_target, self._nodes_of(next_state, env)])

    def _nodes_of(self, state: th.Tensor, env: th.Tensor) -> th.Tensor:
        """Nodes of the given states, ``[R]``; made where they do not exist."""
        if self.key is None:
            nodes = th.arange(self.n_nodes, self.n_nodes + len(state), device=state.device)
            self.n_nodes += len(state)
        else:
            codes = zip(env.tolist(), self.key(state).tolist(), strict=True)
            nodes = th.tensor([self._node_ids[code] for code in codes], device=state.device)
            self.n_nodes = len(self.state) + len(self._node_ids)
        if self.n_nodes > len(self._node_env):
            self._reserve(2 * self.n_nodes)
        # a node that is written twice is written the same
        self._node_state[nodes] = state
        self._node_env[nodes] = env
        return nodes

    def _reserve(self, n_nodes: int) -> None:
        """Make room for that many nodes."""
        self._node_state = _enlarge(self._node_state, n_nodes)
        self._node_env = _enlarge(self._node_env, n_nodes)
        n_known = len(self._edge_ids)
        self._edge_ids = _enlarge(self._edge_ids, n_nodes * self.n_actions)
        self._edge_ids[n_known:] = -1


def make_rollout(
    step: StepFn, reward: RewardFn, state: th.Tensor, goal: th.Tensor, actions: Actions, key: KeyFn | None
) -> Rollout:
    """The fastest rollout for this kind of action and this device; see :class:`MemoRollout` for the parameters."""
    # the memo asks what it knows at every depth, for which the host would have to wait for any other device
    if isinstance(actions, DiscreteActions) and state.device.type == "cpu":
        return MemoRollout(step, reward, state, goal, actions, key)
    return PlainRollout(step, reward, state, goal, actions)


def _enlarge(table: th.Tensor, n_rows: int) -> th.Tensor:
    """The same table with rows of any content added, ``n_rows`` in all."""
    # th.cat would write the new rows too, which costs more than all the rest
    enlarged = table.new_empty(n_rows, *table.shape[1:])
    enlarged[: len(table)] = table
    return enlarged


def _worst_if_not_finite(returns: th.Tensor) -> th.Tensor:
    return returns.where(returns.isfinite(), -th.inf)
