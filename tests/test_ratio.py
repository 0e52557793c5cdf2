"""The comparison of two commits in one run, with stand-ins for the processes that measure."""

import importlib
import subprocess
from pathlib import Path

import pytest
from toy import squeezed

ROOT = Path(__file__).parent.parent

# Speaks as ratio_worker.py does. Each call takes one second more than the last; "twice" takes twice as long in the old tree.
STAND_IN = """
import sys
old = sys.argv[1].endswith("tree")
print('["same", "twice", "gone"]' if old else '["same", "twice", "new"]', flush=True)
for count, line in enumerate(sys.stdin, 1):
    print(count * (2 if old and line.strip() == "twice" else 1), flush=True)
"""


@pytest.fixture
def ratio(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("ratio")


@pytest.fixture
def stand_in(ratio, monkeypatch, tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "ratio_worker.py").write_text(STAND_IN)
    monkeypatch.setattr(ratio, "HERE", folder)
    monkeypatch.setattr(ratio, "check_out", lambda commit, folder: folder / "tree")


def test_ratio_is_the_median_of_the_pairs(ratio):
    """Not that of the medians, 3 / 2: a machine that gets slow between two pairs slows both of a pair."""
    assert ratio.Comparison("plan", before=[2.0, 3.0, 9.0], now=[1.0, 3.0, 2.0]).ratio == 2.0


def test_only_what_both_commits_have_is_compared(ratio, stand_in, capsys):
    ratio.main(["--rounds", "3"])
    printed = capsys.readouterr()
    assert "| same | 3000.00 | 3000.00 | 1.00 |" in squeezed(printed.out)
    assert "| twice | 14000.00 | 7000.00 | 2.00 |" in squeezed(printed.out)
    assert "gone" not in printed.out and "no 'new'" in printed.err


def test_a_slower_commit_fails(ratio, stand_in, capsys):
    ratio.main(["--rounds", "1", "--fail-below", "0.7"])
    with pytest.raises(SystemExit) as ended:
        ratio.main(["--rounds", "1", "--fail-below", "1.5"])
    assert ended.value.code == 1 and capsys.readouterr().err.endswith("Slower than 1.5 of what they were: same\n")


def test_each_pair_changes_its_order(ratio):
    asked = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def quantities(self):
            return ["plan"]

        def time(self, quantity):
            asked.append(self.name)
            return 1.0

    (comparison,) = ratio.compare(Recorder("before"), Recorder("now"), n_rounds=3)
    assert asked == ["now", "before", "before", "now"] * 2 and len(comparison.before) == len(comparison.now) == 3


def test_a_process_that_ends_early_is_an_error(ratio, stand_in):
    (ratio.HERE / "ratio_worker.py").write_text("")
    with pytest.raises(RuntimeError, match="ended early"):
        ratio.main([])


def test_files_are_those_of_the_commit(ratio, tmp_path):
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git repository")
    tree = ratio.check_out("HEAD", tmp_path)
    listed = subprocess.run(["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()} == set(listed.stdout.splitlines())
    with pytest.raises(subprocess.CalledProcessError):
        ratio.check_out("no_such_commit", tmp_path)


def test_worker_times_this_tree(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    worker = importlib.import_module("ratio_worker")
    calls = worker.planner_calls()
    assert {name.split(", ")[2] for name in calls} == {"cem", "icem", "mppi"}
    assert all(worker.seconds_of(call) > 0 for call in calls.values())
    monkeypatch.setattr(worker, "chemical_calls", lambda dynamics: worker.missing)
    monkeypatch.setattr(worker, "numbers_calls", lambda: {})
    assert calls.keys() <= worker.all_calls().keys(), "what cannot be measured is left out"
