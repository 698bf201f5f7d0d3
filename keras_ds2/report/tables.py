"""Error rates and confusions in, HTML tables out."""

import html
import math
from collections.abc import Iterable, Sequence

from keras_ds2.report.breakdown import (
    Confusion,
    Group,
    ScoredUtterance,
    confusions,
)
from keras_ds2.scoring import ErrorRate

_NUM_CONFUSIONS = 20
_NONE = '<span aria-label="none">–</span>'


def escape(text: str) -> str:
    """Makes any text safe within HTML, and keeps its direction to itself."""
    return f"<bdi>{html.escape(text)}</bdi>"


def clock(seconds: float) -> str:
    """Formats a duration as hours, minutes and seconds."""
    if math.isnan(seconds):
        return "unknown"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def percent(rate: float, digits: int = 2) -> str:
    """Formats a rate in percent, without the sign."""
    return _NONE if math.isnan(rate) else f"{100 * rate:.{digits}f}"


def interval(rate: ErrorRate) -> str:
    """Formats the ends of an interval in percent."""
    if math.isnan(rate.low):
        return _NONE
    return f"{percent(rate.low, 1)} to {percent(rate.high, 1)}"


def headline(name: str, rate: ErrorRate) -> str:
    """The figure that everybody looks for."""
    return (
        f'<div class="figure"><dt>{name}</dt>'
        f"<dd><strong>{percent(rate.edits.rate)} %</strong>"
        f"<span>95 % interval {interval(rate)}</span></dd></div>"
    )


def overview(group: Group) -> str:
    """A table of the edits of words and characters."""
    rows = []
    for unit, rate in (
        ("Words", group.words),
        ("Characters", group.characters),
    ):
        edits = rate.edits
        cells = [
            _number(edits.units),
            f"{percent(edits.rate)}",
            interval(rate),
            _number(edits.total),
            _number(edits.substitutions),
            _number(edits.deletions),
            _number(edits.insertions),
        ]
        rows.append((unit, [(cell, None) for cell in cells]))
    return _table(
        "All utterances",
        [
            "Unit",
            "In the references",
            "Error rate in\u00a0%",
            "95 % interval",
            "Errors",
            "Substituted",
            "Deleted",
            "Inserted",
        ],
        rows,
    )


def groups(caption: str, name: str, rows: Sequence[Group]) -> str:
    """A table of one line for each group, with a drawing of its interval."""
    # All lines of a table are drawn to one scale.
    ends = [
        end
        for group in rows
        for end in (group.words.high, group.words.edits.rate)
        if math.isfinite(end)
    ]
    scale = max([*ends, 0.01])
    body = []
    for group in rows:
        words, characters = group.words.edits, group.characters.edits
        cells = [
            (percent(words.rate), words.rate),
            (_drawing(group.words, scale), None),
            _sortable(words.substitutions),
            _sortable(words.deletions),
            _sortable(words.insertions),
            (percent(characters.rate), characters.rate),
            (interval(group.characters), None),
            _sortable(group.num_utterances),
            _sortable(words.units),
            (clock(group.seconds), group.seconds),
            (group.words.resampled, None),
        ]
        body.append((escape(group.name), cells))
    return _table(
        caption,
        [
            name,
            "WER\u00a0%",
            "95 % interval of WER",
            "Substituted",
            "Deleted",
            "Inserted",
            "CER\u00a0%",
            "95 % interval of CER",
            "Utterances",
            "Words",
            "Speech, h:mm:ss",
            "Drawn",
        ],
        body,
        sortable=len(rows) > 1,
    )


def all_confusions(unit: str, scored: Iterable[ScoredUtterance]) -> str:
    """Three tables, of substitutions, deletions and insertions.

    Args:
        unit: `"word"` or `"character"`.
        scored: The utterances.
    """
    alignments = [getattr(one, f"{unit}s") for one in scored]
    tables = []
    for kind, name in (
        ("substitute", "substituted"),
        ("delete", "deleted"),
        ("insert", "inserted"),
    ):
        rows, num_all = confusions(alignments, kind, _NUM_CONFUSIONS)
        shown = f"{len(rows)} of {_number(num_all)}"
        caption = f"{unit.capitalize()}s {name} most ({shown})"
        if not rows:
            tables.append(f"<p>No {unit}s were {name}.</p>")
            continue
        heads = {
            "substitute": ["Said", "Heard", "Times", "Of"],
            "delete": ["Said", "Times", "Of"],
            "insert": ["Heard", "Times"],
        }[kind]
        body = [_confusion(kind, row) for row in rows]
        tables.append(_table(caption, heads, body, texts=len(heads) == 4))
    return f'<div class="side-by-side">{"".join(tables)}</div>'


def _confusion(kind: str, row: Confusion):
    count = (_number(row.times), None)
    of = (_number(row.num_said), None)
    if kind == "insert":
        return _unit(row.hypothesis), [count]
    if kind == "delete":
        return _unit(row.reference), [count, of]
    heard = (_unit(row.hypothesis), None)
    return _unit(row.reference), [heard, count, of]


def _unit(text: str) -> str:
    return "<i>space</i>" if text == " " else escape(text)


def _number(value: int) -> str:
    return f"{value:,}"


def _sortable(value: int) -> tuple[str, float]:
    return _number(value), value


def _drawing(rate: ErrorRate, scale: float) -> str:
    if math.isnan(rate.low):
        return interval(rate)
    low, high, at = (
        f"{100 * end / scale:.1f}%"
        for end in (rate.low, rate.high, rate.edits.rate)
    )
    style = f"--low:{low};--high:{high};--at:{at}"
    return (
        f'<span class="interval"><span class="drawing" style="{style}"></span>'
        f"{interval(rate)}</span>"
    )


def _table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[tuple[str, Sequence[tuple[str, float | None]]]],
    sortable: bool = False,
    texts: bool = False,
) -> str:
    """Builds a table that scrolls within itself on narrow screens.

    Args:
        caption: What it shows; also the name of the region that scrolls.
        heads: Of the columns.
        rows: For each the HTML of its head, and of its cells with the value
            to sort by, if that is not the text.
        sortable: Whether the script offers to sort it.
        texts: Whether the first cell is a text, not a number.
    """
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = []
    for name, cells in rows:
        columns = [f'<th scope="row">{name}</th>']
        for index, (cell, value) in enumerate(cells):
            attributes = "" if value is None else f' data-value="{value:.9g}"'
            if texts and index == 0:
                attributes += ' class="text"'
            columns.append(f"<td{attributes}>{cell}</td>")
        body.append(f"<tr>{''.join(columns)}</tr>\n")
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" '
        f'aria-label="{html.escape(caption)}">\n'
        f"<table{kind}><caption>{html.escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(body)}</tbody></table></div>\n"
    )
