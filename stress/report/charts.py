"""The drawings of a scenario: what was done over time, how long it took, who got how much, who could read whose."""

from __future__ import annotations

from math import log10
from typing import Any

from . import markup
from .digest import fault_text, faults_by_name, leaks, matrix_text
from .markup import Scale, line, path, rect, svg, text_at
from .units import clean, count, digits, duration, moment, some

Data = dict[str, Any]

_WIDE_FROM = 600
_LANE, _STRIP, _AXIS = 20, 34, 26
_GROUP_PX, _LEAST_PX = 4, 3  # faults nearer to each other are one mark; one that is shorter has no length to be seen
_MAX_GUIDES = 40
_MAX_TOLD = 8
_LETTER_PX = 7.5
_MARKED = (("p50_us", 50.0), ("p90_us", 90.0), ("p99_us", 99.0), ("p999_us", 99.9))


def throughput(scenario: Data, width: int) -> str:
    """Draw the acknowledged operations of a second, those that failed below, and a lane for each kind of fault."""
    is_wide = width >= _WIDE_FROM
    left, right, top, plot = (118, 14, 12, 190) if is_wide else (46, 8, 12, 150)
    buckets, bucket_s = scenario["throughput"], scenario["bucket_s"]
    end_s = max(scenario["seconds"], bucket_s)
    x = Scale(least=0, most=end_s, start=left, stop=width - right)
    parts: list[str] = []

    steps = markup.round_steps(max((b["ok"] / bucket_s for b in buckets), default=0), 4)
    y = Scale(least=0, most=steps[-1], start=top + plot, stop=top)
    for step in steps:
        parts.append(line(left, y(step), width - right, y(step), "grid"))
        parts.append(text_at(left - 8, y(step) + 4, digits(step) if step else "0", "end"))

    strip_top = top + plot + 14
    lanes_top = strip_top + _STRIP + 10
    lanes, lanes_end, guides = _fault_lanes(scenario, x, lanes_top, is_wide)
    parts += [f'<g class="guides">{_guides(guides, top, lanes_end)}</g>' if guides else ""]
    parts.append(_steps_area([(b["at_s"], b["ok"] / bucket_s) for b in buckets], bucket_s, x, y, end_s))
    parts += _failed_strip(buckets, bucket_s, x, strip_top, left, width - right, is_wide)
    parts += lanes
    for step in markup.round_steps(end_s, 10 if is_wide else 4):
        if step <= end_s * 1.001:
            parts.append(line(x(step), lanes_end, x(step), lanes_end + 5, "axis"))
            parts.append(text_at(x(step), lanes_end + 19, f"{step:g}" + (" s" if step == 0 else ""), "middle"))
    parts.append(line(left, lanes_end, width - right, lanes_end, "axis"))
    for b in buckets:
        start, stop = x(b["at_s"]), x(min(b["at_s"] + bucket_s, end_s))
        tip = f"{b['at_s']:g} s: {digits(b['ok'] / bucket_s)} ok a second" + _unhappy_text(b)
        parts.append(rect(start, top, stop - start, strip_top + _STRIP - top, "hit", tip))
    label = f"Operations of a second over {moment(end_s)}, with {some(len(scenario['faults']), 'fault')} marked"
    return svg(width, lanes_end + _AXIS, label, *parts)


def _unhappy_text(bucket: Data) -> str:
    parts = [f", {count(bucket[name])} {name}" for name in ("failed", "unknown") if bucket[name]]
    return "".join(parts)


def _steps_area(values: list[tuple[float, float]], bucket_s: float, x: Scale, y: Scale, end_s: float) -> str:
    """Return values that each hold for a bucket, as an area with its upper edge."""
    edge = [(x(at), y(value)) for start, value in values for at in (start, min(start + bucket_s, end_s))]
    around = [(edge[0][0], y(0)), *edge, (edge[-1][0], y(0))]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in around)
    return f'<polygon points="{points}" class="ok area"/>' + path(edge, "ok line")


