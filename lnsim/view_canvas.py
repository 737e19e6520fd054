"""A drawing surface of terminal cells: text, and curves in dots of a quarter of a cell's height."""

from collections.abc import Iterator

from rich.style import Style
from rich.text import Text

BRAILLE = 0x2800
# the bit of each dot in a cell two dots wide and four high (Unicode's braille patterns)
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

Point = tuple[float, float]  # in cells, from the upper left corner


class Canvas:
    """Later drawing covers earlier; text covers dots."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._dots: dict[tuple[int, int], tuple[int, Style]] = {}
        self._text: dict[tuple[int, int], tuple[str, Style]] = {}

    def dot(self, point: Point, style: Style) -> None:
        column, row = round(point[0] * 2), round(point[1] * 4)
        cell = (column // 2, row // 4)
        bits, _ = self._dots.get(cell, (0, style))
        self._dots[cell] = (bits | DOTS[row % 4][column % 2], style)

    def curve(self, points: list[Point], style: Style) -> None:
        for point in points:
            self.dot(point, style)

    def text(self, x: int, y: int, text: str, style: Style) -> None:
        for offset, character in enumerate(text):
            self._text[x + offset, y] = (character, style)

    def box(self, x: int, y: int, width: int, lines: list[tuple[str, Style]], style: Style) -> None:
        """A rounded frame around centred lines."""
        inner = width - 2
        self.text(x, y, f"╭{'─' * inner}╮", style)
        for row, (line, line_style) in enumerate(lines, start=1):
            self.text(x, y + row, f"│{' ' * inner}│", style)
            self.text(x + 1, y + row, line[:inner].center(inner), line_style)
        self.text(x, y + len(lines) + 1, f"╰{'─' * inner}╯", style)

    def lines(self) -> Iterator[Text]:
        for y in range(self.height):
            line = Text(no_wrap=True, end="")
            for x in range(self.width):
                line.append(*self._cell(x, y))
            yield line

    def _cell(self, x: int, y: int) -> tuple[str, Style]:
        if cell := self._text.get((x, y)):
            return cell
        if dots := self._dots.get((x, y)):
            return chr(BRAILLE + dots[0]), dots[1]
        return " ", Style.null()


def s_curve(begin: Point, end: Point) -> list[Point]:
    """From left to right, level at both ends: points close enough for every dot."""
    steps = int(2 * abs(end[0] - begin[0]) + 4 * abs(end[1] - begin[1])) + 1
    points = []
    for step in range(steps + 1):
        t = step / steps
        bend = t * t * (3 - 2 * t)
        points.append((begin[0] + (end[0] - begin[0]) * t, begin[1] + (end[1] - begin[1]) * bend))
    return points
