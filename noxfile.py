"""
The matrix of versions: ``nox -s tests-3.12``, ``nox -s envs``, ``nox -s lowest``, ``nox -s package``. Needs nox and the
interpreters; ``make test`` is the same with the one interpreter of ``.venv``.

Where the newest PyTorch is a CUDA build, give pip the CPU's: ``PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu``.
"""

import pathlib
import re

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
QUICK = ["-q", "-m", "not slow and not gpu"]
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["envs", "package"]

# Builds a model, learns, plans, saves and loads: on our own environment and on one of Gymnasium.
SMOKE = """
import gymnasium as gym
from sb3_fcdl import FCDL, Factors, GraphPrior, DynamicsCallback, Variable, evaluate_shift, presets

for env_id in ("FCDL/Chemical-v0", "CartPole-v1"):
    settings = presets.preset(env_id, learning_starts=50, exploration_rate=1.0)
    model = FCDL("MultiInputPolicy" if "Chemical" in env_id else "MlpPolicy", env_id, **settings, seed=0).learn(70)
    model.save("model.zip")
    observation, _ = gym.make(env_id).reset(seed=0)
    action, _ = FCDL.load("model.zip").predict(observation, deterministic=True)
    print(env_id, model._n_updates, "updates, action", action)
    print(model.local_graph(observation, action))
"""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All quick tests."""
    session.install("-c", "constraints.txt", "-e", ".[magnetic,plot,extra,contrib,onnx,hub,tests]")
    session.run("pytest", *QUICK, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHONS)
def envs(session: nox.Session) -> None:
    """The environments, with NumPy and Gymnasium and without PyTorch or SB3: those of their tests that need neither."""
    session.install("-c", "constraints.txt", "numpy", "gymnasium", "mujoco", "pytest", "hypothesis", "pillow")
    needs_more = re.compile(r"^(import torch|from (stable_baselines3|sb3_fcdl))", re.MULTILINE)
    files = [path for path in sorted(pathlib.Path("tests/envs").glob("test_*.py")) if not needs_more.search(path.read_text())]
    session.run("pytest", "--noconftest", *QUICK, *map(str, files), env={"PYTHONPATH": "envs"})
    session.run(
        "python", "-c", "import gymnasium; print(gymnasium.make('fcdl_envs:FCDL/Chemical-v0'))", env={"PYTHONPATH": "envs"}
    )


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The quick tests with the lowest versions that ``pyproject.toml`` admits for users, and the pinned PyTorch."""
    lines = pathlib.Path("pyproject.toml").read_text().partition("docs = [")[0].splitlines()
    of_users = "\n".join(line for line in lines if not line.startswith("tests = "))
    bounds = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', of_users))
    pins = [f"{name}=={version}" for name, version in bounds.items() if name not in ("setuptools", "torch")]
    pins += re.findall(r"^torch==.*$", pathlib.Path("constraints.txt").read_text(), flags=re.MULTILINE)
    # TensorBoard of that time asks for pkg_resources.
    session.install("-e", ".[magnetic,plot,extra,contrib]", "setuptools<81", "pytest", "hypothesis", *pins)
    session.run("pytest", *QUICK, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python="3.11")
def linkcheck(session: nox.Session) -> None:
    """Links of the manual to other sites. Needs the network; ``make docs`` checks those within the manual."""
    session.install("-c", "constraints.txt", "-e", ".[plot,docs]")
    session.run("python", "-m", "sphinx", "-b", "linkcheck", "-q", "docs", f"{session.create_tmp()}/links")


@nox.session(python="3.11")
def package(session: nox.Session) -> None:
    """Builds wheel and source archive, and installs each into a clean environment, where Chemical and CartPole learn."""
    session.install("build", "twine")
    out = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", out, ".")
    archives = sorted(map(str, pathlib.Path(out).glob("sb3_fcdl-*")))
    session.run("twine", "check", "--strict", *archives)
    for archive in archives:
        session.install("--force-reinstall", "--no-deps", archive)
        session.install("-c", "constraints.txt", archive)
        session.chdir(out)
        session.run("python", "-c", SMOKE)
        session.run("sb3-fcdl", "--help", silent=True)
        session.chdir(pathlib.Path(__file__).parent)
