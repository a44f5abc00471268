"""The few elements of SVG that the charts are made of."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

INK, FAINT = "#222222", "#d5d5d5"
FONT = "font-family='sans-serif' font-size='12'"


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """The whole file, on white."""
    size = f"width='{width}' height='{height}'"
    head = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} viewBox='0 0 {width} {height}' {FONT}>",
        f"<rect {size} fill='white'/>",
        f"<text x='16' y='22' font-size='15' fill='{INK}'>{escape(title)}</text>",
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str, colour: str = INK) -> str:
    """Words at a point; `anchor` is start, middle or end."""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}'>{escape(words)}</text>"


def upright(x: float, top: float, bottom: float, colour: str, width: int = 1) -> str:
    """An upright line."""
    return f"<line x1='{x:.1f}' y1='{top}' x2='{x:.1f}' y2='{bottom}' stroke='{colour}' stroke-width='{width}'/>"


def level(left: float, right: float, y: float, colour: str) -> str:
    """A level line."""
    return f"<line x1='{left}' y1='{y:.1f}' x2='{right}' y2='{y:.1f}' stroke='{colour}'/>"


def curve(points: Iterable[tuple[float, float]], colour: str) -> list[str]:
    """A line through points, each marked."""
    points = list(points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in points]
    return [f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>", *marks]
