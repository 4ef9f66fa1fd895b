"""Every setting: its default, its bounds, and a paragraph that explains it.

The explanation is the field's description, so that `config explain`, the app's settings
editor and the documentation cannot drift apart. A project keeps only what differs from the
defaults, in `rlhf.toml`.
"""

from __future__ import annotations

from rlhf_tui.settings.catalogue import REFUSED, SettingInfo, Settings, catalogue, changed, info, value
from rlhf_tui.settings.file import from_tree, load, parse_override, parse_value, write
from rlhf_tui.settings.notify import NotifySettings
from rlhf_tui.settings.project import (
    AdapterSettings,
    ChatSettings,
    CompareSettings,
    ExportSettings,
    GenerateSettings,
    LabelSettings,
    ModelSettings,
    PromptSettings,
    RunSettings,
)
from rlhf_tui.settings.section import Section
from rlhf_tui.settings.training import GuardSettings, PpoSettings, RewardSettings

__all__ = [
    "REFUSED",
    "AdapterSettings",
    "ChatSettings",
    "CompareSettings",
    "ExportSettings",
    "GenerateSettings",
    "GuardSettings",
    "LabelSettings",
    "ModelSettings",
    "NotifySettings",
    "PpoSettings",
    "PromptSettings",
    "RewardSettings",
    "RunSettings",
    "Section",
    "SettingInfo",
    "Settings",
    "catalogue",
    "changed",
    "from_tree",
    "info",
    "load",
    "parse_override",
    "parse_value",
    "value",
    "write",
]
