"""Experiment files, and the runs that they make."""

from pathlib import Path

import pytest

from sb3_fcdl.experiments.experiment import read_experiment

FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "experiments").glob("*.toml"))
EVERYTHING = """
seeds = [0, 3]
presets = ["default", "paper"]
timesteps = 200
episodes = 5

[environments.fork]
env = "FCDL/Chemical-v0"
[environments.magnetic]
env = "FCDL/Magnetic-v0"
timesteps = 100
evaluate_at = [50]

[models.FCDL]
[models.MLP]
dynamics = "mlp"
presets = ["default"]
environments = ["fork"]
[models.PPO]
algorithm = "PPO"
kwargs = { gamma = 1.0 }
"""


def runs_of(tmp_path, text):
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    return read_experiment(path)


def test_runs_are_the_product(tmp_path):
    runs = runs_of(tmp_path, EVERYTHING)
    names = [
        "fork_references_seed{}",
        "fork_FCDL_seed{}",
        "fork_FCDL_paper_seed{}",
        "fork_MLP_seed{}",
        "fork_PPO_seed{}",
        "magnetic_references_seed{}",
        "magnetic_FCDL_seed{}",
        "magnetic_FCDL_paper_seed{}",
        "magnetic_PPO_seed{}",
    ]
    assert [run.name for run in runs] == [name.format(seed) for seed in (0, 3) for name in names]
    by_name = {run.name: run for run in runs}
    paper = by_name["fork_FCDL_paper_seed3"]
    assert (paper.algo, paper.preset, paper.algorithm, paper.episodes) == ("FCDL, paper", "paper", "FCDL", 5)
    # The benchmark gives every seed a system of its own.
    assert paper.env_kwargs == {"rule": "full_fork", "dynamics_seed": 3}
    assert paper.row.env_kwargs == "dynamics_seed=3 rule=full_fork"
    assert [run.timesteps for run in runs[:9]] == [0, 200, 200, 200, 200, 0, 100, 100, 100]
    assert [run.evaluate_at for run in runs[4:7]] == [(), (), (50,)]
    assert by_name["magnetic_PPO_seed0"].model == {"gamma": 1.0}


EVALUATED = """
[environments.fork]
env = "FCDL/Chemical-v0"
env_kwargs = { rule = "full_fork", n_objects = 6 }
[models.FCDL]
[evaluations.color]
noise = "color"
"""


def test_every_run_has_the_evaluations(tmp_path):
    runs = runs_of(tmp_path, EVALUATED)
    assert [run.evaluations for run in runs] == [{"color": {"noise": "color"}}] * 2
    expected = {"rule": "full_fork", "n_objects": 6, "dynamics_seed": 0, "noise": "color"}
    assert runs[1].evaluated("color").env_kwargs == expected
    assert runs[1].evaluated("") == runs[1] and "evaluations" not in runs[1].settings


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("noise =", "n_nosy =", r"\[evaluations.color\]: FCDL/Chemical-v0 cannot be made with n_nosy='color': .*n_nosy"),
        ('"color"', '"colour"', r"FCDL/Chemical-v0 cannot be made with noise='colour': .*; noise must be one of"),
        ('[evaluations.color]\nnoise = "color"', "[evaluations]\ncolor = 6", r"\[evaluations.color\] must be a table"),
        ("[evaluations.color]", "[evaluations.accuracy]", "needs another name: contexts, transitions, accuracy at its end"),
        ("[evaluations.color]", "[evaluations.color_contexts]", "needs another name: contexts, transitions, accuracy"),
        ("[evaluations.color]", '[evaluations."a/b"]', "needs another name, of letters"),
    ],
)
def test_evaluations_are_tried_before_anything_is_trained(tmp_path, old, new, said):
    assert old in EVALUATED
    with pytest.raises((ValueError, TypeError), match=said):
        runs_of(tmp_path, EVALUATED.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [0, 3]", "seed = 0", "unknown key 'seed', allowed: seeds"),
        ("seeds = [0, 3]", "seeds = 3", "seeds must be a list"),
        ("seeds = [0, 3]", "seeds = [0, 0]", "cannot be told apart"),
        ("timesteps = 200", "timesteps = 205", "multiple of the 10 transitions"),
        ("timesteps = 200", "timesteps = 2e3", "whole number, got 2000.0"),
        ("evaluate_at = [50]", "evaluate_at = [55]", "multiples of its 10 environments"),
        ("evaluate_at = [50]", "evaluate_at = [100]", "at which the run is evaluated anyway, got 100"),
        ('env = "FCDL/Magnetic-v0"', "", r"\[environments.magnetic\] has no env"),
        ('dynamics = "mlp"', 'dynamics = "mpl"', "no dynamics 'mpl', only"),
        ('"default", "paper"', '"papers"', "unknown preset 'papers'"),
        ('environments = ["fork"]', 'environments = ["chain"]', "no environment 'chain', only fork, magnetic"),
        ('algorithm = "PPO"', 'algorithm = "PPO"\ndynamics = "mlp"', "dynamics are of FCDL alone"),
        ("{ gamma = 1.0 }", "1", "kwargs of .* must be a table"),
        ("[models.FCDL]", "[models.FCDL", "is no TOML file"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, old, new, said):
    assert old in EVERYTHING
    with pytest.raises((ValueError, TypeError), match=said) as raised:
        runs_of(tmp_path, EVERYTHING.replace(old, new, 1))
    assert str(tmp_path / "experiment.toml") in str(raised.value)


def test_a_file_without_models_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"there are no models: give at least one as \[models.NAME\]"):
        runs_of(tmp_path, '[environments.fork]\nenv = "FCDL/Chemical-v0"\n')


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_files_can_be_read(path):
    runs = read_experiment(path)
    assert len({run.name for run in runs}) == len(runs) >= 8
