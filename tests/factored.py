"""What the tests of the factored environments share: transitions under random actions, and graphs found by brute force."""

import gymnasium as gym
import numpy as np

import fcdl_envs  # noqa: F401 (registers them)
from fcdl_envs.factored_system import one_hot


def random_transitions(env_id, n, seed=0, **kwargs):
    """Values of states [n, V] and actions [n, n_actions] under uniform actions, as the simulator takes them."""
    length = gym.spec(env_id).max_episode_steps
    steps = list(episodes(env_id, lambda env, _, rng: random_action(env.action_space, rng), -(-n // length), seed, **kwargs))
    states, actions = (np.stack(each, axis=1).reshape(-1, each[0].shape[-1]) for each in list(zip(*steps, strict=True))[:2])
    return states[:n], actions[:n]


def episodes(env_id, policy, n_episodes, seed=0, **kwargs):
    """
    Episodes side by side, in the environment's own simulator: much faster than one after the other.

    :param policy: function of environment, observation and generator
    :return: of each step states [n_episodes, V], actions [n_episodes, n_actions] and rewards [n_episodes]
    """
    env, rng = gym.make(env_id, **kwargs).unwrapped, np.random.default_rng(seed)
    states = np.array([(env.reset(seed=int(rng.integers(2**31))), env.get_state()["state"])[1] for _ in range(n_episodes)])
    variables, inputs = env.factorization.state_variables, env.factorization.action
    for _ in range(gym.spec(env_id).max_episode_steps):
        actions = np.stack([env._checked(policy(env, env._observe(state), rng)) for state in states])
        nexts = env.system.step(states, actions, np.stack([env.system.draw_noise(rng) for _ in states]))
        rewards = env.reward_fn(one_hot(variables, states), one_hot(inputs, actions), one_hot(variables, nexts), None)
        yield states, actions, rewards
        states = nexts


def random_action(space, rng):
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(space.low, space.high).astype(np.float32)
    return rng.integers(space.nvec)


def with_value(states, actions, column, values):
    """States and actions with other values of one parent, [B] or one for all."""
    parents = np.concatenate([states, actions], axis=1)
    parents[:, column] = values
    return parents[:, : states.shape[1]], parents[:, states.shape[1] :]


def has_moved(before, after):
    """Which distributions differ, [V, B]."""
    return np.array([(np.abs(one - other) > 1e-12).any(axis=1) for one, other in zip(before, after, strict=True)])


def brute_force_graph(system, states, actions, numbers):
    """
    The transition graphs [B, V, P] by their definition: every other value of each parent, all else as it is.

    :param numbers: values to try of a parent that is a number, besides those that are very near to another variable's
    """
    near = [values + 1e-4 for values in states.T]
    before = system.conditional(states, actions)
    graph = np.zeros((len(states), states.shape[1], states.shape[1] + actions.shape[1]), dtype=bool)
    for column, variable in enumerate(system.factors.parents):
        for value in range(variable.n_categories) if variable.is_categorical else [*numbers, *near]:
            after = system.conditional(*with_value(states, actions, column, value))
            graph[:, :, column] |= has_moved(before, after).T
    return graph


def effects(system, states, actions, seed=0):
    """
    How strong each edge is: [V, P] shares of the transitions in which it is there, and root mean squares over these of what
    happens when the parent takes its value of another transition: the change of the mean in standard deviations of the noise,
    or the total variation of the probabilities.
    """
    graphs, rng = system.transition_graph(states, actions), np.random.default_rng(seed)
    before, sizes = system.conditional(states, actions), np.zeros(graphs.shape)
    parents = np.concatenate([states, actions], axis=1)
    for column in range(parents.shape[1]):
        others = rng.permutation(parents[:, column])
        after = system.conditional(*with_value(states, actions, column, others))
        for row, variable in enumerate(system.factors.state_variables):
            if variable.is_categorical:
                sizes[:, row, column] = np.abs(after[row] - before[row]).sum(axis=1) / 2
            else:
                sizes[:, row, column] = (after[row][:, 0] - before[row][:, 0]) / before[row][:, 1]
    share = graphs.mean(axis=0)
    squares = (sizes**2 * graphs).sum(axis=0) / np.maximum(graphs.sum(axis=0), 1)
    return share, np.sqrt(squares)


def mean_return(env_id, policy, n_episodes=20):
    """
    :param policy: function of environment, observation and generator
    """
    return sum(rewards.mean() for _, _, rewards in episodes(env_id, policy, n_episodes))
