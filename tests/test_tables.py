"""The script that turns result files into tables."""

import runpy
import sys
from pathlib import Path

from sb3_fcdl.benchmark import Run, TaskResult, append_csv

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "tables.py"


def test_table_averages_over_seeds(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.csv"
    for seed, mean in enumerate((10.0, 13.0)):
        run = Run("FCDL/Chemical-v0", f"dynamics_seed={seed} rule=full_fork", algo="FCDL", seed=seed, timesteps=10, wall_s=1.0)
        tasks = [TaskResult(task, mean + shift, 0, 25, 0.5, 50, 1.0) for task, shift in (("train", 0), ("n=2", -5))]
        append_csv(path, run, tasks)
    monkeypatch.setattr(sys, "argv", ["tables.py", str(path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert "**FCDL/Chemical-v0 rule=full_fork**, mean return over 2 training seeds" in printed
    assert "| policy | train | n=2 |" in printed
    assert "| FCDL | 11.5 [10.0, 13.0] | 6.5 [5.0, 8.0] |" in printed
