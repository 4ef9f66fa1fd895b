"""The screens of a project, each imported when it is first opened: all of them would delay the first one.

A project opens at one stage; the others bring the report, the statistics of labels and all the rest with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from textual.screen import Screen

from rlhf_tui.project import Project


def _model() -> Screen[Any]:
    from rlhf_tui.app.screens.model import ModelScreen

    return ModelScreen()


def _pairs() -> Screen[Any]:
    from rlhf_tui.app.screens.pairs import PairsScreen

    return PairsScreen()


def _reward() -> Screen[Any]:
    from rlhf_tui.app.screens.reward import RewardScreen

    return RewardScreen()


def _ppo() -> Screen[Any]:
    from rlhf_tui.app.screens.ppo import PpoScreen

    return PpoScreen()


def _compare() -> Screen[Any]:
    from rlhf_tui.app.screens.compare import CompareScreen

    return CompareScreen()


def _export() -> Screen[Any]:
    from rlhf_tui.app.screens.export import ExportScreen

    return ExportScreen()


#: The screen of each stage.
STAGES: Mapping[str, Callable[[], Screen[Any]]] = {
    "model": _model,
    "pairs": _pairs,
    "reward": _reward,
    "ppo": _ppo,
    "compare": _compare,
    "export": _export,
}


def settings_screen(project: Project, stage: str) -> Screen[Any]:
    """All settings, from those of a stage on."""
    from rlhf_tui.app.screens.settings import SettingsScreen
    from rlhf_tui.app.settings_form import SECTION_OF_STAGE, SettingsForm

    return SettingsScreen(SettingsForm(project), SECTION_OF_STAGE.get(stage, stage))


def log_screen(project: Project, lit: str) -> Screen[Any]:
    """The logs of all runs, that of `lit` first."""
    from rlhf_tui.app.screens.log import LogScreen

    return LogScreen(project, lit)


def doctor_screen(project: Project) -> Screen[Any]:
    """What this machine can do."""
    from rlhf_tui.app.screens.doctor import DoctorScreen

    return DoctorScreen(project.root)


def chat_screen(project: Project) -> Screen[Any]:
    """Base and tuned model, to talk to."""
    from rlhf_tui.app.screens.chat import ChatScreen

    return ChatScreen(project)
