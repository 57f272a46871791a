"""Pieces of a self-contained page: every text escaped, no script, no link.

Each function returns HTML and escapes what it is given, unless it says so.
"""

import base64
from collections.abc import Sequence
import html
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #5f6973;
  --line: #d5dae0; --page: #ffffff; --card: #f5f7f9; --bad: #b34700;
  --bad-page: #fff1e6; --good: #00608f; --good-page: #e9f4fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec;
  --muted: #9aa4ae; --line: #3a424b; --page: #14181c; --card: #1d2329;
  --bad: #ff9d57; --bad-page: #38210f;
  --good: #7cc4ec; --good-page: #10293a; } }
* { box-sizing: border-box; }
body { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem;
  font: 16px/1.5 system-ui, 'DejaVu Sans', sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul, dl { margin: .5rem 0; }
.verdict { padding: .8rem 1rem; margin: 1rem 0; border-left: .35rem solid; }
.bad { border-color: var(--bad); background: var(--bad-page); }
.good { border-color: var(--good); background: var(--good-page); }
.wrong, .verdict.bad strong { color: var(--bad); }
.facts { display: grid; grid-template-columns: max-content 1fr;
  gap: .15rem 1rem; }
.facts dt { color: var(--muted); } .facts dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; }
th:first-child, td:first-child, .text { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: anywhere;
  min-width: 8rem; }
td.reason { white-space: normal; min-width: 12rem; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; padding: .5rem;
  background: #ffffff; border: 1px solid var(--line); border-radius: .4rem; }
figcaption, .note { color: var(--muted); font-size: .88rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: flex-start; }
.pair figure { flex: 1 1 24rem; max-width: max-content; }
details { margin: .8rem 0; } summary { cursor: pointer; }
.tree { font-size: .85rem; } .tree ul { margin: 0; padding-left: 1.2rem; }
.tree li { overflow-wrap: anywhere; }
@media print { body { max-width: none; font-size: 10.5pt; padding: 0; }
  section { break-before: page; } figure, tr { break-inside: avoid; }
  th, td.text { white-space: normal; } th, td { padding: .2rem .35rem; }
  .scroll { overflow: visible; } table { font-size: .75rem; }
  h2, h3 { break-after: avoid; } .pair figure { flex-basis: 40%; } }
"""


def document(title: str, body: str) -> str:
  """Returns a whole page; the body is HTML already."""
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{text(title)}</title><style>{_STYLE}</style></head>\n'
    f'<body>\n{body}</body></html>\n'
  )


def text(value: Any) -> str:
  """Returns a value as escaped text, safe in elements and attributes."""
  return html.escape(str(value))


def cell(value: Any, kind: str = '') -> str:
  """Returns a cell of a table; `kind` holds names of the style sheet."""
  attribute = f' class="{kind}"' if kind else ''
  return f'<td{attribute}>{text(value)}</td>'


def table(
  head: Sequence[str],
  rows: Sequence[Sequence[str]],
  text_columns: Sequence[str] = (),
) -> str:
  """Returns a table of headings, escaped here, and of rows of `cell`s."""
  names = ''.join(
    f'<th class="{"text" if name in text_columns else "number"}">'
    f'{text(name)}</th>' for name in head
  )
  lines = ''.join(f'<tr>{"".join(row)}</tr>\n' for row in rows)
  return (
    f'<div class="scroll"><table>\n<thead><tr>{names}</tr></thead>\n'
    f'<tbody>\n{lines}</tbody></table></div>\n'
  )


def picture(png: bytes, alternative: str, caption: str) -> str:
  """Returns a figure with the picture itself inside."""
  encoded = base64.b64encode(png).decode('ascii')
  return (
    f'<figure><img alt="{text(alternative)}" '
    f'src="data:image/png;base64,{encoded}">'
    f'<figcaption>{text(caption)}</figcaption></figure>\n'
  )


def tree(value: Any) -> str:
  """Returns nested mappings and sequences as nested lists."""
  if hasattr(value, 'items'):
    items = (
      f'<li><b>{text(name)}</b>: {tree(entry)}</li>\n'
      for name, entry in value.items()
    )
    return f'<ul>\n{"".join(items)}</ul>\n'
  if isinstance(value, list | tuple):
    return ', '.join(tree(entry) for entry in value)
  return text(value)
