"""Grouped bars as SVG text, readable on light and on dark pages."""

from dataclasses import dataclass
from html import escape

WIDTH, LABELS, BARS = 600, 256, 270
ROW, GROUP, HEADING = 18, 26, 44
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 } .group { font-weight: 600 }
.peer { fill: #8c959f } .product { fill: #0a7d55 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .peer { fill: #6e7681 } .product { fill: #3fb98a }
}
"""


@dataclass(frozen=True)
class Panel:
    """A heading over groups of bars: name of the group to (label, value) of its bars; one scale for the panel."""

    title: str
    groups: dict[str, list[tuple[str, float]]]
    unit: str

    @property
    def height(self) -> int:
        return HEADING + sum(GROUP + ROW * len(bars) for bars in self.groups.values())


def draw(title: str, panels: list[Panel], accent: str) -> str:
    """All panels, two side by side; bars whose label starts with `accent` stand out."""
    lines, top = [f'<text x="12" y="24" class="title">{escape(title)}</text>'], 32
    columns = min(2, len(panels))
    for start in range(0, len(panels), 2):
        pair = panels[start : start + 2]
        for place, panel in enumerate(pair):
            lines.append(f'<g transform="translate({place * WIDTH} {top})">{_panel(panel, accent)}</g>')
        top += max(panel.height for panel in pair)
    size = f'viewBox="0 0 {columns * WIDTH} {top + 12}" width="{columns * WIDTH}" height="{top + 12}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def _panel(panel: Panel, accent: str) -> str:
    largest = max((value for bars in panel.groups.values() for _, value in bars), default=1) or 1
    lines, y = [f'<text x="12" y="24" class="title">{escape(panel.title)}</text>'], HEADING
    for name, bars in panel.groups.items():
        lines.append(f'<text x="12" y="{y + 12}" class="group">{escape(name)}</text>')
        y += GROUP - 6
        for label, value in bars:
            kind, width = "product" if label.startswith(accent) else "peer", max(1, BARS * value / largest)
            lines.append(f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>')
            lines.append(f'<rect x="{LABELS}" y="{y + 2}" width="{width:.1f}" height="{ROW - 5}" class="{kind}"/>')
            lines.append(f'<text x="{LABELS + width + 6:.1f}" y="{y + 12}">{value:.3g}{escape(panel.unit)}</text>')
            y += ROW
        y += 6
    return "\n".join(lines)
