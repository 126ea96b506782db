"""The report as one HTML page that stands alone: the images are inside it, nothing is fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from eyas.evaluation.coco import MEANINGS, METRICS, CocoResult
from eyas.evaluation.tables import CLASS_COLUMNS, cell

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #f4f6f8; margin: 0; }
main { max-width: 1100px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0 4px; } h2 { font-size: 19px; margin: 36px 0 10px; }
section, .numbers div { background: #fff; border: 1px solid #dfe4ea; border-radius: 8px; }
section { padding: 16px 18px; overflow-x: auto; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 10px; }
.numbers div { padding: 10px 12px; } .numbers b { display: block; font-size: 22px; }
.numbers div:first-child b { color: #1b5fa8; }
.numbers small, .quiet { color: #66727f; } .numbers small { line-height: 1.3; display: block; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0; }
dt { color: #66727f; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #e9edf1; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: #66727f; font-weight: 600; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.warning { background: #fff4e5; border-color: #f0c48a; margin-top: 12px; }
"""


def html_page(
    title: str,
    facts: Mapping[str, str],
    result: CocoResult,
    rows: Sequence[Mapping[str, object]],
    warnings: Sequence[str],
    images: Sequence[tuple[str, str, Path]],
) -> str:
    """Return the page's text.

    Args:
        title: its heading.
        facts: what was evaluated on what, shown as a list.
        result: the numbers.
        rows: the table of classes, each row by `CLASS_COLUMNS`.
        warnings: sentences that must be read with the numbers.
        images: (heading, explanation, PNG file) of each chart.
    """
    numbers = "".join(
        f"<div><small>{escape(name)}</small><b>{cell(result.metrics[name])}</b><small>{escape(meaning)}</small></div>"
        for name, meaning in zip(METRICS, MEANINGS, strict=True)
    )
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    warned = "".join(f'<section class="warning">{escape(line)}</section>' for line in warnings)
    charts = "".join(
        f'<h2>{escape(heading)}</h2><section><p class="quiet">{escape(text)}</p>'
        f'<img alt="{escape(heading)}" src="{_inline(path)}"></section>'
        for heading, text, path in images
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><main><h1>{escape(title)}</h1><dl>{listed}</dl>{warned}\n"
        f'<h2>COCO metrics</h2><div class="numbers">{numbers}</div>\n'
        f"<h2>Classes</h2><section>{_table(rows)}</section>\n"
        f"{charts}\n"
        '<p class="quiet">Other files: metrics.json (all metrics), per_class.csv, detections.json (COCO results).'
        "</p></main></body></html>\n"
    )


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in CLASS_COLUMNS.values())
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(row[name]))}</td>" for name in CLASS_COLUMNS) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
