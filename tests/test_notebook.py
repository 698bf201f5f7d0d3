"""Oracle: the notebook as it is stored, with what it printed when it ran."""

import os
import pathlib
import re

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    return "".join(
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def last_wer(notebook):
    return printed(notebook).split("train-clips: WER ")[-1].partition("%")[0]


def check(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [
        number + 1 for number in range(len(cells))
    ]
    kinds = {
        kind
        for cell in cells
        for output in cell.outputs
        for kind in output.get("data", {})
    }
    assert "image/png" in kinds
    # What README prints, and at the end six clips by heart.
    readme = (ROOT / "README.md").read_text()
    heard = re.search("^heard: (if he only.*)", printed(notebook), re.M)[1]
    assert f"\n{heard}\n```" in readme
    assert printed(notebook).count("train-clips: WER") == 2
    assert float(last_wer(notebook)) < 10


def test_the_stored_notebook_has_run():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    check(notebook)
    page = (ROOT / "docs" / "verification.md").read_text()
    assert f"nearly by heart, WER {last_wer(notebook)} %" in page
    # No path of the machine that it ran on, and no warnings.
    told = "".join(
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert not re.search(r"(?<![\w.])/\w|[Ww]arning", told)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    )
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    nbclient.NotebookClient(
        notebook,
        timeout=1200,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    check(notebook)
