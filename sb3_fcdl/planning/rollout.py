"""Returns of action sequences under a model: the plain loop, and one that computes no step twice."""

from abc import ABC, abstractmethod
from collections import defaultdict
from itertools import count

import torch as th

from sb3_fcdl.memo import Memo, enlarged
from sb3_fcdl.planning.actions import Actions, BoxActions, CategoricalActions
from sb3_fcdl.planning.base import KeyFn, RewardFn, StepFn, TerminationFn

Place = tuple[th.Tensor, ...]
"""Where candidates are: a tensor or more, each with a row for every candidate."""

# Rows whose reward and end are asked for at once: enough that a call costs nothing, few enough to stay in a cache.
N_OUTCOMES = 512


class Rollout(ABC):
    """
    Evaluates action sequences from the current state of B environments.

    :param step: the model
    :param reward: reward of one modelled step
    :param state: encoded current state, ``[B, D]``
    :param goal: encoded task of each environment, ``[B, G]``
    :param actions: what an action is
    :param termination: whether a modelled step ended the episode; None: episodes never end
    :param discount: of the rewards, per env step
    """

    def __init__(
        self,
        step: StepFn,
        reward: RewardFn,
        state: th.Tensor,
        goal: th.Tensor,
        actions: Actions,
        termination: TerminationFn | None = None,
        discount: float = 1.0,
    ) -> None:
        self.step = step
        self.reward = reward
        self.state = state
        self.goal = goal
        self.actions = actions
        self.termination = termination
        self.discount = discount

    def evaluate(self, sequences: th.Tensor) -> th.Tensor:
        """
        Discounted sum of the rewards along each sequence, each weighted with the probability that the episode has not ended
        before; ``-inf`` where the sum is not finite.

        :param sequences: ``[B, N, H]`` int64 for discrete actions, ``[B, N, H, M]`` int64 for multi-discrete ones,
            ``[B, N, H, A]`` float for a box
        :return: returns, ``[B, N]``
        """
        n_envs, n_candidates, horizon = sequences.shape[:3]
        places = [self._start(n_candidates)]
        for depth in range(horizon):
            places.append(self._follow(places[-1], sequences[:, :, depth].flatten(0, 1)))
        # What a step pays changes nothing of where it leads: a learned reward is asked once for all of them.
        rewards, ended = self._outcomes_of(places, sequences)
        discounts = self.discount ** th.arange(horizon, dtype=th.float64, device=rewards.device)
        rewards = rewards * discounts.to(rewards.dtype).unsqueeze(1)
        if ended is not None:
            alive = th.cat([th.ones_like(ended[:1]), (1 - ended[:-1]).cumprod(dim=0)])
            # what a state after the end pays does not count, whatever it is: it need not be a number
            rewards = (alive * rewards).where(alive != 0, 0)
        # added one after another, so that equal sequences have equal returns wherever they stand
        returns = rewards.cumsum(dim=0)[-1]
        return returns.where(returns.isfinite(), -th.inf).view(n_envs, n_candidates)

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
    def _outcomes_of(self, places: list[Place], sequences: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        """
        What the steps of every candidate pay.

        :param places: where they were, before the first step and after each
        :param sequences: what they did, ``[B, N, H, *]``
        :return: rewards ``[H, B * N]``, and how likely each step ended the episode, ``[H, B * N]``; None: episodes never end
        """

    def _outcomes(
        self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor | None]:
        """Reward and probability of an end of R modelled steps, ``[R]``; ``action`` is not yet encoded."""
        rewards, ended = [], []
        for rows in zip(*(tensor.split(N_OUTCOMES) for tensor in (state, action, next_state, goal)), strict=True):
            before, encoded, after = rows[0], self.actions.encode(rows[1], state.dtype), rows[2]
            rewards.append(self.reward(before, encoded, after, rows[3]).to(state.dtype))
            if self.termination is not None:
                ended.append(self.termination(before, encoded, after).to(state.dtype))
        return th.cat(rewards), th.cat(ended) if ended else None


class PlainRollout(Rollout):
    """Every step of every sequence goes through the model. Never waits for the device."""

    def _start(self, n_candidates: int) -> Place:
        return (self.state.repeat_interleave(n_candidates, dim=0),)

    def _follow(self, place: Place, action: th.Tensor) -> Place:
        (state,) = place
        return (self.step(state, self.actions.encode(action, state.dtype)),)

    def _outcomes_of(self, places: list[Place], sequences: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        states = th.stack([state for (state,) in places])
        horizon, n_rows = len(states) - 1, states.shape[1]
        goal = self.goal.repeat_interleave(sequences.shape[1], dim=0).repeat(horizon, 1)
        actions = sequences.movedim(2, 0).flatten(0, 2)
        reward, ended = self._outcomes(states[:-1].flatten(0, 1), actions, states[1:].flatten(0, 1), goal)
        return reward.view(horizon, n_rows), None if ended is None else ended.view(horizon, n_rows)


class MemoRollout(Rollout):
    """
    Every distinct (environment, state, action) goes through the model once, however many sequences and calls meet it. The
    returns are those of :class:`PlainRollout`. Not for a box: continuous actions hardly ever repeat.

    What is known is a graph: a node is a state of one environment, an edge an action taken there. Nodes ``0 .. B-1`` are the
    current states, which may be any floats.

    :param key: code of a state that ``step`` returned; equal states of an environment share a node
    """

    # room made at once; what the planner's defaults need, so that they never copy
    NODES_PER_ENV = 512
    # with more, the table of edges is larger than what it saves
    MAX_ACTIONS = 1024

    def __init__(
        self,
        step: StepFn,
        reward: RewardFn,
        state: th.Tensor,
        goal: th.Tensor,
        actions: CategoricalActions,
        termination: TerminationFn | None = None,
        discount: float = 1.0,
        *,
        key: KeyFn,
    ) -> None:
        super().__init__(step, reward, state, goal, actions, termination, discount)
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
        self._edge_reward = state.new_empty(0)
        self._edge_ended = state.new_empty(0)
        self._reserve(self.NODES_PER_ENV * len(state))

    def _start(self, n_candidates: int) -> Place:
        return (th.arange(len(self.state), device=self.state.device).repeat_interleave(n_candidates),)

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
        next_state = self.step(state, self.actions.encode(self.numbering.numbered(number), state.dtype))
        self._edge_pair = th.cat([self._edge_pair, pair])
        return self._nodes_of(next_state, env)

    def _outcomes_of(self, places: list[Place], sequences: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        n_known = len(self._edge_reward)
        if n_known < len(self._edge_pair):
            node, number = self._edge_pair[n_known:] // self.n_actions, self._edge_pair[n_known:] % self.n_actions
            state, next_state = (self._node_state.index_select(0, end) for end in (node, self._edges.answers[n_known:]))
            goal = self.goal.index_select(0, self._node_env[node])
            reward, ended = self._outcomes(state, self.numbering.numbered(number), next_state, goal)
            self._edge_reward = th.cat([self._edge_reward, reward])
            if ended is not None:
                self._edge_ended = th.cat([self._edge_ended, ended])
        edges = th.stack([edge for _, edge in places[1:]])
        return self._edge_reward[edges], None if self.termination is None else self._edge_ended[edges]

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


def make_rollout(
    step: StepFn,
    reward: RewardFn,
    state: th.Tensor,
    goal: th.Tensor,
    actions: Actions,
    termination: TerminationFn | None,
    discount: float,
    key: KeyFn | None,
) -> Rollout:
    """The fastest rollout for this kind of action, state and device; see :class:`MemoRollout` for the parameters."""
    # Without a key only common beginnings of sequences could be shared, which saves about what it costs: a plan of CartPole
    # took 77 ms with it, and 74 to 78 without. On any other device the host would wait at every depth for what the memo knows.
    if not isinstance(actions, BoxActions) and key is not None and state.device.type == "cpu":
        if actions.n <= MemoRollout.MAX_ACTIONS:
            return MemoRollout(step, reward, state, goal, actions, termination, discount, key=key)
    return PlainRollout(step, reward, state, goal, actions, termination, discount)
