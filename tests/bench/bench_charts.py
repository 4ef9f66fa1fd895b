"""What drawing charts costs: six of them with 10,000 points each, one point added for each redraw. Run by hand.

    python tests/bench/bench_charts.py [--points N] [--charts N] [--rounds N]

Prints CPU milliseconds for each redraw of all charts (median and slowest of ten): the maths alone, and in the app
with everything Textual does until the screen is painted: in the least room that they take (80x18), in that
of the PPO page on a large terminal (160x20), and filling such a terminal (160x48). The promise is below 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable

from textual.app import App, ComposeResult

from rlhf_tui.app import plot
from rlhf_tui.app.plot import Level, Look
from rlhf_tui.app.series import Series
from rlhf_tui.app.widgets.chartgrid import Charted, ChartGrid, Usual

PROMISE = 50.0  # ms
SIZES = ((80, 18), (160, 20), (160, 48))


class Measured(App[None]):
    """Nothing but the charts."""

    CSS_PATH = "../../rlhf_tui/app/app.tcss"

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.animation_level = "none"
        self._names = names

    def compose(self) -> ComposeResult:
        """One grid."""
        yield ChartGrid(Usual(self._names, few=len(self._names), many=len(self._names)))


def noisy(points: int, seed: int) -> Series:
    """A rising series with noise and some values that are not numbers."""
    chance, made = random.Random(seed), Series()
    for step in range(1, points + 1):
        made.add(step, value(chance, step / points))
    return made


def value(chance: random.Random, share: float) -> float:
    return math.nan if chance.random() < 0.001 else 5 + 3 * share + chance.gauss(0, 0.4)


def measured(work: Callable[[], None], rounds: int) -> tuple[float, float]:
    """CPU milliseconds of a call: the median, and the slowest tenth."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append((time.process_time() - began) * 1000)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.9)]


def maths(series: dict[str, Series], rounds: int) -> None:
    """Drawing alone, in the cells that a chart has at 160x48."""
    looks = {"all steps": Look(best=3000, cursor=5000, levels=(Level(7.0, "budget 7"),))}
    looks["zoomed, log"] = Look(span=(4000, 6000), log=True, best=3000, cursor=5000)
    for words, look in looks.items():
        middle, slow = measured(lambda look=look: [plot.draw(one, 45, 9, look) for one in series.values()], rounds)
        print(f"maths alone, {words:<12} {middle:6.1f} ms, slowest tenth {slow:6.1f} ms")


async def painted(series: dict[str, Series], size: tuple[int, int], rounds: int) -> float:
    """The app: a point more in each series, then everything until the screen is painted."""
    app, chance = Measured(tuple(series)), random.Random(1)
    times = []
    async with app.run_test(size=size) as pilot:
        grid = app.query_one(ChartGrid)
        for _ in range(rounds):
            for one in series.values():
                one.add(one.buckets[-1].last + 1, value(chance, 1.0))
            began = time.process_time()
            grid.show(Charted(series, levels=lambda name: (Level(7.0, "budget 7"),), best=3000))
            while any(chart._drawn is None for chart in grid.charts):  # until all have been painted
                await pilot.pause()
            times.append((time.process_time() - began) * 1000)
        assert len(grid.charts) == len(series)
    times.sort()
    middle, slow = statistics.median(times), times[int(len(times) * 0.9)]
    print(f"in the app, {size[0]}x{size[1]:<11} {middle:6.1f} ms, slowest tenth {slow:6.1f} ms")
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--charts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    names = ("score", "kl", "length", "entropy", "policy_loss", "value_loss", "clip_fraction", "objective")[
        : asked.charts
    ]
    series = {name: noisy(asked.points, seed) for seed, name in enumerate(names)}
    print(f"{len(series)} charts of {asked.points:,} points, CPU time of a redraw of all:")
    maths(series, asked.rounds)
    worst = max(asyncio.run(painted(series, size, asked.rounds)) for size in SIZES)
    print(f"promise: below {PROMISE:.0f} ms; {'kept' if worst < PROMISE else 'BROKEN'}")


if __name__ == "__main__":
    main()
