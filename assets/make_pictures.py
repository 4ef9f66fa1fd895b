"""Make the pictures of the README from a real project: `python assets/make_pictures.py PROJECT [NAME…]`.

Opens the app on the project of a demo, without a terminal, and writes what it draws as SVG; all pictures, or those
that are named. While the demo is at its PPO, `ppo` is the picture of a live run.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.project import open_project

#: The keys that lead to each.
PICTURES = {"model": "1", "label": "2l", "reward": "3", "ppo": "4", "compare": "5"}
SIZE = (120, 36)
MOMENT = 1.0  # seconds until journals are read and charts drawn


async def draw(project: Path, keys: str) -> str:
    """What is on the screen after some keys, as SVG."""
    app = RlhfApp(open_project(project))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(MOMENT)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(MOMENT)
        return app.export_screenshot(title="rlhf-tui")


if __name__ == "__main__":
    place, *names = sys.argv[1:]
    for name in names or PICTURES:
        picture = asyncio.run(draw(Path(place), PICTURES[name]))
        (Path(__file__).parent / f"{name}.svg").write_text(picture, encoding="utf-8")
