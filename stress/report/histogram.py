"""A latency histogram with HDR's log-linear buckets: 1 us to 1 hour, never more than 0.1 % off.

The method is that of Gil Tene's HdrHistogram: within each power of two all buckets are equally wide, and there are
enough of them (2,048 for three significant digits) that a bucket's width is below a thousandth of its values. Here the
counts are sparse, since a run's latencies fill few buckets; sum and maximum are kept exactly.
"""

from __future__ import annotations

from math import ceil, log2, log10

MIN_US, MAX_US = 1, 3_600_000_000
_BITS = 11  # 2,048 buckets: the first power of two that tells 1,999 from 2,000, which three digits ask for
_STEPS = 4  # points of the curve each time that 1 / (1 - percentile) doubles


def _bucket(value_us: int) -> int:
    """Return the least value that is counted together with this one."""
    shift = max(0, value_us.bit_length() - _BITS)
    return value_us >> shift << shift


def _highest(bucket_us: int) -> int:
    """Return the greatest value of a bucket."""
    return bucket_us + (1 << max(0, bucket_us.bit_length() - _BITS)) - 1


class Histogram:
    """How often each latency was seen."""

    __slots__ = ("_counts", "count", "max_us", "sum_us")

    def __init__(self) -> None:
        self.count, self.sum_us, self.max_us = 0, 0, 0
        self._counts: dict[int, int] = {}

    def record(self, value_us: int) -> None:
        """Count one latency; what is out of range counts as the nearest that is in it."""
        value_us = min(max(value_us, MIN_US), MAX_US)
        bucket = _bucket(value_us)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.sum_us += value_us
        self.max_us = max(self.max_us, value_us)

    def percentiles(self, *wanted: float) -> list[int]:
        """Return for each percentile, which must ascend, the value that so many in a hundred do not exceed."""
        found, seen, buckets = [], 0, iter(sorted(self._counts.items()))
        bucket = 0
        for percentile in wanted:
            # The least product that lies above a whole number by rounding alone must not ask for one value more.
            rank = max(1, ceil(percentile / 100 * self.count - 1e-9))
            while seen < min(rank, self.count):
                bucket, count = next(buckets)
                seen += count
            found.append(min(_highest(bucket), self.max_us))
        return found

    def curve(self) -> list[tuple[float, int]]:
        """Return (percentile, value) from 0 to 100, denser towards 100, as far as so many values can tell."""
        if not self.count:
            return []
        steps = {2 ** (step / _STEPS) for step in range(int(_STEPS * log2(self.count)) + 1)}
        # And those that everybody asks for: 90, 99, 99.9, ...
        tens = {float(10**power) for power in range(1, int(log10(self.count)) + 1)}
        wanted = [*(round(100 - 100 / times, 6) for times in sorted(steps | tens)), 100.0]
        return list(zip(wanted, self.percentiles(*wanted), strict=True))
