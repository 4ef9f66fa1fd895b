"""One metric over the steps of a run, in bounded memory.

A series keeps at most `LIMIT` buckets. While a run is short every point has a bucket of its own; when the
buckets are full, neighbours are merged in pairs and each then covers twice as many points. Drawing costs
as much after a million points as after a thousand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LIMIT = 512


@dataclass
class Bucket:
    """Consecutive points: steps `first`..`last`, the extremes, the sum and the number of finite values.

    `missing` counts values that were not a number (NaN or infinite).
    """

    first: int
    last: int
    low: float
    high: float
    total: float
    count: int
    missing: int

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    def take(self, step: int, value: float) -> None:
        """Take in the value that follows."""
        self.last = step
        if not math.isfinite(value):
            self.missing += 1
            return
        if value < self.low:
            self.low = value
        if value > self.high:
            self.high = value
        self.total += value
        self.count += 1

    def absorb(self, other: Bucket) -> None:
        """Take in the bucket that follows this one."""
        self.last = other.last
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.total += other.total
        self.count += other.count
        self.missing += other.missing


class Series:
    """The values of one metric by step, oldest first."""

    def __init__(self) -> None:
        self.buckets: list[Bucket] = []
        self.latest = math.nan
        #: The first value that was a number: what some limits are counted from.
        self.first = math.nan
        self._points_per_bucket = 1

    @property
    def points_per_bucket(self) -> int:
        """How many values are merged into one: the finest that can still be told apart."""
        return self._points_per_bucket

    def __len__(self) -> int:
        """How many values the series has taken in and still covers."""
        return sum(bucket.count + bucket.missing for bucket in self.buckets)

    def add(self, step: int, value: float) -> None:
        """Append a value. A step that is not beyond the last one rewinds the series to before it.

        A run that resumes from a checkpoint repeats its steps; the repeated ones replace the old ones.
        """
        buckets = self.buckets
        while buckets and buckets[-1].first >= step:
            buckets.pop()
        tail = buckets[-1] if buckets else None
        if tail is None:
            self.first, self._points_per_bucket = math.nan, 1
        elif tail.last >= step:
            tail.last = step - 1
        self.latest = value
        if math.isnan(self.first) and math.isfinite(value):
            self.first = value
        if tail is not None and tail.count + tail.missing < self._points_per_bucket:
            tail.take(step, value)  # nearly every value of a long run: no bucket is made for it
            return
        buckets.append(Bucket(step, step, math.inf, -math.inf, 0.0, 0, 0))
        buckets[-1].take(step, value)
        if len(buckets) > LIMIT:
            self._halve()

    def recent_mean(self, points: int = 20) -> float:
        """Mean of roughly the last `points` values; NaN when there is none."""
        total, count = 0.0, 0
        for bucket in reversed(self.buckets):
            total += bucket.total
            count += bucket.count
            if count >= points:
                break
        return total / count if count else math.nan

    def _halve(self) -> None:
        merged: list[Bucket] = []
        for index, bucket in enumerate(self.buckets):
            if index % 2:
                merged[-1].absorb(bucket)
            else:
                merged.append(bucket)
        self.buckets = merged
        self._points_per_bucket *= 2