def _failed_strip(
    buckets: list[Data], bucket_s: float, x: Scale, top: float, left: float, right: float, is_wide: bool
) -> list[str]:
    """Return bars of what failed, on a scale of its own: beside what went well nobody would see it."""
    most = max((b["failed"] + b["unknown"] for b in buckets), default=0)
    base = top + _STRIP
    parts = [line(left, base, right, base, "grid")]
    if is_wide:
        parts.append(text_at(left - 8, base - 12, "failed", "end"))
        parts.append(text_at(left - 8, base + 2, f"up to {digits(most / bucket_s)}/s" if most else "none", "end small"))
    else:
        said = f"failed: up to {digits(most / bucket_s)}/s" if most else "failed: none"
        parts.append(text_at(left, top + 2, said, "small"))
    height = Scale(least=0, most=most or 1, start=0, stop=_STRIP if is_wide else _STRIP - 8)
    for b in buckets:
        unhappy = b["failed"] + b["unknown"]
        if unhappy:
            tall = max(height(unhappy), 2)
            wide = max(x(b["at_s"] + bucket_s) - x(b["at_s"]) - 1, 1.5)
            parts.append(rect(x(b["at_s"]), base - tall, wide, tall, "failed"))
    return parts


def _fault_lanes(
    scenario: Data, x: Scale, top: float, is_wide: bool
) -> tuple[list[str], float, list[tuple[float, float]]]:
    """Return a lane of marks for each kind of fault, where they end, and from where to where there is one."""
    parts, marks, at = [], [], top
    for name, faults in faults_by_name(scenario).items():
        if is_wide:
            parts.append(text_at(x.start - 8, at + 14, f"{cut(name, 13)} {len(faults)}", "end"))
        else:
            parts.append(text_at(x.start, at + 10, f"{cut(name, 30)} {len(faults)}", "small"))
            at += 12
        parts.append(line(x.start, at + _LANE / 2, x.stop, at + _LANE / 2, "grid"))
        for start, stop, group in _grouped(faults, x):
            lasts = stop - start > _LEAST_PX
            height = 8 if lasts else 14
            told = "; ".join(fault_text(fault) for fault in group[:_MAX_TOLD])
            tip = told + (f"; and {len(group) - _MAX_TOLD} more" if len(group) > _MAX_TOLD else "")
            wide = stop - start if lasts else 2 + min(len(group) - 1, 2)
            parts.append(
                rect(start, at + (_LANE - height) / 2, wide, height, "fault lasting" if lasts else "fault", tip)
            )
            marks.append((start, stop))
        at += _LANE
    return parts, at + 4, marks


def cut(name: str, letters: int) -> str:
    """Return a name that is at most so long, as it is shown."""
    said = clean(name)
    return said if len(said) <= letters else f"{said[: letters - 1]}…"


def _grouped(faults: list[Data], x: Scale) -> list[tuple[float, float, list[Data]]]:
    """Return the faults as marks, those that would touch as one: from, to, which."""
    found: list[tuple[float, float, list[Data]]] = []
    for fault in sorted(faults, key=lambda fault: fault["at_s"]):
        start, stop = x(fault["at_s"]), x(fault["at_s"] if fault["until_s"] is None else fault["until_s"])
        first, last, group = found[-1] if found else (-x.stop, -x.stop, [])
        if start - first < _GROUP_PX or start <= last:
            # What only lies near is drawn where the first one was: a row of kills must not look as if it lasted.
            found[-1] = (first, max(last, stop) if stop > start else last, [*group, fault])
        else:
            found.append((start, stop, [fault]))
    return found


def _guides(marks: list[tuple[float, float]], top: float, bottom: float) -> str:
    """Return where faults were, faint, behind the plot; of too many nobody could tell one from the other."""
    if len(marks) > _MAX_GUIDES:
        return ""
    return "".join(
        rect(start, top, stop - start, bottom - top, "band")
        if stop - start > _LEAST_PX
        else line(start + 1, top, start + 1, bottom, "guide")
        for start, stop in marks
    )


