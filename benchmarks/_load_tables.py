"""What `benchmarks.load` prints and draws of what it measured."""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks._bench import print_table
from benchmarks._chart import Series, chart
from benchmarks._load import LOST, NEVER_ACCEPTED, Asked, Level, Overload, Stop, Swaps, percentile

_OK: Final = 200
_BUSY: Final = 429
_PARTS: Final = 12
"""Stretches of the overload that are looked at one by one."""


def print_levels(levels: Sequence[Level]) -> None:
    """Clients at once."""
    rows = [
        (
            str(level.clients),
            str(len(level.asked)),
            f"{len(_answered(level.asked)) / level.seconds:.2f}",
            *(_ms(percentile(_answered(level.asked), at)) for at in (50, 95, 99)),
            str(sum(one.status == _BUSY for one in level.asked)),
            _others(level.asked),
        )
        for level in levels
    ]
    headings = ("clients", "requests", "answers/s", "p50, ms", "p95, ms", "p99, ms", "429", "others")
    print_table("Clients at once, each asking again once it is answered; scores with map=none", headings, rows)


def print_overload(overload: Overload) -> None:
    """The whole, then stretch by stretch."""
    asked, resident = overload.asked, [one.mb for one in overload.resident]
    seconds = max(one.began for one in asked)
    answered, sent_away = _answered(asked), [one for one in asked if one.status == _BUSY]
    span = max((one.began + one.seconds for one in asked if one.status == _OK), default=seconds)
    waits = [one.retry_after for one in sent_away if one.retry_after is not None]
    print_table(
        f"{overload.rate:.0f} requests a second for {seconds:.0f} s, four times what it can do",
        ("requests", "scored", "scored/s", "429", "others", "p50, ms", "p95, ms", "longest, ms", "429: p95, ms",
         "Retry-After, s"),
        [
            (
                f"{len(asked):,}", f"{len(answered):,}", f"{len(answered) / span:.2f}", f"{len(sent_away):,}",
                _others(asked), *(_ms(percentile(answered, at)) for at in (50, 95, 100)),
                _ms(percentile([one.seconds for one in sent_away], 95)),
                f"{min(waits)} to {max(waits)}" if waits else "-",
            )
        ],
    )  # fmt: skip
    print_table(
        "The same by time: of the requests that were scored, and the process's resident memory",
        ("from, s", "scored", "p50, ms", "p95, ms", "longest, ms", "memory, MB"),
        [
            (
                f"{start:.0f}",
                str(len(_answered(part))),
                *(_ms(percentile(_answered(part), at)) for at in (50, 95, 100)),
                f"{max([one.mb for one in overload.resident if start <= one.began < end], default=0):,.0f}",
            )
            for start, end, part in _parts(overload)
        ],
    )
    print(f"Resident memory before, at most, and at the end: "
          f"{resident[0]:,.0f}, {max(resident):,.0f} and {resident[-1]:,.0f} MB.\n")  # fmt: skip


def print_swaps(swaps: Swaps) -> None:
    """Twenty versions."""
    versions = Counter(one.version for one in swaps.asked if one.version)
    print_table(
        "Versions activated one after another while two replicas on one root are asked by two clients each",
        ("swaps", "both follow after, s (median)", "at most", "answers", "of each version", "others"),
        [
            (
                str(len(swaps.followed)),
                f"{median(swaps.followed):.2f}",
                f"{max(swaps.followed):.2f}",
                str(len(swaps.asked)),
                " and ".join(map(str, sorted(versions.values()))),
                _others(swaps.asked),
            )
        ],
    )


def print_stop(stop: Stop) -> None:
    """SIGTERM."""
    received = sum(one.status > 0 for one in stop.asked)
    print_table(
        "SIGTERM while 16 clients ask without a pause",
        ("accepted at the signal", "done with, by the service's log", "answers received", "lost", "others",
         "exit code", "seconds to the end"),
        [
            (
                str(stop.in_flight), str(stop.logged), str(received), str(stop.logged - received),
                _others(stop.asked), str(stop.code), f"{stop.seconds:.1f}",
            )
        ],
    )  # fmt: skip


def chart_of(levels: Sequence[Level], overload: Overload) -> str:
    """Throughput, latency over clients; and over time under overload."""
    return chart(
        "clients (left, middle); seconds under 4x overload (right)",
        (
            ("answers/s", (Series("answers/s", *_over(levels, None)),)),
            ("latency, s", (Series("p50", *_over(levels, 50)), Series("p95", *_over(levels, 95)))),
            ("overload: latency, s", (_in_time("p50", overload, 50), _in_time("p95", overload, 95))),
        ),
    )


def _over(levels: Sequence[Level], at: float | None) -> tuple[list[float], list[float]]:
    clients = [float(level.clients) for level in levels]
    if at is None:
        return clients, [len(_answered(level.asked)) / level.seconds for level in levels]
    return clients, [percentile(_answered(level.asked), at) for level in levels]


def _in_time(name: str, overload: Overload, at: float) -> Series:
    parts = [(end, _answered(part)) for _, end, part in _parts(overload)]
    known = [(end, percentile(answered, at)) for end, answered in parts if answered]
    return Series(name, [end for end, _ in known], [value for _, value in known])


def _parts(overload: Overload) -> list[tuple[float, float, list[Asked]]]:
    length = max(one.began for one in overload.asked) / _PARTS + 1e-9
    return [
        (
            number * length,
            (number + 1) * length,
            [one for one in overload.asked if number <= one.began / length < number + 1],
        )
        for number in range(_PARTS)
    ]


def _answered(asked: Sequence[Asked]) -> list[float]:
    return [one.seconds for one in asked if one.status == _OK]


def _others(asked: Sequence[Asked]) -> str:
    """Statuses beside 200 and 429, with their counts."""
    names = {LOST: "no answer", NEVER_ACCEPTED: "not accepted"}
    count = Counter(one.status for one in asked if one.status not in (_OK, _BUSY))
    return (
        ", ".join(f"{names.get(status, str(status))}: {times}" for status, times in sorted(count.items())) or "0"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}"
