"""Lines of results as a table: rows and columns by what the lines say, a cell for all seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.evaluation.statistics import Estimate, estimate, iqm, mean, probability_of_improvement
from sb3_fcdl.experiments.lines import Line

# What a cell shows of its seeds.
CELLS = ("range", "seeds", "mean", "iqm", "improvement")
# Columns that are the same in all rows of a run.
ALSO: Mapping[str, str] = {"seeds": "seeds", "timesteps": "timesteps", "wall_s": "s"}
# What tells runs apart.
RUN = ("env", "env_kwargs", "algo", "seed")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Layout:
    """
    What a table shows.

    :param rows: what tells its rows apart: names of values of a line
    :param columns: likewise; none: all tasks together, as strata of the statistics
    :param values: what was measured; a name that ends in ``%`` is a share, shown in per cent
    :param cell: ``"range"``: mean [lowest seed, highest seed]; ``"seeds"``: every seed; ``"mean"`` and ``"iqm"`` with their
        95 % stratified bootstrap intervals; ``"improvement"``: the probability of improvement over ``over``
    :param over: the algorithm that others are compared with
    :param where: only lines with these values
    :param labels: what a row, a column or a value is called
    :param order: values of rows that come first, in this order
    :param has_others: whether rows that are not in ``order`` follow
    :param also: further columns: ``"seeds"``, their number; ``"timesteps"`` of the last evaluation; ``"wall_s"``, mean seconds
        of training
    :param digits: after the point
    :param normalize: floor and ceiling, names of algorithms: scores are 0 and 1 there, on each task and seed
    """

    rows: Sequence[str] = ("algo",)
    columns: Sequence[str] = ("task",)
    values: Sequence[str] = ("mean",)
    cell: str = "range"
    over: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[str] = ()
    has_others: bool = True
    also: Sequence[str] = ()
    digits: int = 1
    normalize: tuple[str, str] | None = None


def table(lines: Iterable[Line], layout: Layout) -> str:
    """
    A Markdown table. Where neither rows nor columns tell timesteps apart, a run counts with its last evaluation; where columns
    do, what was not trained is the same in all of them.

    :param lines: of any files
    :param layout: what is shown of them
    :raises ValueError: if there is nothing to show, or the layout asks for what the lines do not have; says what they have
    """
    chosen = select(lines, layout)
    columns = list(dict.fromkeys(_key(line, layout.columns) for line in chosen if _fits(line, layout)))
    if list(layout.columns) == ["timesteps"]:
        columns.sort()
    cells = {value: grouped([line for line in chosen if value.rstrip("%") in line], layout, value) for value in layout.values}
    if layout.cell == "improvement" and not all((layout.over,) in each for each in cells.values()):
        known = dict.fromkeys(", ".join(map(_text, row)) for each in cells.values() for row in each)
        raise ValueError(
            f"an improvement is over one of the rows, {'; '.join(known)}: say which by --over, got {layout.over!r}"
            if len(layout.rows) == 1
            else f"an improvement is over one row: give one name in --rows, got {', '.join(layout.rows)}"
        )
    rows = _ordered(list(dict.fromkeys(_key(line, layout.rows) for line in chosen)), layout)
    corner = [""] if len(layout.rows) == 1 else [_label(name, layout) for name in layout.rows]
    header = [*corner, *(ALSO[name] for name in layout.also if name == "seeds")]
    header += [_title(value, column, layout) for value in layout.values for column in columns]
    header += [ALSO[name] for name in layout.also if name != "seeds"]
    show = _shown(layout)
    body = []
    for row in rows:
        mine = [line for line in chosen if _key(line, layout.rows) == row]
        cells_of_row = [
            show(cells[value].get(row, {}).get(column, {}), cells[value], column, value)
            for value in layout.values
            for column in columns
        ]
        seeds = [str(len({line["seed"] for line in mine}))] if "seeds" in layout.also else []
        body.append([*(_label(part, layout) for part in row), *seeds, *cells_of_row, *_of_runs(mine, layout)])
    return markdown(header, body)


def select(lines: Iterable[Line], layout: Layout) -> list[Line]:
    """
    :param lines: of any files
    :param layout: whose ``where`` they must fulfil
    :return: these; of each run the last evaluation, unless the layout tells timesteps apart
    :raises ValueError: if there is none, or no line has what the layout asks for
    """
    found = list(lines)
    for name in (*layout.rows, *layout.columns, *layout.where, *(value.rstrip("%") for value in layout.values)):
        if not any(name in line for line in found):
            known = dict.fromkeys(key for line in found for key in line)
            raise ValueError(f"no line has {name!r}; the lines have {', '.join(known)}")
    chosen = [line for line in found if all(_text(line.get(key, "")) == value for key, value in layout.where.items())]
    if not layout.has_others:
        chosen = [line for line in chosen if any(_text(part) in layout.order for part in _key(line, layout.rows))]
    if not chosen:
        known = {key: sorted({_text(line.get(key, "")) for line in found}) for key in layout.where}
        raise ValueError(f"no line has {dict(layout.where)}; the lines have {known}")
    if "timesteps" not in (*layout.rows, *layout.columns, *layout.where):
        last: dict[Key, int] = {}
        for line in chosen:
            last[_key(line, RUN)] = max(last.get(_key(line, RUN), 0), line["timesteps"])
        chosen = [line for line in chosen if line["timesteps"] == last[_key(line, RUN)]]
    if layout.normalize is not None:
        # Floor and ceiling need not be among the rows.
        chosen = _normalized(chosen, layout.normalize, found)
    return chosen


# By row, by column, by task: the scores by seed.
Cells = dict[Key, dict[Key, dict[Key, dict[Any, float]]]]


def grouped(lines: Sequence[Line], layout: Layout, value: str) -> Cells:
    """
    :param lines: chosen
    :param layout: that tells rows and columns apart
    :param value: what was measured
    :return: by row, by column, by task, by seed
    :raises ValueError: if a seed has lines in one cell that differ; says in what
    """
    factor = 100 if value.endswith("%") else 1
    name = value.rstrip("%")
    all_columns = list(dict.fromkeys(_key(line, layout.columns) for line in lines if _fits(line, layout)))
    cells: Cells = {}
    taken: dict[tuple[Key, Key, Key, Any], Line] = {}
    for line in sorted(lines, key=lambda line: str(line["seed"]).zfill(9)):
        columns = [_key(line, layout.columns)] if _fits(line, layout) else all_columns
        task = _key(line, [key for key in ("env", "task", "n_true_edges") if key not in (*layout.rows, *layout.columns)])
        for column in columns:
            before = taken.setdefault((_key(line, layout.rows), column, task, line["seed"]), line)
            if _text(before.get(name)) != _text(line[name]) or before.get("env_kwargs") != line.get("env_kwargs"):
                raise ValueError(_several(before, line, name))
            row = cells.setdefault(_key(line, layout.rows), {}).setdefault(column, {})
            row.setdefault(task, {})[line["seed"]] = factor * float(line[name])
    return cells


def _several(before: Line, line: Line, value: str) -> str:
    """What is wrong with two lines for one seed of a cell."""
    words = dict.fromkeys(word.partition("=")[0] for each in (before, line) for word in each.get("env_kwargs", "").split())
    names = [name for name in (*words, "env", "algo", "timesteps") if before.get(name) != line.get(name)]
    where = f"seed {line['seed']} of {line['algo']}, task {line.get('task', '')}, has two lines in one cell of the table"
    if not names:
        return (
            f"{where}, with {value} {before[value]} and {line[value]}, of the same settings: give files that have a run once, "
            "or choose by --where or tell apart by --rows what else differs"
        )
    differ = "; ".join(f"{name} {before.get(name, 'not given')} and {line.get(name, 'not given')}" for name in names)
    return f"{where}, which differ in {differ}: choose by --where {names[0]}=VALUE, or tell them apart by --rows or --columns"


def _fits(line: Line, layout: Layout) -> bool:
    """Whether a line belongs into one column alone."""
    return "timesteps" not in layout.columns or bool(line["timesteps"])


def _shown(layout: Layout) -> Callable[[Mapping[Key, Mapping[Any, float]], Cells, Key, str], str]:
    def show(cell: Mapping[Key, Mapping[Any, float]], cells: Cells, column: Key, value: str) -> str:
        scores = [np.array(list(by_seed.values())) for by_seed in cell.values()]
        if not scores:
            return ""
        values = np.concatenate(scores)
        if np.isnan(values).all():
            return ""
        if layout.cell == "seeds":
            return " / ".join(_digits(each, layout) for each in values)
        if layout.cell == "range":
            return _with_ends(Estimate(float(values.mean()), float(values.min()), float(values.max())), layout)
        if layout.cell == "improvement":
            others = cells[layout.over,].get(column, {})
            same = [task for task in cell if task in others]
            if not same:
                return ""
            ours, theirs = ([np.array(list(each[task].values())) for task in same] for each in (cell, others))
            return _with_ends(probability_of_improvement(ours, theirs), layout)
        return _with_ends(estimate(scores, {"mean": mean, "iqm": iqm}[layout.cell]), layout)

    return show


def _with_ends(found: Estimate, layout: Layout) -> str:
    """One number where the ends are the same as they are shown."""
    value, low, high = (_digits(each, layout) for each in found)
    return value if low == high else f"{value} [{low}, {high}]"


def _digits(value: float, layout: Layout) -> str:
    return f"{value:.{layout.digits}f}"


def _of_runs(lines: Sequence[Line], layout: Layout) -> list[str]:
    """The further columns behind the cells. Of each run the last evaluation counts, which knows all of its seconds."""
    if "wall_s" in layout.also and any("wall_s" not in line for line in lines):
        raise ValueError("some lines have no wall_s, as those of SB3's evaluations.npz: leave wall_s out of --also")
    last = {_key(line, RUN): line for line in sorted(lines, key=lambda line: line["timesteps"])}.values()
    shown = []
    for name in layout.also:
        if name == "wall_s":
            shown.append(f"{sum(float(line['wall_s']) for line in last) / len(last):.0f}")
        elif name == "timesteps":
            shown.append(" / ".join(f"{each:,}" for each in sorted({line["timesteps"] for line in last})))
    return shown


def _ordered(rows: list[Key], layout: Layout) -> list[Key]:
    """The sort keeps the order of the lines for what is not in ``order``."""
    names = list(layout.order)

    def place(row: Key) -> int:
        return next((names.index(_text(part)) for part in row if _text(part) in names), len(names))

    first = list(dict.fromkeys(row[:-1] for row in rows))
    return sorted(rows, key=lambda row: (first.index(row[:-1]), place(row)))


def _title(value: str, column: Key, layout: Layout) -> str:
    """The first value is what the table is about; a column of another one says what it shows."""
    named = [] if value == layout.values[0] and column else [_label(value, layout)]
    return ", ".join([*named, *(_label(part, layout) for part in column)])


def _label(part: Any, layout: Layout) -> str:
    text = f"{part:,}" if isinstance(part, int) else _text(part)
    return layout.labels.get(_text(part), text)


def _normalized(lines: Sequence[Line], normalize: tuple[str, str], everything: Sequence[Line]) -> list[Line]:
    task = ("env", "env_kwargs", "task", "seed")
    known = sorted((line for line in everything if "mean" in line), key=lambda line: line["timesteps"])
    ends = {(line["algo"], _key(line, task)): float(line["mean"]) for line in known if line["algo"] in normalize}
    scaled = []
    for line in [line for line in lines if "mean" in line]:
        try:
            low, high = (ends[name, _key(line, task)] for name in normalize)
        except KeyError:
            raise ValueError(
                f"scores of {line['algo']} cannot be normalized: {' and '.join(normalize)} have no line for the same task and "
                f"seed, {dict(zip(task, _key(line, task), strict=True))}"
            ) from None
        if low == high:
            raise ValueError(
                f"scores cannot be normalized: {' and '.join(normalize)} have the same score, {low}, on "
                f"{dict(zip(task, _key(line, task), strict=True))}: leave it out by --where, or name others in --normalize"
            )
        scaled.append({**line, "mean": (float(line["mean"]) - low) / (high - low)})
    return scaled


def _key(line: Line, names: Sequence[str]) -> Key:
    return tuple(line.get(name, "") for name in names)


def _text(value: Any) -> str:
    return str(value)
