"""The ways to look at a learned model that the algorithm and the callback share."""

from abc import ABC, abstractmethod

import numpy as np

from sb3_fcdl.dynamics import DynamicsModel
from sb3_fcdl.fcdl.actor import Actor
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.graphs import CausalGraph
from sb3_fcdl.imagination import ActionMaskFn, ImaginedVecEnv
from sb3_fcdl.inspection.codes import Code, codes_of
from sb3_fcdl.inspection.explain import Explanation
from sb3_fcdl.observations import Observations
from sb3_fcdl.training.experience import Experience


class ModelViews(ABC):
    """What can be seen of a model by who has its policy and what it learns from."""

    policy: FCDLPolicy

    # Transitions that `codes` and `causal_graph` look at.
    N_DESCRIBED = 4096

    @property
    @abstractmethod
    def experience(self) -> Experience:
        """The recorded transitions, as the model learns from them."""

    @property
    def dynamics(self) -> DynamicsModel:
        """The model."""
        return self.policy.dynamics

    @property
    def actor(self) -> Actor:
        """
        What the model would do without a plan: a policy for ``evaluate_policy`` and the like, a hundred times as fast.

        :raises ValueError: if the model learns no values, because ``gamma`` is 1
        """
        return self.policy.actor

    def local_graph(self, observation: Observations, action: np.ndarray | int) -> CausalGraph:
        """See ``FCDLPolicy.local_graph``."""
        return self.policy.local_graph(observation, action)

    def explain(self, observation: Observations, action_masks: np.ndarray | None = None) -> Explanation:
        """See ``FCDLPolicy.explain``."""
        return self.policy.explain(observation, action_masks)

    def codes(self) -> list[Code]:
        """
        The contexts of the recorded transitions, the most frequent first: share, graph, rule in words, samples.

        :raises ValueError: if the replay buffer is empty, or the model has no contexts
        """
        return codes_of(self.policy.world, self.experience.recorded(self.N_DESCRIBED).windows)

    def causal_graph(self) -> CausalGraph:
        """
        The union of the graphs of all contexts, which are its ``parts``: of the contexts met in the replay buffer, or of all
        if it is empty, as after ``load``. The label says which.

        :raises ValueError: if the model has no graph
        """
        graphs = self.dynamics.context_graphs()
        if not graphs:
            raise ValueError(f"{type(self.dynamics).__name__} has no graph; dynamics='fcdl_tree' has one")
        if len(graphs) > 1 and not self.experience.is_empty:
            met = [code.graph for code in self.codes()]
            return CausalGraph.union(met, f"union of the {len(met)} contexts met")
        graphs = [graphs[context] for context in self.dynamics.contexts]
        return CausalGraph.union(graphs, f"union of all {len(graphs)} contexts" if len(graphs) > 1 else "all contexts")

    def imagined_env(self, n_envs: int = 64, horizon: int = 5, action_mask_fn: ActionMaskFn | None = None) -> ImaginedVecEnv:
        """
        The model as environments that any algorithm of SB3 can learn in, see ``sb3_fcdl.imagination.ImaginedVecEnv``.

        :raises ValueError: if the model learned from observations that VecNormalize had changed
        """
        experience = self.experience
        if self.policy.world.factorization.is_normalized or experience.is_normalized:
            raise ValueError(
                "an imagined environment speaks the units of the real one, which VecNormalize hides from the model: pass "
                "norm_obs=False to it. FCDL has a normalization of its own"
            )
        return ImaginedVecEnv(self.policy.world, experience.replay_buffer, n_envs, horizon, action_mask_fn)
