"""All settings by name: what there is, what it means, and what is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo

from rlhf_tui.errors import UsageError, nearest
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


class Settings(Section):
    """All settings of a project."""

    model: ModelSettings = ModelSettings()
    adapters: AdapterSettings = AdapterSettings()
    prompts: PromptSettings = PromptSettings()
    generate: GenerateSettings = GenerateSettings()
    label: LabelSettings = LabelSettings()
    reward: RewardSettings = RewardSettings()
    ppo: PpoSettings = PpoSettings()
    guard: GuardSettings = GuardSettings()
    compare: CompareSettings = CompareSettings()
    chat: ChatSettings = ChatSettings()
    export: ExportSettings = ExportSettings()
    run: RunSettings = RunSettings()
    notify: NotifySettings = NotifySettings()


@dataclass(frozen=True)
class SettingInfo:
    """One setting as a person reads it."""

    key: str
    default: Any
    kind: str
    bounds: str
    explanation: str


def catalogue() -> Iterator[SettingInfo]:
    """Every setting in file order, with its default, bounds and explanation."""
    yield from _known().values()


@cache
def _known() -> Mapping[str, SettingInfo]:
    """Every setting by its key; made once, because screens ask for all of them whenever they are drawn."""
    return {item.key: item for item in _described()}


def _described() -> Iterator[SettingInfo]:
    for section, outer in Settings.model_fields.items():
        assert isinstance(outer.annotation, type)
        assert issubclass(outer.annotation, Section)
        for name, field in outer.annotation.model_fields.items():
            yield SettingInfo(
                key=f"{section}.{name}",
                default=field.default,
                kind=_kind(field),
                bounds=_bounds(field),
                explanation=field.description or "",
            )


_PURE = (
    "PPO samples from the whole distribution at ppo.temperature. Anything that leaves tokens out or favours some makes "
    "the sampler another one than the policy that is scored: ratios and KL would be wrong, silently."
)
_STILL = "A policy that answers by chance differs from itself: the first ratio would not be 1."
#: What people look for and is not there for a reason, and settings that have another name now.
REFUSED = {
    **dict.fromkeys(
        ("ppo.top_p", "ppo.top_k", "ppo.min_p", "ppo.typical_p", "ppo.repetition_penalty", "ppo.min_new_tokens"), _PURE
    ),
    **dict.fromkeys(("adapters.dropout", "ppo.dropout", "reward.dropout"), _STILL),
    "ppo.max_kl": "It is called guard.max_kl now.",
    "reward.probe_ridge": "How much the head is shrunk is chosen by cross-validation now; reward.head_start=zero does "
    "without that fit.",
}


def info(key: str) -> SettingInfo:
    """The setting called `key`. Raises UsageError when there is none: why not, or which is nearest."""
    known = _known()
    if key in REFUSED:
        raise UsageError(f"There is no setting {key!r}.", why=REFUSED[key], todo="Leave it out.")
    if key not in known:
        raise UsageError(
            f"There is no setting {key!r}.",
            why=nearest(key, known),
            todo="'rlhf-tui config show' lists all of them.",
        )
    return known[key]


def value(settings: Settings, key: str) -> Any:
    """The value that `settings` holds for `key`."""
    section, _, name = info(key).key.partition(".")
    return getattr(getattr(settings, section), name)


def changed(settings: Settings) -> dict[str, Any]:
    """Only what differs from the defaults: `section.key` → value."""
    return {item.key: current for item in catalogue() if (current := value(settings, item.key)) != item.default}


def _kind(field: FieldInfo) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if isinstance(field.annotation, type):
        return names[field.annotation]
    options = getattr(field.annotation, "__args__", ())
    return "one of " + ", ".join(str(option) for option in options)


def _spelt(bound: float) -> str:
    """A bound as a person types it: 1000000, not 1e+06."""
    return f"{bound:.0f}" if bound == round(bound) else f"{bound:g}"


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [
        f"{word} {_spelt(getattr(constraint, sign))}"
        for constraint in field.metadata
        for sign, word in words.items()
        if getattr(constraint, sign, None) is not None
    ]
    return " and ".join(found)