def curves(rows: list[Data], width: int) -> str:
    """Draw latency over percentile, both logarithmic: each step to the right is ten times as rare."""
    is_wide = width >= _WIDE_FROM
    left, right, top, plot = (64, 16, 12, 270) if is_wide else (54, 10, 12, 220)
    shown = [row for row in rows if row["count"]][: markup.SERIES]
    values = [us for row in shown for _, us in row["curve"]]
    lines_at = markup.decades(min(values), max(values))
    rarest = max(row["count"] for row in shown)
    x = Scale(least=1, most=max(10.0, float(rarest)), start=left, stop=width - right, log=True)
    y = Scale(least=lines_at[0], most=lines_at[-1], start=top + plot, stop=top, log=True)
    parts = []
    for value in lines_at:
        parts.append(line(left, y(value), width - right, y(value), "grid"))
        parts.append(text_at(left - 8, y(value) + 4, duration(value), "end"))
    free_from = 0.0
    for times in [1, *(10**power for power in range(1, int(log10(x.most)) + 1)), 2]:
        parts.append(line(x(times), top, x(times), top + plot, "grid"))
        said = f"{100 - 100 / times:.9g}%"
        half = len(said) * _LETTER_PX / 2
        # Whatever has no room beside its neighbour stays a line: many nines on a telephone, and the median.
        if x(times) - half >= free_from or (times == 2 and x(2) - x(1) > 3 * half and x(10) - x(2) > 3 * half):
            parts.append(text_at(x(times), top + plot + 18, said, "middle"))
            free_from = x(times) + half + _LETTER_PX
    for n, row in enumerate(shown, 1):
        points = [(x(_rarity(percentile, row["count"])), y(us)) for percentile, us in row["curve"]]
        parts.append(path(points, f"series s{n}"))
    for n, row in enumerate(shown, 1):
        marked = [(p, row[name], f"{p:g}% took at most") for name, p in _MARKED if row["count"] >= 100 / (100 - p)]
        for p, us, words in [*marked, (100.0, row["max_us"], "the longest took")]:
            tip = markup.title(f"{row['op']}: {words} {duration(us)}")
            place = f'cx="{x(_rarity(p, row["count"])):.1f}" cy="{y(us):.1f}"'
            parts.append(
                f'<g class="dot s{n}"><circle {place} r="9" class="halo">{tip}</circle><circle {place} r="2.6"/></g>'
            )
    label = "Latency by percentile of " + ", ".join(row["op"] for row in shown)
    return svg(width, top + plot + _AXIS + 2, label, *parts)


def _rarity(percentile: float, number: int) -> float:
    """Return one in how many takes longer. The longest of all stands where the rarest of so many does."""
    return min(100 / (100 - percentile), number) if percentile < 100 else number


