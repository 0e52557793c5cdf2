"""Hyperparameters of FCDL for RL Zoo, in its format. One that is not listed has those of ``default``: FCDL's own."""

from typing import Any

from sb3_fcdl.presets import preset


def _of(env_id: str, policy: str, n_timesteps: int, learning_starts: int) -> dict[str, Any]:
    """Those of ``sb3-fcdl train``: ten environments, and one update and one plan for every ten transitions."""
    schedule = {"n_timesteps": n_timesteps, "learning_starts": learning_starts, "n_envs": 10, "train_freq": 1}
    return {**preset(env_id), "policy": policy, **schedule}


hyperparams: dict[str, dict[str, Any]] = {
    "FCDL/Chemical-v0": _of("FCDL/Chemical-v0", "MultiInputPolicy", 161_000, 10_000),
    "FCDL/Magnetic-v0": _of("FCDL/Magnetic-v0", "MlpPolicy", 100_000, 2_000),
    "default": {"policy": "MlpPolicy", "n_timesteps": 10_000},
}
