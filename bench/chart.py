"""A picture of a run: Offhook beside its peers, as one SVG that is read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

WIDTH = 760
LABELS = 190
"""Left of the bars."""
VALUES = 150
"""Right of the longest bar."""
BAR, GAP, HEAD, MARGIN = 18, 6, 34, 16
OURS = "Offhook"

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; }
.quiet { fill: #59636e; }
.bar { fill: #9aa4b0; }
.ours { fill: #0b6bcb; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .bar { fill: #59636e; }
  .ours { fill: #4493f8; }
}
"""

Groups = Mapping[str, Mapping[str, float]]
"""By what was measured and in which unit, such as "ingest, requests/s": how much each system did of it."""


def svg(groups: Groups) -> str:
    """One group of bars for each measurement. The longest bar of each is as long; beside it, how many times Offhook's.

    Raises KeyError where Offhook is not in a group.
    """
    pieces = list(_groups(groups))
    height = sum(HEAD + len(group) * (BAR + GAP) for group in groups.values()) + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
            f' width="{WIDTH}" height="{height}">',
            f"<title>{escape(_summary(groups))}</title>",
            f"<style>{STYLE}</style>",
            *pieces,
            "</svg>\n",
        ]
    )


def _groups(groups: Groups) -> Iterator[str]:
    y = MARGIN
    for title, group in groups.items():
        y += HEAD
        yield _text(MARGIN, y - GAP - 4, title, "head")
        for name, value in group.items():
            yield from _bar(y, name, value, max(group.values()), value / group[OURS])
            y += BAR + GAP


def _bar(y: int, name: str, value: float, longest: float, ratio: float) -> Iterator[str]:
    length = max(1.0, (WIDTH - LABELS - VALUES) * value / longest)
    middle = y + BAR - 5
    yield _text(MARGIN, middle, name)
    kind = "bar ours" if name == OURS else "bar"
    yield f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3"/>'
    yield _text(
        LABELS + length + 8, middle, f"{value:,.0f}" if name == OURS else f"{value:,.0f} ({ratio:.2g} times)", "quiet"
    )


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def _summary(groups: Groups) -> str:
    return "; ".join(
        f"{title}: " + ", ".join(f"{name} {value / group[OURS]:.2g}" for name, value in group.items())
        for title, group in groups.items()
    )
