"""The figures as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """All sections that were measured."""
    machine, method = result["machine"], result["method"]
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), {method['rounds']} interleaved rounds of {method['seconds']:g} s, medians; ranges in brackets."
        f" Load average before it: {machine['load_average_before']:.1f} (near 0 = nobody else used the machine).",
        "",
    ]
    for name, render in RENDERERS.items():
        if name in result:
            lines += [*render(result[name]), ""]
    instructions = Path(__file__).with_name("instructions.json")
    if instructions.exists():
        lines += _instructions(json.loads(instructions.read_text()))
    return "\n".join(lines).rstrip()


def update(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put the text between the marks."""
    content = page.read_text()
    begin, end = (content.index(mark) for mark in marks)
    page.write_text(content[: begin + len(marks[0])] + "\n" + text + "\n" + content[end:])


def _requests(rows: dict[str, Any]) -> list[str]:
    nginx = rows["nginx plain proxy"]
    out = [
        "### Requests (1 KB chat)",
        "",
        "| | c=64 CPU a request | ÷ nginx | c=64 rps | ÷ nginx | c=1 p50 | over nginx | c=1 p99 | over nginx |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        many, one = row["c64"], row["c1"]
        base_many, base_one = nginx["c64"], nginx["c1"]
        out.append(
            f"| {name} | {many['cpu_us']:.1f} µs ({many['cpu_us_low']:.1f}–{many['cpu_us_high']:.1f})"
            f" | {many['cpu_us'] / base_many['cpu_us']:.2f} | {many['rps'] / 1000:.1f}k | {many['rps'] / base_many['rps']:.2f} "
            f"| {one['p50_us']:.0f} µs | {one['p50_us'] - base_one['p50_us']:+.0f} "
            f"| {one['p99_us']:.0f} µs | {one['p99_us'] - base_one['p99_us']:+.0f} |"
        )
    out.append("")
    for name, row in rows.items():
        if "records" in row:
            counts = row["records"]
            out.append(
                f"{name}: {counts['settled']:,} calls settled, {counts['stored']:,} records stored;"
                f" {row['memory']['RssAnon']:.0f} MB of anonymous memory after it."
            )
    return out


def _features(rows: dict[str, Any]) -> list[str]:
    names = list(rows)
    base = rows[names[0]]["c64"]["cpu_us"]
    out = ["### What each feature costs (c=64, CPU a request)", "", "| | CPU | more than nothing configured |", "|---|---|---|"]
    for name in names:
        row = rows[name]["c64"]
        out.append(
            f"| {name} | {row['cpu_us']:.1f} µs ({row['cpu_us_low']:.1f}–{row['cpu_us_high']:.1f}) | {row['cpu_us'] - base:+.1f} µs |"
        )
    return out


def _bodies(rows: dict[str, Any]) -> list[str]:
    out = ["### 300 KB bodies", "", "| | c=16 CPU a request | c=16 rps | c=1 p50 |", "|---|---|---|---|"]
    for name, row in rows.items():
        out.append(f"| {name} | {row['c16']['cpu_us']:.0f} µs | {row['c16']['rps'] / 1000:.1f}k | {row['c1']['p50_us']:.0f} µs |")
    return out


def _translation(rows: dict[str, Any]) -> list[str]:
    (_, same), (name, other) = rows.items()
    more = other["c64"]["cpu_us"] - same["c64"]["cpu_us"]
    return [
        "### Translation (1 KB chat, c=64)",
        "",
        f"{name}: {more:+.1f} µs of CPU a call over the same protocol ({other['c64']['cpu_us']:.1f} against {same['c64']['cpu_us']:.1f}).",
    ]


def _streaming(rows: dict[str, Any]) -> list[str]:
    out = [
        "### Streams",
        "",
        "| | first token p50 | p99 | CPU a frame | memory a stream | idle before | idle after |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, first in rows["first"].items():
        many = rows["many"].get(name)
        rest = (
            f"{many['cpu_us_a_frame']:.1f} µs | {many['kb_a_stream']:.1f} KB | {many['idle_before_mb']:.0f} MB | {many['idle_after_mb']:.0f} MB"
            if many
            else "| | |"
        )
        out.append(f"| {name} | {first['first_p50_us']:.0f} µs | {first['first_p99_us']:.0f} µs | {rest} |")
    broken = sum(int(many["broken"]) for many in rows["many"].values())
    return [
        *out,
        "",
        f"First token: one stream at a time, frames 2 ms apart. The rest: thousands of streams, a frame each 500 ms; {broken} broken.",
    ]


def _memory(rows: dict[str, Any]) -> list[str]:
    idle = rows["idle_10k_keys"]
    return [
        "### Memory",
        "",
        f"Idle with 10,000 keys: {idle['RssAnon']:.1f} MB anonymous ({idle['VmRSS']:.0f} MB resident with code and mapped log).",
    ]


def _instructions(rows: dict[str, Any]) -> list[str]:
    out = [
        "### Instructions a request (callgrind; SHA-256 without its hardware instructions)",
        "",
        "| | reactor | control thread |",
        "|---|---|---|",
    ]
    for name, row in rows.items():
        out.append(f"| {name} | {row['reactor']:,} | {row['control']:,} |")
    return out


RENDERERS = {
    "requests": _requests,
    "features": _features,
    "bodies": _bodies,
    "translation": _translation,
    "streaming": _streaming,
    "memory": _memory,
}
