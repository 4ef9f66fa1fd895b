"""Events: what is written is what is read, NaN included, and strangers are let pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.runs.events import (
    Alert,
    Checkpoint,
    Done,
    Event,
    Launch,
    Memory,
    Metric,
    Progress,
    Sample,
    Stage,
    Stamped,
    decode,
    encode,
)

text = st.text(st.characters(exclude_categories=["Cs"]))
count = st.integers(0, 2**53)
values = st.dictionaries(text, st.floats(allow_nan=False, allow_infinity=False), max_size=4)
any_event = st.one_of(
    st.builds(Launch, text, text, count, text, text),
    st.builds(Stage, text, text),
    st.builds(Progress, count, count, text),
    st.builds(Metric, count, values),
    st.builds(Sample, count, text, text, values, text),
    st.builds(Memory, text, count, count, count, count, count, count),
    st.builds(Alert, st.sampled_from(["note", "warning", "stop"]), text, text, text, text),
    st.builds(Checkpoint, count, text, st.booleans()),
    st.builds(Done, st.sampled_from(["finished", "stopped", "failed"]), text, st.none(), values),
)


@given(any_event, st.floats(0, 4e9))
def test_an_event_is_one_line_and_comes_back(event: Event, now: float) -> None:
    line = encode(event, now)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    stamped = decode(line)
    assert stamped is not None
    assert stamped.event == event
    assert stamped.t == pytest.approx(now, abs=1e-6)


def test_a_journal_of_an_older_version_has_fewer_figures_of_memory() -> None:
    line = b'{"v":1,"t":1.0,"type":"memory","phase":"update","rss":1,"peak_rss":2,"device":3,"peak_device":4}'
    assert decode(line) == Stamped(1.0, Memory("update", 1, 2, 3, 4, planned=0, reserved=0))


def test_the_line_is_as_documented() -> None:
    line = encode(Progress(2, 5, "updates"), 12.5)
    assert json.loads(line) == {"v": 1, "t": 12.5, "type": "progress", "done": 2, "total": 5, "unit": "updates"}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_numbers_without_json_form_come_back_as_nan(odd: float) -> None:
    for event in (Metric(1, {"kl": odd, "loss": 0.5}), Sample(1, "p", "c", {"kl": odd, "loss": 0.5})):
        line = encode(event, 0.0)
        assert json.loads(line, parse_constant=pytest.fail)["values"] == {"kl": None, "loss": 0.5}
        stamped = decode(line)
        assert stamped is not None
        assert isinstance(stamped.event, Metric | Sample)
        assert math.isnan(stamped.event.values["kl"])
        assert stamped.event.values["loss"] == 0.5


def test_unknown_types_are_none_and_unknown_fields_are_ignored() -> None:
    assert decode(b'{"v":2,"t":1.0,"type":"hologram","depth":3}') is None
    stamped = decode(b'{"v":2,"t":1.0,"type":"stage","name":"sampling","colour":"blue"}')
    assert stamped is not None
    assert stamped.event == Stage("sampling")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"t":1.0}', b'{"v":1,"t":1.0,"type":"progress","done":"two","total":1}']
)
def test_broken_lines_are_errors(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(line)


def test_results_may_hold_paths_and_scalars_but_nothing_else() -> None:
    class Scalar:
        def item(self) -> float:
            return 0.25

    line = encode(Done("finished", result={"path": Path("/a/b"), "x": Scalar()}), 0.0)
    assert json.loads(line)["result"] == {"path": "/a/b", "x": 0.25}
    with pytest.raises(TypeError, match="no JSON form"):
        encode(Done("finished", result={"x": object()}), 0.0)
