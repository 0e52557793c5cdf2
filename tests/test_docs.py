"""What the docs show is run, and what they list is complete."""

import ast
import inspect
import pathlib
import re

import numpy as np
import pytest
import torch as th

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DYNAMICS
from sb3_fcdl.dynamics.graph.quantizer import LatentQuantizer
from sb3_fcdl.planning import PLANNERS
from sb3_fcdl.presets import preset

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCES = [path for folder in ("sb3_fcdl", "envs", "tests") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.usefixtures("quick_plans")
def test_a_model_of_ones_own_learns_and_acts():
    _, example = re.findall(r"```python\n(.*?)```", (DOCS / "dynamics.md").read_text(), flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 30
    names: dict = {}
    exec(compile(example, "dynamics.md", "exec"), names)
    model = names["model"]
    assert model.num_timesteps == 300 and model._n_updates == 20
    assert type(model.dynamics).__name__ == "LinearDynamics" and model.dynamics.linear.bias is None
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    action, _ = model.predict(model.observation_space.sample(), deterministic=True)
    assert model.action_space.contains(action)


@pytest.mark.usefixtures("quick_plans")
def test_an_ensemble_plans():
    example, _ = re.findall(r"```python\n(.*?)```", (DOCS / "dynamics.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example.replace("learn(150)", "learn(102)"), "dynamics.md", "exec"), names)
    assert names["model"].policy.uncertainty_coef == 1 and len(names["model"].dynamics.models) == 3


def test_a_linear_model_is_the_softmax_regression_that_it_looks_like():
    _, example = re.findall(r"```python\n(.*?)```", (DOCS / "dynamics.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example.partition("model = ")[0], "dynamics.md", "exec"), names)
    from toy import factors, random_windows

    dynamics = names["LinearDynamics"](factors([2, 3], 4)).eval()
    windows = random_windows([2, 3], 4, n_rows=5, length=1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    logits = dynamics.linear(th.cat([state, action], dim=-1))
    prediction = dynamics.step(state, action).next_state.logits
    assert th.equal(prediction[:, 0, :2], logits[:, :2]) and th.equal(prediction[:, 1], logits[:, 2:])


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_model_is_in_the_table(name):
    assert f"| `{name}` |" in (DOCS / "dynamics.md").read_text()


def test_planner_of_the_example_brings_the_mass_to_the_goal():
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "planners.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "planners.md", "exec"), names)
    position, speed = names["state"][0].tolist()
    assert position == pytest.approx(1, abs=0.05) and speed == pytest.approx(0, abs=0.2)


def test_published_method_is_built_as_the_paper_has_it():
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "codebook.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "codebook.md", "exec"), names)
    policy = names["model"].policy
    assert isinstance(policy.dynamics.quantizer, LatentQuantizer) and policy.average_decay == 0
    assert policy.dynamics.sparsity_coef == 0.001 and policy.dynamics.context_threshold == 0
    for env_id in ("FCDL/Chemical-v0", "FCDL/Magnetic-v0"):
        arguments = preset(env_id, "paper")
        assert arguments["dynamics_kwargs"].items() >= names["fcdl_paper"]().items()
        assert arguments["policy_kwargs"] == {"average_decay": 0}


@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_is_in_the_table(name):
    assert f"| `{name}` |" in (DOCS / "planners.md").read_text()


@pytest.mark.filterwarnings("ignore:.*disagrees with the environment")
@pytest.mark.usefixtures("quick_plans")
def test_examples_on_environments_run(tmp_path, monkeypatch):
    """With fewer timesteps."""
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "environments.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in examples:
        for long, short in {"learn(1000)": "learn(20)", "learn(2000)": "learn(200)", "steps=1000": "steps=2"}.items():
            example = example.replace(long, short)
        exec(compile(example, "environments.md", "exec"), names)
        if "load_replay_buffer" in example:
            assert names["model"].replay_buffer.pos == 200 and names["model"]._n_updates == 2
        if "required_edges" in example:
            assert names["model"].dynamics.free_entries.sum() == 4 * 5 - 6
        if "save_checkpoint" in example:
            assert names["resumed"].num_timesteps == 20 and names["resumed"].replay_buffer.pos == 220
    assert len(examples) == 7 and names["action"].shape == (1,)
    assert [variable.width for variable in names["factorization"].state] == [2, 1, 1]


@pytest.mark.usefixtures("quick_plans")
def test_examples_on_values_run():
    names: dict = {}
    for example in re.findall(r"```python\n(.*?)```", (DOCS / "value.md").read_text(), flags=re.DOTALL):
        exec(compile(example, "value.md", "exec"), names)
    assert "of it beyond" in str(names["explanation"])


@pytest.mark.usefixtures("quick_plans")
@pytest.mark.parametrize(
    ("page", "shorter", "timesteps"),
    [
        (
            "imagination",
            {"learn(2000, mbpo)": "learn(40, mbpo)", "learn(2000)": "learn(40)", "learn(20_000)": "learn(500)"},
            {"model": 40, "agent": 512},
        ),
        ("vec_env", {"learn(4000)": "learn(2000)"}, {"model": 2000}),
    ],
)
def test_examples_on_vectors_of_environments_run(page, shorter, timesteps):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        for long, short in shorter.items():
            block = block.replace(long, short)
        exec(compile(block, f"{page}.md", "exec"), names)
    assert {name: names[name].num_timesteps for name in timesteps} == timesteps
    if page == "imagination":
        masks = names["no_push_outwards"](np.array([[-2.1, 0, 0, 0], [0, 0, 0, 0]]))
        assert masks.tolist() == [[False, True], [True, True]] and names["env"].has_attr("action_masks")
    else:
        assert names["env"].num_envs == 4 and names["env"].reset().shape == (4, 4)


@pytest.mark.usefixtures("quick_plans")
def test_example_of_the_page_on_speed_runs():
    """With fewer timesteps: of 60 rounds of ten, the first 50 are random."""
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "speed.md").read_text(), flags=re.DOTALL)
    n_threads, names = th.get_num_threads(), {}
    exec(compile(example.replace("learn(10_000)", "learn(530)"), "speed.md", "exec"), names)
    th.set_num_threads(n_threads)
    assert names["model"].num_timesteps == 530 and names["model"].policy.planner.horizon == 8
    assert names["model"]._n_updates in (3, 4)


def blocks(page: str, shorter: dict[str, str]) -> list[str]:
    """The code of a page, with what makes it quick."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), flags=re.DOTALL)
    for long, short in shorter.items():
        found = [block.replace(long, short) for block in found]
    return found


@pytest.mark.usefixtures("quick_plans")
def test_quickstart_runs(capsys):
    """With fewer timesteps."""
    names: dict = {}
    shorter = {
        "learn(5000)": "learn(60)",
        "learning_starts=1000": "learning_starts=20",
        '"noise"})': '"noise"}, n_episodes=2)',
    }
    for block in blocks("quickstart", shorter):
        exec(compile(block, "quickstart.md", "exec"), names)
    assert names["model"]._n_updates == names["mlp"]._n_updates == 4
    assert [result.model for result in names["report"].results] == ["FCDL", "MLP"]
    assert "code 0: 100.0 % of transitions" in capsys.readouterr().out


def test_tutorial_runs(capsys):
    """With fewer timesteps and shorter plans."""
    shorter = {"learn(2500": "learn(60", "learn(500,": "learn(20,", '"learning_starts": 500': '"learning_starts": 20'}
    shorter |= {'"horizon": 12': '"horizon": 2, "n_candidates": 2', "n_episodes=10": "n_episodes=1", 'v0", 10)': 'v0", 1)'}
    shorter |= {"left_out=": "n_steps=5, left_out="}
    names: dict = {}
    for block in blocks("tutorial", shorter):
        exec(compile(block, "tutorial.md", "exec"), names)
    assert names["factorization"] == names["env"].unwrapped.factorization
    assert names["model"].num_timesteps == 80 and names["model"]._n_updates == 30
    assert "price: Normal(0,100); 1 episodes" in capsys.readouterr().out


@pytest.mark.slow
def test_tutorial_finds_what_it_says(capsys):
    """As printed: minutes."""
    names: dict = {}
    for block in blocks("tutorial", {}):
        exec(compile(block, "tutorial.md", "exec"), names)
    assert {"window", "mode"} <= set(names["model"].dynamics.context_variables)
    assert min(result.precision for result in names["results"]) > 0.7
    assert min(result.recall for result in names["results"]) > 0.85
    capsys.readouterr()


@pytest.mark.filterwarnings("ignore:.*is set to None.*:UserWarning")
@pytest.mark.parametrize("page", ["install", "chemical", "neighbours"])
def test_short_examples_run(page, tmp_path, monkeypatch):
    if page == "neighbours":
        pytest.importorskip("minari")
        pytest.importorskip("onnxscript")
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(page, {"n_envs=8": "n_envs=2"}):
        if page == "neighbours" and any(tool in block for tool in ("push_to_hub", "wandb", "mlflow")):
            continue  # tested below, without the tools
        exec(compile(block, f"{page}.md", "exec"), names)
    if page == "chemical":
        for name in ("env", "batch", "processes"):
            names[name].reset()
            names[name].close()
    if page == "neighbours":
        assert names["model"].replay_buffer.size() == 300 and names["model"]._n_updates == 20
        assert sorted(names["slices"].predecessors("room_next")) == ["heater", "room"]


def test_defaults_of_the_settings_are_those_of_the_code():
    sections = re.split(r"^## ", (DOCS / "settings.md").read_text(), flags=re.MULTILINE)
    told = {section.partition("\n")[0]: section for section in sections}
    model_defaults = of_signature(DYNAMICS[DEFAULT_DYNAMICS])
    defaults = {
        "FCDL": of_signature(FCDL),
        "Policy": of_signature(FCDLPolicy),
        "Default model": model_defaults,
        # The policy gives a planner another horizon than its class has.
        "Planner": of_signature(PLANNERS["icem"]) | {"horizon": FCDLPolicy.HORIZON},
    }
    for section, of_code in defaults.items():
        rows = re.findall(r"^\| (`.*?) \| `(.*?)` \|", told[section], flags=re.MULTILINE)
        listed = {name: ast.literal_eval(value) for names, value in rows for name in re.findall(r"`(\w+)`", names)}
        assert listed and {name: of_code[name] for name in listed} == listed
    assert f"the default is `{FCDLPolicy.HORIZON_WITHOUT_VALUE}`" in told["Planner"]
    assert re.findall(r"^\| `(\w+)`", told["Default model"], flags=re.MULTILINE) == list(model_defaults)


def of_signature(made: type) -> dict:
    parameters = inspect.signature(made).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def test_files_and_names_of_the_architecture_exist():
    """Of a file the end of its path is enough; of a name that somewhere something is called so."""
    code = "\n".join(path.read_text() for path in SOURCES)
    code = re.sub(r'"""(.*?)"""', "", code, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", (DOCS / "architecture.md").read_text(), flags=re.DOTALL)
    named = {name.partition("(")[0] for name in re.findall(r"`([^`]+)`", text) if " " not in name}
    paths = {name for name in named if name.endswith((".py", ".md", ".toml", "/"))}
    present = [f"/{path.relative_to(ROOT)}" for path in [*SOURCES, *DOCS.glob("*.md"), ROOT / "pyproject.toml"]]
    assert len(paths) > 20
    missing = [name for name in paths if not any(f"/{name}" in each for each in present)]
    words = {word for name in named - paths for word in re.findall(r"[A-Za-z_]{3,}", name)}
    missing += [word for word in words if not word.startswith("My") and not re.search(rf"\b{word}\b", code)]
    assert missing == []


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"), ROOT / "benchmarks" / "results" / "README.md"]
# Of the README, whose links must be absolute, since package indexes show it, too.
REPOSITORY = re.compile("https://(?:github.com|raw.githubusercontent.com)/sb3-fcdl/sb3_fcdl/(?:blob/)?main/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """To files, also by their address in the repository, and to headings by GitHub's anchors."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        in_repository = REPOSITORY.sub("", target)
        if "://" in in_repository:
            continue
        file, _, anchor = in_repository.partition("#")
        folder = page.parent if in_repository == target else ROOT
        path = (folder / file).resolve() if file else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.name)
def test_every_example_is_on_the_page_of_examples(script):
    assert f"| `{script.name}` |" in (DOCS / "examples.md").read_text()
