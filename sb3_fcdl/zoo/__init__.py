"""RL Zoo with FCDL: ``python -m sb3_fcdl.zoo train | enjoy --algo fcdl --env ...`` (needs ``rl_zoo3``)."""
