"""Every number that a training emits is explained, and nothing else is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rlhf_tui
from rlhf_tui.app import glossary
from rlhf_tui.settings import catalogue

TRAINING = Path(rlhf_tui.__file__).parent / "training"
#: The functions whose dictionaries become metrics: file, function.
SOURCES = {
    "ppo_metrics.py": {"describe", "policy", "value", "means"},
    "ppo.py": {"update", "_learn"},
    "heldout.py": {"metrics"},
    "reward.py": {"_step", "_of_step", "_gradients", "_heldout_metrics"},
}
#: What is emitted under a name made at run time.
MADE = {"policy_grad_norm", "value_grad_norm", "policy_loss_scale", "value_loss_scale"}


def names_in(function: ast.AST) -> set[str]:
    """The constant names in a function: keys of dictionaries, keys assigned to, and first arguments of `_add`."""
    found: set[str] = set()
    for node in ast.walk(function):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            keys = list(node.keys)
        elif isinstance(node, ast.Assign):
            keys = [target.slice for target in node.targets if isinstance(target, ast.Subscript)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_add":
            keys = [node.args[0]]
        found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found


def emitted() -> set[str]:
    found = set(MADE)
    for file, functions in SOURCES.items():
        for node in ast.walk(ast.parse((TRAINING / file).read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                found |= names_in(node)
    return found - {"policy", "value"}  # the roles: keys of rates, not of numbers


def test_every_emitted_number_is_explained_and_no_other() -> None:
    assert emitted() == set(glossary.ENTRIES)


def test_numbers_are_emitted_nowhere_else() -> None:
    """A new place that emits numbers belongs into SOURCES."""
    calls = {
        (path.name, function.name)
        for path in TRAINING.glob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Metric"
    }
    assert calls == {
        ("heldout.py", "evaluate"),
        ("ppo_run.py", "_round"),
        ("reward.py", "_step"),
        ("reward.py", "_end_epoch"),
    }


@pytest.mark.parametrize("name", glossary.ENTRIES)
def test_an_entry_is_whole_sentences_and_names_only_settings_that_exist(name: str) -> None:
    known = {item.key for item in catalogue()}
    said = glossary.explained(name)
    assert [heading for heading, _ in said] == ["What it is", "Healthy", "If not"]
    for _, text in said:
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".")
        words = {word.strip(".,;:()'") for word in text.split()}
        settings = {word for word in words if word.partition(".")[0] in ("ppo", "reward", "guard") and "." in word}
        assert settings <= known
    assert 0 < len(glossary.short(name)) <= 13
    assert glossary.label(name)


def test_a_number_of_a_later_version_has_its_name_and_no_explanation() -> None:
    assert glossary.label("new_number") == glossary.short("new_number") == "new number"
    assert glossary.explained("new_number") == []


def test_a_kl_below_zero_has_its_cause_named_and_it_is_not_the_reward_model() -> None:
    said = " ".join(text for _, text in glossary.explained("kl"))
    assert "Below 0 for several updates, the completions are not drawn from the policy that is scored" in said
    assert "that is no fault of the reward model" in said
