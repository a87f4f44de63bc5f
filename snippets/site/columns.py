"""Groups of boxes in columns, for flowcharts that ask for it: `%% columns: a b | c`.

Mermaid scatters the boxes of a group that no arrow holds together, so here each group becomes a
list, in the order of the source. A line inside a group makes its second box a branch of the first;
other edges become single curves by way of their words.
"""

import itertools
import re

# Boxes are measured a little larger than text is shown (words on lines smaller still): the system
# fonts of the site's stack differ by a few per cent, and text must fit its box for every reader.
SHOWN, SMALL, MEASURED = 14, 12, 14.6
STEP = 17  # from one line of text to the next
# Between boxes; of a group: its edge, the step of a branch, the distance to the next.
GAP, PADDING, INDENT, APART = 8, 8, 10, 16


def arrange(drawn: dict, source: str, asked: str) -> None:
    """Move what Mermaid measured into the columns asked for; ValueError for an unknown group."""
    columns = [part.split() for part in asked.split("|")]
    clusters = {cluster["name"]: cluster for cluster in drawn["clusters"]}
    if sorted(itertools.chain(*columns)) != sorted(clusters):
        raise ValueError(f"the columns name {asked.strip()}, the groups are {', '.join(clusters)}")
    nodes = {node["name"]: node for node in drawn["nodes"]}
    members = _members(source, nodes)
    depth = _depths(drawn, nodes, members)
    widths = [node["shape"]["box"][2] - 18 + INDENT * depth[name] for name, node in nodes.items()]
    width = max(*widths, *(cluster["title"] for cluster in clusters.values()))
    between = max([APART, *(label["width"] * SMALL / MEASURED + 28 for label in drawn["labels"])])
    for n, column in enumerate(columns):
        left, top = 1 + n * (width + 2 * PADDING + between), 1
        for name in column:
            y = top + STEP * len(clusters[name]["rows"]) + 13
            for member in members[name]:
                y += _place(nodes[member], left + PADDING, y, width, INDENT * depth[member]) + GAP
            clusters[name]["box"] = [left, top, width + 2 * PADDING, y + PADDING - GAP - top]
            top = y + APART - 2
    _join(drawn, nodes, between)
    boxes = [cluster["box"] for cluster in drawn["clusters"]]
    right = [x + wide for x, _, wide, _ in boxes]
    right += [label["at"][0] + between / 2 for label in drawn["labels"]]
    drawn["view"] = [0, 0, max(right) + 1, max(y + high for _, y, _, high in boxes) + 1]


def _members(source: str, nodes: dict) -> dict[str, list[str]]:
    """Group → its boxes, in the order of the source."""
    found: dict[str, list[str]] = {}
    inside = ""
    for line in source.splitlines():
        names = re.findall(r"\w+", line)
        if names[:1] == ["subgraph"]:
            inside = names[1]
        elif names == ["end"]:
            inside = ""
        elif inside and names and names[0] in nodes:
            found.setdefault(inside, []).append(names[0])
    return found


def _depths(drawn: dict, nodes: dict, members: dict) -> dict[str, int]:
    """How deep a box stands: a line inside a group makes its second box a branch of the first."""
    ends = {f"L_{a}_{b}": (a, b) for a in nodes for b in nodes}
    group = {name: key for key, names in members.items() for name in names}
    depth = dict.fromkeys(nodes, 0)
    for edge in drawn["edges"]:
        edge["ends"] = start, end = ends[edge["id"].rpartition("_")[0]]
        dotted = "edge-pattern-dotted" in edge["classes"]
        edge["branch"] = group[start] == group[end] and not dotted
        if edge["branch"]:
            depth[end] = depth[start] + 1
    return depth


def _place(node: dict, x: float, y: float, width: float, indent: float) -> float:
    """Put a box at (x, y), as wide as its column allows; returns its height."""
    height, width = STEP * len(node["rows"]) + 12, width - indent
    node["at"] = [round(x + indent + width / 2, 1), y + height / 2]
    node["shape"] = {"tag": "rect", "box": [-width / 2, -height / 2, width, height], "rx": 3}
    return height


def _join(drawn: dict, nodes: dict, between: float) -> None:
    """A branch is an elbow; any other edge a curve by way of its words, beside the left column."""
    labels = {label["edge"]: label for label in drawn["labels"]}
    for edge in drawn["edges"]:
        (left1, right1, y1), (left2, right2, y2) = (_sides(nodes[name]) for name in edge["ends"])
        if edge["branch"]:
            edge["d"] = f"M{left1 + INDENT / 2:.1f},{y1:.1f}V{y2:.1f}H{left2:.1f}"
            continue
        across = abs(right1 - right2) > 1  # or between groups of one column
        x1, x2 = (right1, left2 if across else right2) if right2 >= right1 else (left1, right2)
        edge["way"] = (x1, y1), (x2, y2), across
        middle = round(min(right1, right2) + PADDING + between / 2, 1)
        labels.setdefault(edge["id"], {"rows": []})["at"] = [middle, (y1 + y2) / 2]
    for x in {label["at"][0] for label in labels.values()}:
        _spread([label for label in labels.values() if label["at"][0] == x and label["rows"]])
    for edge in drawn["edges"]:
        if not edge["branch"]:
            edge["d"] = _curve(*edge["way"], labels[edge["id"]]["at"])


def _sides(node: dict) -> tuple[float, float, float]:
    """Left, right and middle height of a box."""
    (x, y), wide = node["at"], node["shape"]["box"][2] / 2
    return x - wide, x + wide, y


def _spread(labels: list[dict]) -> None:
    """Move words that would overlap apart, and no further: each heap stays around its middle."""
    heaps: list[list[dict]] = []
    for label in sorted(labels, key=lambda label: label["at"][1]):
        heaps.append([label])
        while len(heaps) > 1 and _top(heaps[-1]) < _top(heaps[-2]) + _height(heaps[-2]):
            heaps[-2:] = [heaps[-2] + heaps[-1]]
    for heap in heaps:
        y = _top(heap)
        for label in heap:
            label["y"] = y + _height([label]) / 2
            y += _height([label])
    for label in labels:
        label["at"][1] = round(label.pop("y"), 1)


def _height(heap: list[dict]) -> float:
    return sum(STEP * len(label["rows"]) + 4 for label in heap)


def _top(heap: list[dict]) -> float:
    return sum(label["at"][1] for label in heap) / len(heap) - _height(heap) / 2


def _curve(start: tuple, end: tuple, across: bool, through: list) -> str:
    """A curve that leaves and arrives level; its words stand where it is `through`."""
    (x1, y1), (x2, y2), (x, y) = start, end, through
    before, after = ((x1 + x) / 2, (x + x2) / 2) if across else (x, x)
    turn1, turn2 = (y, y) if across else (y1, y2)
    return (
        f"M{x1:.1f},{y1:.1f}C{before:.1f},{y1:.1f},{before:.1f},{turn1:.1f},{x:.1f},{y:.1f}"
        f"C{after:.1f},{turn2:.1f},{after:.1f},{y2:.1f},{x2:.1f},{y2:.1f}"
    )
