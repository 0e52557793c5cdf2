"""What SB3's other algorithms call otherwise, or what FCDL has in another place: told where such an argument is given."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")

_CODEBOOK = 'it is an argument of dynamics="fcdl", the codebook; the default model has none'
_NO_ACTOR = "FCDL plans, and its actor has no noise of its own"
ELSEWHERE = {
    "action_noise": "exploration_rate is the probability of a random action, and the planner adds noise of its own",
    "use_sde": f"{_NO_ACTOR}; exploration_rate is the probability of a random action",
    "sde_sample_freq": f"{_NO_ACTOR}; exploration_rate is the probability of a random action",
    "use_sde_at_warmup": f"{_NO_ACTOR}; the first learning_starts actions are random",
    "ent_coef": f"{_NO_ACTOR}, hence no entropy; exploration_rate is the probability of a random action",
    "target_entropy": f"{_NO_ACTOR}, hence no entropy; exploration_rate is the probability of a random action",
    "exploration_fraction": "exploration_rate is the same in all of the training",
    "exploration_initial_eps": "exploration_rate is the same in all of the training",
    "exploration_final_eps": "exploration_rate is the same in all of the training",
    "net_arch": 'widths are those of the model: dynamics_kwargs={"hidden_dim": 128, "n_layers": 2}',
    "activation_fn": "the activations of a dynamics model are its own; its widths are in dynamics_kwargs",
    "features_extractor_class": "the model reads named variables, not features; its widths are in dynamics_kwargs",
    "features_extractor_kwargs": "the model reads named variables, not features; its widths are in dynamics_kwargs",
    "share_features_extractor": "the model reads named variables, not features",
    "n_steps": "train_horizon is the length of a training window, train_freq says how often there is an update",
    "n_epochs": "gradient_steps is the number of updates after each rollout",
    "tau": 'there is no target network; the running average of the weights is policy_kwargs={"average_decay": 0.99}',
    "target_update_interval": (
        'there is no target network; the running average of the weights is policy_kwargs={"average_decay": 0.99}'
    ),
    "discount": "it is FCDL(gamma=...), as in all algorithms of SB3",
    "hidden_dim": 'it belongs to the model: dynamics_kwargs={"hidden_dim": 128}',
    "n_layers": 'it belongs to the model: dynamics_kwargs={"n_layers": 2}',
    "n_codes": 'it belongs to the model: dynamics_kwargs={"n_codes": 64}',
    "graph_prior": 'it belongs to the model: dynamics_kwargs={"graph_prior": "none"}',
    "sparsity_coef": _CODEBOOK,
    "quantize": _CODEBOOK,
    "code_dim": _CODEBOOK,
    "context_threshold": _CODEBOOK,
    "context_drop_after": _CODEBOOK,
    "horizon": 'it belongs to the planner: planner_kwargs={"horizon": 15}',
    "n_candidates": 'it belongs to the planner: planner_kwargs={"n_candidates": 64}',
    "average_decay": 'it belongs to the policy: policy_kwargs={"average_decay": 0.99}',
    "uncertainty_coef": 'it belongs to the policy: policy_kwargs={"uncertainty_coef": 0.0}',
    "clip_obs": 'it belongs to the policy: policy_kwargs={"clip_obs": 10.0}',
    "gamma": "it is an argument of FCDL itself",
    "learning_rate": "it is an argument of FCDL itself",
}
"""By name: where FCDL has it."""


def check_keywords(argument: str, target: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    """
    :param argument: what the user calls the dictionary, or the function
    :param target: what the keywords are for; its first parameter is not the user's
    :param keywords: what the user gave
    :raises TypeError: if a keyword is unknown; says where FCDL has it, or names the known ones
    """
    known = list(inspect.signature(target).parameters)[1:]
    for keyword in keywords:
        if keyword not in known:
            hint = f": {ELSEWHERE[keyword]}" if keyword in ELSEWHERE else f", allowed: {', '.join(known)}"
            raise TypeError(f"{argument} has an unknown key '{keyword}'{hint}")


def tells_where(init: Callable[P, None]) -> Callable[P, None]:
    """Lets a constructor say of an unknown keyword what ``check_keywords`` says."""
    name = init.__qualname__.partition(".")[0]

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        check_keywords(name, init, kwargs)
        init(*args, **kwargs)

    return checked
