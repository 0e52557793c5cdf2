"""
Environments with local causal structure. Importing this package registers them with Gymnasium; it needs neither torch nor
Stable-Baselines3 nor MuJoCo. Where nothing imports it, Gymnasium does: ``gym.make("fcdl_envs:FCDL/Chemical-v0")``. (Gymnasium
has had no entry point for packages since 1.0, so that a name without the prefix cannot be found.)
"""

import gymnasium as gym

from fcdl_envs.variables import Factors, Variable


def register() -> None:
    """Registers the environments of this package with Gymnasium. Calling it again changes nothing."""
    if "FCDL/Chemical-v0" not in gym.registry:
        gym.register(
            id="FCDL/Chemical-v0",
            entry_point="fcdl_envs.chemical:ChemicalEnv",
            vector_entry_point="fcdl_envs.chemical:ChemicalVectorEnv",
            max_episode_steps=25,
        )
    if "FCDL/Magnetic-v0" not in gym.registry:
        gym.register(id="FCDL/Magnetic-v0", entry_point="fcdl_envs.magnetic:MagneticEnv", max_episode_steps=25)
    if "FCDL/Thermostat-v0" not in gym.registry:
        gym.register(id="FCDL/Thermostat-v0", entry_point="fcdl_envs.thermostat:ThermostatEnv", max_episode_steps=48)
    if "FCDL/Contact-v0" not in gym.registry:
        gym.register(id="FCDL/Contact-v0", entry_point="fcdl_envs.contact:ContactEnv", max_episode_steps=100)
    if "FCDL/Workshop-v0" not in gym.registry:
        gym.register(id="FCDL/Workshop-v0", entry_point="fcdl_envs.workshop:WorkshopEnv", max_episode_steps=50)


register()

__all__ = ["Factors", "Variable", "register"]
