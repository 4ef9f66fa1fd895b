"""What the Model screen says of the settings: how the base is held, the adapters, what differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.overview import Overview
from rlhf_tui.app.widgets.panel import Row, lines, rows, tinted
from rlhf_tui.models import TRAINED
from rlhf_tui.preferences.display import clean
from rlhf_tui.settings import SettingInfo, Settings, catalogue, changed, info, value


def base_rows(settings: Settings) -> list[Row]:
    """What the base model is and how it is held."""
    model = settings.model
    held = {"auto": "auto: nf4 on a card", "nf4": "nf4, 4 bits", "int8": "int8, 8 bits", "none": "none"}
    where = {"auto": "auto: card, else CPU", "cpu": "the CPU", "cuda": "the first CUDA card"}
    names = {"starter": "SmolLM2-135M starter"}
    return [
        Row("model", clean(names.get(model.name, model.name)), tone="strong"),
        Row("revision", model.revision or "the default"),
        Row("quantisation", held[model.quantisation]),
        Row("device", where[model.device]),
        Row("longest prompt", f"{model.max_prompt_tokens} tokens"),
        Row("system prompt", words.one_line(model.system_prompt, 60) or "the model's own"),
        Row("chat template", words.one_line(model.chat_template, 60) or "the tokenizer's"),
    ]


def adapter_rows(view: Overview, settings: Settings) -> list[Row]:
    """The shape of the adapters, and which of them this project has trained."""
    adapters = settings.adapters
    trained = [role for role in sorted(TRAINED) if view.project.adapter(role).is_dir()]
    return [
        Row("rank", str(adapters.rank)),
        Row("alpha", str(adapters.alpha), f"scale {adapters.alpha / adapters.rank:g}"),
        Row("layers", f"last {adapters.layers}" if adapters.layers else "all"),
        Row("roles", "policy, reward, value"),
        Row("reference", "base, adapters off"),
        Row("seed", str(settings.run.seed)),
        Row("trained", ", ".join(trained) or "none yet", tone="good" if trained else ""),
    ]


def project_rows(view: Overview) -> list[Row]:
    """Where the project lies and what is in it."""
    counts = view.counts
    return [
        Row("folder", str(view.project.root)),
        Row(
            "labels",
            f"{words.plural(counts.prompts, 'prompt')}, {words.plural(counts.completions, 'candidate')}, "
            f"{words.plural(counts.judgements, 'judgement')}",
        ),
    ]


def changed_settings(settings: Settings) -> Content:
    """The settings that differ from the defaults, with the default beside each."""
    different = changed(settings)
    if not different:
        return tinted("None: everything is at its default.  e changes one.", "quiet")
    return rows(Row(key, _written(new), f"default {_written(info(key).default)}") for key, new in different.items())


def explanations(settings: Settings, width: int) -> Content:
    """What the settings of the model and its adapters mean."""
    parts: list[Content] = []
    for item in _about_the_model():
        parts.append(Content.assemble(tinted(item.key, "accent"), f" = {_written(value(settings, item.key))}"))
        parts += [tinted("  " + line, "quiet") for line in words.wrapped(item.explanation, width - 2)]
    return lines(*parts)


def _about_the_model() -> Iterable[SettingInfo]:
    return (item for item in catalogue() if item.key.split(".")[0] in ("model", "adapters"))


def _written(setting: Any) -> str:
    return (
        words.one_line(setting, 40) or '""'
        if isinstance(setting, str)
        else f"{setting:g}"
        if isinstance(setting, float)
        else str(setting)
    )
