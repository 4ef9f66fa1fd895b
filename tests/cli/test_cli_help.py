"""`rlhf-tui help`: what there is to read, and what the verdict on a reward model means."""

from __future__ import annotations

import json

import pytest

from rlhf_tui.assessment.report_text import help_text
from rlhf_tui.assessment.thresholds import THRESHOLDS
from rlhf_tui.reports import TOPICS


def test_without_a_topic_it_lists_them(cli) -> None:
    said = cli("help")
    assert (said.code, said.err) == (0, "")
    for name, about in TOPICS.items():
        assert f"  {name}" in said.out
        assert about in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert json.loads(cli("help", "--json").out) == {"topics": TOPICS}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_a_text(topic: str, cli) -> None:
    said = cli("help", topic)
    assert (said.code, said.err) == (0, "")
    assert len(said.out) > 500
    assert json.loads(cli("help", topic, "--json").out) == {"topic": topic, "text": said.out.rstrip("\n")}


def test_help_on_the_reward_model_holds_every_threshold_with_its_reason(cli) -> None:
    said = cli("help", "reward").out
    assert said == help_text()
    flat = " ".join(said.split())
    for one in THRESHOLDS:
        assert f"{one.name}: {one.value}" in flat
        assert one.reason in flat


@pytest.mark.parametrize(("topic", "hint"), [("rewards", "Did you mean 'reward'?"), ("xyz", "There is: reward.")])
def test_an_unknown_topic_is_wrong_use_and_names_the_nearest(topic: str, hint: str, cli) -> None:
    said = cli("help", topic)
    assert (said.code, said.out) == (2, "")
    assert said.err == f"There is no help on {topic!r}.\n{hint}\n"
    assert json.loads(cli("help", topic, "--json").out)["error"]["todo"] == hint
