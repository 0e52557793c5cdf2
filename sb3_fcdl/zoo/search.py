"""
The search space of FCDL for RL Zoo's ``--optimize``, in its form: a function that draws from a trial of Optuna, and one that
turns what was drawn into keyword arguments of FCDL.

The discount is not searched: it decides what is maximised, and whether a value is learned. Nor is the number of environments.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

# Both exist with the same sizes; the others take no such arguments, or much longer.
DYNAMICS = ("fcdl_tree", "mlp")


def sample_fcdl(trial: "optuna.Trial", n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    :param trial: draws
    :param n_actions: not used
    :param n_envs: not used
    :param additional_args: not used
    :return: keyword arguments of FCDL
    """
    return convert_fcdl(
        {
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
            "batch_size_pow": trial.suggest_int("batch_size_pow", 6, 9),
            "gradient_steps": trial.suggest_categorical("gradient_steps", [1, 2, 4]),
            "exploration_rate": trial.suggest_float("exploration_rate", 0.01, 0.3, log=True),
            "dynamics": trial.suggest_categorical("dynamics", DYNAMICS),
            "hidden_dim_pow": trial.suggest_int("hidden_dim_pow", 5, 8),
            "n_layers": trial.suggest_int("n_layers", 1, 4),
            "horizon": trial.suggest_int("horizon", 3, 20),
            "n_candidates_pow": trial.suggest_int("n_candidates_pow", 5, 8),
            "n_iterations": trial.suggest_int("n_iterations", 1, 4),
            "uncertainty_coef": trial.suggest_categorical("uncertainty_coef", [0.0, 0.3, 1.0]),
        }
    )


def convert_fcdl(sampled: dict[str, Any]) -> dict[str, Any]:
    """
    :param sampled: by the names of ``sample_fcdl``
    :return: keyword arguments of FCDL
    """
    flat = ("learning_rate", "gradient_steps", "exploration_rate", "dynamics")
    return {
        **{name: sampled[name] for name in flat},
        "batch_size": 2 ** sampled["batch_size_pow"],
        "dynamics_kwargs": {"hidden_dim": 2 ** sampled["hidden_dim_pow"], "n_layers": sampled["n_layers"]},
        "planner": "icem",
        "planner_kwargs": {
            "horizon": sampled["horizon"],
            "n_candidates": 2 ** sampled["n_candidates_pow"],
            "n_iterations": sampled["n_iterations"],
        },
        "policy_kwargs": {"uncertainty_coef": sampled["uncertainty_coef"]},
    }
