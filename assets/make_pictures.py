"""Make the pictures of the README from a real project: `python assets/make_pictures.py PROJECT`.

Opens the app on a finished demo project, without a terminal, and writes what it draws as SVG.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.project import open_project

PICTURES = {"ppo": "4", "compare": "5", "label": "2"}
SIZE = (120, 36)


async def main(project: Path, target: Path) -> None:
    """Press the key of every stage and keep what is on the screen."""
    for name, key in PICTURES.items():
        app = RlhfApp(open_project(project))
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause(1.0)
            await pilot.press(key)
            await pilot.pause(1.0)
            if name == "label":
                await pilot.press("l")
                await pilot.pause(1.0)
            (target / f"{name}.svg").write_text(app.export_screenshot(title="rlhf-tui"), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(__file__).parent))