def fairness_bars(scenario: Data, width: int) -> str:
    """Draw what each agent got done, the most first; so many that bars would be hairs are drawn in groups."""
    is_wide = width >= _WIDE_FROM
    left, right, top, plot = (64, 8, 20, 130) if is_wide else (46, 4, 20, 110)
    # The other way round than fairness ranks them: the first is its fastest, the last its slowest, equals or not.
    ranked = sorted(scenario["by_agent"], key=lambda row: (row["ok"], row["agent"]), reverse=True)
    room = width - left - right
    of_each = -(-len(ranked) // int(room / 4))
    groups = [ranked[n : n + of_each] for n in range(0, len(ranked), of_each)]
    pitch = min(room / len(groups), 64)
    steps = markup.round_steps(max(row["ok"] + row["failed"] for row in ranked), 3)
    y = Scale(least=0, most=steps[-1], start=top + plot, stop=top)
    parts = []
    for step in steps:
        parts.append(line(left, y(step), width - right, y(step), "grid"))
        parts.append(text_at(left - 8, y(step) + 4, digits(step) if step else "0", "end"))
    gap = 3 if pitch > 12 else 1
    for n, group in enumerate(groups):
        at, ok = left + n * pitch, sum(row["ok"] for row in group) / len(group)
        failed = sum(row["failed"] for row in group) / len(group)
        is_slowest = n == len(groups) - 1 and len(groups) > 1 and scenario["fairness"]
        kind = "ok area2 slowest" if is_slowest else "ok area2"
        parts.append(rect(at, y(ok), pitch - gap, y(0) - y(ok), kind, _agents_text(group)))
        if failed:
            parts.append(rect(at, y(ok + failed), pitch - gap, y(ok) - y(ok + failed), "failed", _agents_text(group)))
        if pitch >= 22 and len(group) == 1:
            parts.append(text_at(at + (pitch - gap) / 2, top + plot + 16, _short(group[0]["agent"]), "middle small"))
    parts.append(line(left, y(0), width - right, y(0), "axis"))
    return svg(width, top + plot + _AXIS, "Acknowledged operations of each agent", *parts)


def _agents_text(group: list[Data]) -> str:
    if len(group) == 1:
        (row,) = group
        failed = f", {count(row['failed'])} not" if row["failed"] else ""
        return f"{row['agent']}: {count(row['ok'])} acknowledged{failed}, in {some(row['lives'], 'life', 'lives')}"
    most, least = group[0]["ok"], group[-1]["ok"]
    return f"{some(len(group), 'agent')}: {count(least)} to {count(most)} acknowledged each"


def _short(agent: str) -> str:
    return cut(agent.removeprefix("agent") or agent, 5)


def token_matrix(scenario: Data) -> str:
    """Draw who (rows) could read whose tokens (columns): what is everybody's own calm, anything else loud."""
    names = scenario["matrix"]["agents"]
    cell = 21 if len(names) <= 48 else 10 if len(names) <= 120 else 4
    has_text = cell > 20
    left, top = (52, 30) if has_text else (8, 8)
    size = cell * len(names)
    parts = [rect(left, top, size, size, "board")]
    for n, (name, row) in enumerate(zip(names, scenario["matrix"]["rows"], strict=True)):
        at = top + n * cell
        if has_text:
            parts.append(
                line(left, at, left + size, at, "grid")
                + line(left + n * cell, top, left + n * cell, top + size, "grid")
            )
            parts.append(text_at(left - 8, at + 15, _short(name), "end small"))
            parts.append(text_at(left + (n + 0.5) * cell, top - 8, _short(name), "middle small"))
        own = f"{name}: {some(row[n], 'token')} of its own"
        parts.append(rect(left + n * cell, at, cell, cell, "own", own))
    indexes = {name: n for n, name in enumerate(names)}
    for reader, owner, number in leaks(scenario)[:2_000]:
        x, y = left + indexes[owner] * cell, top + indexes[reader] * cell
        tip = f"{reader} could read {some(number, 'token')} of {owner}"
        parts.append(rect(x, y, cell, cell, "leak", tip))
        if has_text:
            parts.append(text_at(x + cell / 2, y + 15, number if number < 100 else "…", "middle loud"))
    label = f"Who could read whose token: {matrix_text(scenario)}"
    return svg(left + size + 8, top + size + 8, label, *parts, fixed=True)


def pair_bar(value: float | None, other: float | None, kind: str) -> str:
    """Draw one of two figures, as long as it is beside the larger one."""
    most = max(value or 0, other or 0)
    share = (value or 0) / most if most else 0
    bar = f'<rect width="{max(share * 100, 0.8 if share else 0):.1f}" height="6" rx="0" class="{kind}"/>'
    return f'<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">{bar}</svg>'


def swatch(number: int) -> str:
    """Draw a short piece of a line, for a legend."""
    return f'<svg class="swatch" viewBox="0 0 28 10" aria-hidden="true">{line(0, 5, 28, 5, f"series s{number}")}</svg>'
