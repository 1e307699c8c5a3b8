"""A picture of firmware/minipsec as a house: its folders are rooms, and an arrow is an import.

Made from the sources' imports (ast), for `make docs`.  A room stands above all rooms that it
imports, so arrows lead down.  The same sources make the same picture.
"""

import textwrap

FONT_WIDTH = 6.6  # of a letter of 12 points, on average
LINE, PAD, GAP, FLOOR = 15, 9, 26, 52
WIDEST = 22  # letters of a line in a room


def rooms(imports):
    """Return ({room: [its modules]}, {(room, room): is it loaded late}) of {module: (first, late)}.

    A room is a folder, or a module that lies in none.  An arrow that others imply is left out.
    """
    inside = {}
    for name in sorted(imports):
        room, _, module = name.partition("/")
        inside.setdefault(room, []).extend([module] if module not in ("", "__init__") else [])
    kinds = ({}, {})
    for name, found in sorted(imports.items()):
        room = name.partition("/")[0]
        for kind, targets in zip(kinds, found, strict=True):
            ends = {target.partition("/")[0] for target in targets} - {room}
            kind.setdefault(room, set()).update(ends)
    first, late = kinds
    arrows = {}
    for room, ends in first.items():
        for end in sorted(ends):
            others = ends - {end}
            if not any(end in below(first, other) for other in others):
                arrows[room, end] = False
    for room, ends in late.items():
        for end in sorted(ends - below(first, room)):
            arrows[room, end] = True
    return inside, arrows


def below(graph, room):
    """Return every room that one leads to, over any number of arrows."""
    seen, left = set(), [room]
    while left:
        for end in graph.get(left.pop(), ()):
            if end not in seen:
                seen.add(end)
                left.append(end)
    return seen


def downwards(arrows):
    """Return (arrows that can all lead down, late ones that would close a circle).

    A late one that others imply is in neither.
    """
    graph, down, up = {}, [], []
    for arrow in sorted(arrows, key=lambda arrow: (arrows[arrow], arrow)):
        start, end = arrow
        if start in below(graph, end) or start == end:
            up.append(arrow)
        else:
            graph.setdefault(start, set()).add(end)
            down.append(arrow)
    for start, end in [arrow for arrow in down if arrows[arrow]]:
        if any(end in below(graph, other) for other in graph[start] - {end}):
            graph[start].remove(end)
    return [(start, end) for start, end in down if end in graph[start]], up


def floors(names, down):
    """Return {room: its floor}: 0 is the ground, every arrow leads to a lower one."""
    graph = {}
    for start, end in down:
        graph.setdefault(start, set()).add(end)
    level = {}

    def find(name):
        if name not in level:
            level[name] = 1 + max([find(end) for end in sorted(graph.get(name, ()))], default=-1)
        return level[name]

    for name in names:
        find(name)
    return level


def ordered(names, down, level):
    """Return (rows of places, top floor first; the ways of arrows over them, by arrow).

    A place is a room's name, or (arrow, floor) where an arrow passes a floor.  Places of a row
    are sorted by where their neighbours stand, a few times down and up.
    """
    rows = [[] for _ in range(max(level.values()) + 1)]
    for name in names:
        rows[level[name]].append(name)
    ways = {}
    for start, end in down:
        way = [start]
        for floor in range(level[start] - 1, level[end], -1):
            way.append(((start, end), floor))
            rows[floor].append(way[-1])
        ways[start, end] = [*way, end]
    neighbours = {}
    for way in ways.values():
        for a, b in zip(way, way[1:], strict=False):
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
    for turn in range(24):
        order = range(len(rows)) if turn % 2 else range(len(rows) - 1, -1, -1)
        for n in order:
            at = {place: (k + 0.5) / len(row) for row in rows for k, place in enumerate(row)}
            rows[n].sort(key=lambda place: _middle(at, neighbours.get(place, [place])))
    return rows[::-1], ways


def _middle(at, places):
    return sum(at[place] for place in places) / len(places)


def _lines(room, modules):
    return [room, *textwrap.wrap(", ".join(modules), WIDEST)]


def picture(imports, drawing):
    """Return the SVG; `drawing(width, height, title)` makes what is drawn on."""
    inside, arrows = rooms(imports)
    down, up = downwards(arrows)
    rows, ways = ordered(list(inside), down, floors(list(inside), down))
    texts = {room: _lines(room, modules) for room, modules in inside.items()}

    def size(place):
        if place not in texts:
            return 10, 0
        lines = texts[place]
        return max(map(len, lines)) * FONT_WIDTH + 2 * PAD, len(lines) * LINE + PAD

    widths = [sum(size(place)[0] + GAP for place in row) - GAP for row in rows]
    width = max(widths) + 40
    places, y = {}, 20
    for row, taken in zip(rows, widths, strict=True):
        x, height = (width - taken) / 2, max(size(place)[1] for place in row)
        for place in row:
            w, h = size(place)
            h = h or height  # an arrow passes a floor straight down
            places[place] = (x, y + (height - h) / 2, w, h)
            x += w + GAP
        y += height + FLOOR
    words = [
        "Solid: loaded together. Dashed: loaded when it is needed. Implied arrows are left out."
    ]
    if up:
        named = ", ".join(f"{start} to {end}" for start, end in up)
        words += textwrap.wrap(
            f"Loaded when needed, and not drawn, since they lead up: {named}.", 110
        )
    d = drawing(round(width), round(y + LINE * len(words)), "The rooms of firmware/minipsec")
    for arrow, way in ways.items():
        points = []
        for n, place in enumerate(way):
            x, top, w, h = places[place]
            if n:
                points.append((round(x + w / 2, 1), round(top - (n == len(way) - 1), 1)))
            if n < len(way) - 1:
                points.append((round(x + w / 2, 1), round(top + h, 1)))
        d.arrow(*points, dash="5 4" if arrows[arrow] else None)
    for room, lines in texts.items():
        x, top, w, h = (round(value, 1) for value in places[room])
        d.box(x, top, w, h, lines, "#e7f0fd" if inside[room] else "#fff3bf")
    for n, line in enumerate(words):
        d.text(20, y - 10 + n * LINE, line)
    return d.svg()
