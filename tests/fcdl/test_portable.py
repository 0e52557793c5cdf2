"""Files of models from strangers: they are read without running what is in them."""

import base64
import io
import json
import os
import pickle
import zipfile

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from tiny import tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.dynamics import GraphPrior, MLPDynamics
from sb3_fcdl.fcdl.portable import from_plain, known, to_plain
from sb3_fcdl.graphs import CausalGraph


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class OwnDynamics(MLPDynamics):
    """Of the user."""


def upright(state, action, next_state, goal):
    return 1 - next_state[:, 2].abs()


def own_angle(state, action, next_state, goal):
    return next_state[:, 2]


QUICK = {"policy": "MlpPolicy", "dynamics_kwargs": {"hidden_dim": 8}}


def rewritten(path, target, **entries):
    """A copy of a zip file with other entries; each is a function of the old content."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            stem = name.replace(".", "_")
            copy.writestr(name, entries[stem](source.read(name)) if stem in entries else source.read(name))
    return target


def pickled_tensors(payload):
    """What ``torch.save`` writes, with something to run."""
    file = io.BytesIO()
    th.save({"state_dict": payload, "data": payload}, file)
    return file.getvalue()


def test_malicious_files_run_nothing(tmp_path):
    model = tiny_fcdl("CartPole-v1", **QUICK).learn(60)
    model.save(tmp_path / "model.zip")
    model.policy.save(tmp_path / "policy")
    payload, proof = Payload(tmp_path / "proof"), tmp_path / "proof"

    def with_payload(data):
        serialized = base64.b64encode(cloudpickle.dumps(payload)).decode()
        return json.dumps({**json.loads(data), "verbose": {":type:": "", ":serialized:": serialized}})

    # A pickle in the JSON of SB3: what SB3's way of loading runs.
    path = rewritten(tmp_path / "model.zip", tmp_path / "data.zip", data=with_payload)
    FCDL.load(path, trusted=False)
    assert not proof.exists()
    FCDL.load(path)
    assert proof.exists()
    proof.rmdir()

    # A pickle for weights.
    path = rewritten(tmp_path / "model.zip", tmp_path / "pth.zip", policy_pth=lambda _: pickled_tensors(payload))
    with pytest.raises(Exception, match="Weights only load failed"):
        FCDL.load(path, trusted=False)
    # A policy.
    (tmp_path / "evil_policy").write_bytes(pickled_tensors(payload))
    for trusted in (False, True):
        with pytest.raises(ValueError, match="holds something else than tensors"):
            FCDLPolicy.load(tmp_path / "evil_policy", trusted=trusted)
    # A replay buffer: a pickle called .npz, and arrays of objects.
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(payload))
    with (tmp_path / "objects.npz").open("wb") as file:
        np.savez(file, numbers=np.array(json.dumps({})), actions=np.array([payload], dtype=object))
    for name in ("pickle.npz", "objects.npz"):
        with pytest.raises(ValueError, match=f"{name} is not a replay buffer that sb3_fcdl wrote"):
            model.load_replay_buffer(tmp_path / name)
    assert not proof.exists()


def test_a_file_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'proof')!r})\nreward = len\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiny_fcdl("CartPole-v1", **QUICK).save(tmp_path / "model.zip")

    def naming(*keys, value):
        def change(data):
            configuration = part = json.loads(data)
            for key in keys[:-1]:
                part = part[key]
            part[keys[-1]] = value
            return json.dumps(configuration)

        return rewritten(tmp_path / "model.zip", tmp_path / "evil.zip", fcdl_json=change)

    named = "stranger:reward"
    for keys, value in (
        (("attributes", "reward_fn"), named),
        (("attributes", "reward_fn"), {"is": "code", "name": named}),
        (("published", "termination_fn"), named),
        (("attributes", "policy_kwargs", "items", "reward_fn"), named),
        (("attributes", "policy_class"), {"is": "code", "name": named}),
        (("attributes", "dynamics_kwargs", "items", "hidden_dim"), {"is": "object", "name": named}),
    ):
        with pytest.raises(ValueError, match=f"names stranger:reward in {keys[1].removesuffix('_name')}"):
            FCDL.load(naming(*keys, value=value), trusted=False)
    # Attributes that are none of a configuration are left out.
    loaded = FCDL.load(naming("attributes", "predict", value="mine"), trusted=False)
    assert callable(loaded.predict) and not (tmp_path / "proof").exists()


def test_a_file_that_is_not_trusted_gives_the_same_model(tmp_path):
    model = tiny_fcdl(tiny_vec_env(), learning_starts=20, train_horizon=1).learn(100)
    model.save(tmp_path / "model")
    env = tiny_vec_env()
    with pytest.raises(ValueError, match=r"names fcdl_envs\.\S+ in reward_fn.*pass reward_fn=\.\.\. to load\(\), or env="):
        FCDL.load(tmp_path / "model", trusted=False)
    models = []
    for trusted in (True, False):
        models.append(FCDL.load(tmp_path / "model", env=tiny_vec_env(), trusted=trusted))
        models.append(FCDL.load(tmp_path / "model", env=tiny_vec_env(), trusted=trusted).learn(40, reset_num_timesteps=False))
    trusted, trained, loaded, trained_again = models
    observation = env.reset()
    assert (model.predict(observation, deterministic=True)[0] == loaded.predict(observation, deterministic=True)[0]).all()
    for name in (
        "num_timesteps",
        "_n_updates",
        "learning_starts",
        "train_freq",
        "dynamics_kwargs",
        "heads",
        "seed",
        "published",
    ):
        assert getattr(loaded, name) == getattr(trusted, name), name
    assert loaded.observation_space == model.observation_space and loaded.tensorboard_log is None
    expected, found = (each.policy.state_dict() for each in (trained, trained_again))
    assert all(th.equal(expected[key], found[key]) for key in expected)


def test_what_is_no_data_must_be_passed(tmp_path):
    model = tiny_fcdl("CartPole-v1", policy="MlpPolicy", dynamics=OwnDynamics, dynamics_kwargs={}, reward_fn=upright)
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy")
    for env in (None, "CartPole-v1"):
        env = model.get_env() if env else None
        with pytest.raises(ValueError, match=r"test_portable:OwnDynamics in dynamics, .*: pass dynamics=\.\.\. to load\(\)"):
            FCDL.load(tmp_path / "model", env=env, trusted=False, reward_fn=own_angle)
        with pytest.raises(ValueError, match=r"test_portable:upright in reward_fn"):
            FCDL.load(tmp_path / "model", env=env, trusted=False, dynamics=OwnDynamics)
        loaded = FCDL.load(tmp_path / "model", env=env, trusted=False, dynamics=OwnDynamics, reward_fn=own_angle)
        assert type(loaded.dynamics) is OwnDynamics and loaded.policy.world.reward_fn is own_angle
    with pytest.raises(TypeError, match="takes no custom_objects"):
        FCDL.load(tmp_path / "model", trusted=False, custom_objects={})
    with pytest.raises(ValueError, match=r"names \S+:OwnDynamics in dynamics"):
        FCDLPolicy.load(tmp_path / "policy", trusted=False, reward_fn=upright)
    policy = FCDLPolicy.load(tmp_path / "policy", trusted=False, reward_fn=upright, dynamics=OwnDynamics)
    assert type(policy.dynamics) is OwnDynamics and policy.world.reward_fn is upright


def test_a_trusted_policy_imports_what_it_names(tmp_path):
    policy = tiny_fcdl(tiny_env()).policy
    policy.save(tmp_path / "policy")
    assert FCDLPolicy.load(tmp_path / "policy").world.reward_fn == policy.world.reward_fn
    with pytest.raises(ValueError, match=r"names fcdl_envs\.\S+ in reward_fn"):
        FCDLPolicy.load(tmp_path / "policy", trusted=False)
    nameless = tiny_fcdl("CartPole-v1", **QUICK, reward_fn=lambda state, action, next_state, goal: state[:, 0]).policy
    with pytest.raises(ValueError, match=r"<lambda> cannot be imported by that: make it a function of a module"):
        nameless.save(tmp_path / "nameless")


@pytest.mark.parametrize(
    "value",
    [
        spaces.Box(np.array([-np.inf, 0], np.float32), np.array([np.inf, 0.1], np.float32)),
        spaces.Box(0, 255, (2, 3), np.uint8),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([[2, 3]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 2)),
        spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(-1, 1, (1,))}),
        tiny_env().unwrapped.factorization,
        GraphPrior("order", required_edges=(("a", "b"),)),
        {"a": (1, [2.5, None, True]), "b": {"c": "d"}},
        th.optim.AdamW,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_from_json(value):
    assert from_plain(json.loads(json.dumps(to_plain(value))), known) == value


def test_graphs_and_arrays_come_back_from_json():
    graph = CausalGraph(np.array([[0.1, 0.7]]), ("a",), ("a", "b"))
    found = from_plain(json.loads(json.dumps(to_plain({"graph": graph, "array": np.float32([[0.1]])}))), known)
    assert found["graph"].to_json() == graph.to_json() and found["array"].dtype == np.float32
    assert found["array"].tolist() == np.float32([[0.1]]).tolist()


def test_replay_buffers_come_back_from_arrays(tmp_path):
    model = tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(60)
    model.save_replay_buffer(tmp_path / "buffer.npz")
    other = tiny_fcdl(tiny_vec_env(), learning_starts=1000)
    other.load_replay_buffer(tmp_path / "buffer.npz")
    assert other.replay_buffer.pos == 30
    for name in ("actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(other.replay_buffer, name), getattr(model.replay_buffer, name))
    present = (smaller := tiny_fcdl(tiny_vec_env(), buffer_size=100)).replay_buffer
    with pytest.raises(ValueError, match="buffer_size = 500, the model has 50"):
        smaller.load_replay_buffer(tmp_path / "buffer.npz")
    assert smaller.replay_buffer is present


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "model.zip"
    tiny_fcdl("CartPole-v1", **QUICK).save(path)
    for change in (lambda _: "[]", lambda _: "{}", lambda data: data[:100], lambda _: '{"attributes": {}, "published": {}}'):
        damaged = rewritten(path, tmp_path / "damaged.zip", fcdl_json=change)
        with pytest.raises(ValueError, match=r"damaged\.zip"):
            FCDL.load(damaged, trusted=False)
