"""Typed orders: what they mean, whole and while they are being typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.app.ordering import Typed, parse_order, ranking, typed
from rlhf_tui.preferences.records import Verdict, tied


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("2143", (2, 1, 4, 3)),
        ("1234", (1, 2, 3, 4)),
        ("4123", (2, 3, 4, 1)),
        ("2=14 3", (1, 1, 3, 2)),
        ("2=1=4=3", (1, 1, 1, 1)),
        (" 2 > 1 , 4,3 ", (2, 1, 4, 3)),
        ("2>1=3>4", (2, 1, 2, 3)),
        ("3 =2 14", (2, 1, 1, 3)),
    ],
)
def test_an_order_gives_each_candidate_its_rank(text: str, ranks: tuple[int, ...]) -> None:
    assert parse_order(text, 4) == ranks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Not in the order yet: 1, 2, 3."),
        ("2", "Not in the order yet: 1, 3."),
        ("213=", "Nothing follows the last '='."),
        ("21=", "Not in the order yet: 3."),
        ("214", "There is no candidate 4: they are 1 to 3."),
        ("0123", "There is no candidate 0: they are 1 to 3."),
        ("2123", "Candidate 2 is named twice."),
        ("2=2", "Candidate 2 is named twice."),
        ("=213", "'=' stands between two candidates."),
        ("2==13", "'=' stands between two candidates."),
        ("2=>13", "'=>' says both equal and better."),
        ("2a3", "'a' is no candidate: type the numbers 1 to 3, best first, '=' for equal ones."),
        ("²13", "'²' is no candidate: type the numbers 1 to 3, best first, '=' for equal ones."),
    ],
)
def test_what_is_no_order_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_order(text, 3)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "…"),
        ("2", "2 > …"),
        ("2=", "2 = …"),
        ("2=1", "2 = 1 > …"),
        ("2=13", "2 = 1 > 3"),
        ("29", "2 > …"),
    ],
)
def test_a_text_is_explained_while_it_is_typed(text: str, shown: str) -> None:
    assert typed(text, 3).text == shown


def test_while_typing_what_is_missing_and_what_is_wrong_is_known() -> None:
    assert typed("2=", 3) == Typed(((2,),), (1, 3), joined=True)
    assert typed("27", 3) == Typed(((2,),), (1, 3), wrong="There is no candidate 7: they are 1 to 3.")
    assert [typed("213"[:n], 3).complete for n in range(4)] == [False, False, False, True]


def test_all_equal_is_a_tie() -> None:
    assert ranking("1=2=3", 3) == tied(3)
    assert ranking("2=13", 3) == Verdict("ordered", ranks=(1, 1, 2))


@st.composite
def orders(draw: st.DrawFn) -> tuple[str, int, list[list[int]]]:
    """An order as text, the number of candidates, and its groups."""
    k = draw(st.integers(2, 9))
    numbers = draw(st.permutations(range(1, k + 1)))
    groups = [[numbers[0]]]
    text = str(numbers[0])
    for number in numbers[1:]:
        if draw(st.booleans()):
            groups[-1].append(number)
            text += f"={number}"
        else:
            groups.append([number])
            text += draw(st.sampled_from(["", " ", ",", ">", " > "])) + str(number)
    return text, k, groups


@given(orders())
def test_the_text_of_an_order_reads_back_as_itself(order: tuple[str, int, list[list[int]]]) -> None:
    text, k, groups = order
    ranks = parse_order(text, k)
    assert [[n for n in range(1, k + 1) if ranks[n - 1] == rank] for rank in range(1, max(ranks) + 1)] == [
        sorted(group) for group in groups
    ]
    assert parse_order(typed(text, k).text, k) == ranks


@given(st.text(max_size=12), st.integers(2, 6))
def test_any_text_is_either_an_order_or_refused(text: str, k: int) -> None:
    if typed(text, k).complete:
        assert sorted(set(parse_order(text, k))) == list(range(1, max(parse_order(text, k)) + 1))
    else:
        with pytest.raises(ValueError, match=r"."):
            parse_order(text, k)
