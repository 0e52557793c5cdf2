"""What Chemical draws and writes."""

import numpy as np

from fcdl_envs.chemical import ChemicalEnv, ChemicalVectorEnv

NOISY_TEST = {"task": "test", "n_noisy": 4}


def test_picture_shows_colors_goals_and_the_match_set():
    env = ChemicalEnv(render_mode="rgb_array", **NOISY_TEST)
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (480, 480, 3)
    assert picture.dtype == np.uint8
    state = env.get_state()
    # a point of every object's disc and ring, between its rim, the white gap and its number
    angles = 2 * np.pi * np.arange(10) / 10
    centers = 240 + 0.39 * 480 * np.stack([-np.cos(angles), np.sin(angles)])
    rows, columns = centers.round().astype(int)
    discs, rings = picture[rows + 22, columns].astype(int), picture[rows, columns + 36].astype(int)
    shades = {int(color): tuple(discs[node]) for node, color in enumerate(state["colors"]) if node in (0, 5, 6, 7, 8, 9)}
    assert len(set(shades.values())) == len(shades)
    for node in (0, 5, 6, 7, 8, 9):
        assert tuple(discs[node]) == shades[int(state["colors"][node])]
        if int(state["goal"][node]) in shades:
            assert tuple(rings[node]) == shades[int(state["goal"][node])]
    for node in (1, 2, 3, 4):
        assert discs[node].min() > 180


def test_text_lists_colors_goals_and_parents():
    env = ChemicalEnv(render_mode="ansi", **NOISY_TEST)
    env.reset(seed=1)
    colors = env.get_state()["colors"].tolist()
    lines = env.render().splitlines()
    assert len(lines) == 11
    assert lines[1].split() == ["0", "0", "0", "*"]
    assert lines[3].split() == ["2", str(colors[2]), "-", "0"]
    assert lines[10].split() == ["9", str(colors[9]), str((colors[9] + 1) % 5), "0"]
    env.step(2)
    assert env.render().splitlines()[4].split()[-3:] == ["0", "1", "2"]


def test_batch_renders_every_environment():
    assert ChemicalVectorEnv(2).render() is None
    env = ChemicalVectorEnv(2, render_mode="ansi")
    env.reset(seed=[0, 1])
    single = ChemicalEnv(render_mode="ansi")
    single.reset(seed=1)
    assert env.render()[1] == single.render()
