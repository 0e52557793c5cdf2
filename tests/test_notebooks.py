"""The notebooks of the manual: kept as they were run, from top to bottom; run anew in the slow tests."""

import pathlib
import re

import pytest

nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run(path):
    notebook = nbformat.read(path, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds == {"stream", "display_data"} or kinds == {"stream", "execute_result"}
    assert all(output.name == "stdout" for cell in cells for output in cell.outputs if output.output_type == "stream")
    assert "/home/" not in path.read_text() and "/tmp/" not in path.read_text()
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs) >= 1


def test_there_are_three_and_the_manual_lists_them():
    index = (NOTEBOOKS[0].parent.parent / "index.md").read_text()
    assert len(NOTEBOOKS) == 3 and all(f"\nnotebooks/{path.stem}\n" in index for path in NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_run_shows_what_the_text_says(path, tmp_path):
    """A minute of one core each."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = printed(notebook)
    if path.stem == "quickstart":
        returns = {
            name: float(shifted) for name, shifted in re.findall(r"^(\w+) +[\d.]+ \[.*?\] +([\d.]+) \[", text, re.MULTILINE)
        }
        assert "('obj0', 'action')" in text and returns["FCDL"] > 23 and returns["MLP"] < 20
    elif path.stem == "your_environment":
        assert "('valve',)" in text and re.findall(r"shd +(\d+)", text) == ["0", "0"]
        returns = {
            name: float(shifted) for name, shifted in re.findall(r"^(\w+) +[-\d.]+ \[.*?\] +([-\d.]+) \[", text, re.MULTILINE)
        }
        assert returns["FCDL"] > -80 and returns["MLP"] < -150
    else:
        before, after = map(float, re.findall(r"before: ([\d.]+), after: ([\d.]+)", text)[0])
        assert before < 50 and after > 100
