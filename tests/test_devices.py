"""The benchmark of devices: its arithmetic, and a run of it on the CPU."""

import importlib
from pathlib import Path

import pytest
from toy import squeezed


@pytest.fixture
def devices(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    return importlib.import_module("devices")


@pytest.mark.parametrize(
    ("core", "device", "least"),
    [
        ([1, 2, 30, 400], [5, 5, 5, 5], 1000),
        ([9, 2, 30, 400], [5, 5, 5, 5], 1000),
        ([9, 9, 30, 400], [5, 5, 5, 5], 10),
        ([1, 1, 1, 1], [5, 5, 5, 5], None),
        ([9, 9, 9, 1], [5, 5, 5, 5], None),
    ],
)
def test_crossover_is_where_the_device_stays_faster(devices, core, device, least):
    measured = [devices.Timing("plan", *each) for each in zip(devices.ROWS, core, device, strict=True)]
    assert devices.crossover(measured) == least
    assert devices.crossover([devices.Timing("plan", 10, 1.0, None)]) is None


def test_table_says_how_many_times_as_fast_the_device_is(devices):
    rows = [devices.Timing("update", 1000, 30.0, 5.0)]
    assert "| update | 1,000 | 30.00 | 5.00 | 6.00 |" in squeezed(devices.table(rows, "cuda"))
    assert "cuda" not in devices.table([devices.Timing("update", 1000, 30.0, None)], "cuda")


@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler")
def test_a_run_on_the_cpu_counts_what_a_plan_waits_for(devices, monkeypatch, capsys):
    monkeypatch.setattr(devices, "HORIZON", 2)
    monkeypatch.setattr(devices.th, "set_num_threads", lambda n_threads: None)
    devices.main(["--device", "cpu", "--envs", "Pendulum-v1", "--dynamics", "mlp", "--rows", "10", "20", "--seconds", "0"])
    printed = squeezed(capsys.readouterr().out)
    assert all(f"| Pendulum-v1, mlp, {kind} | {n_rows} |" in printed for kind in ("update", "plan") for n_rows in (10, 20))
    assert "Pendulum-v1, mlp: inside a plan the host waits for nothing" in printed
    assert devices.in_words({"aten::nonzero": 3}) == "aten::nonzero 3 times"


def test_without_a_gpu_the_program_says_what_to_do(devices, monkeypatch, capsys):
    monkeypatch.setattr(devices.th.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        devices.main([])
    assert "--device cpu counts" in capsys.readouterr().err
