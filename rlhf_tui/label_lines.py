"""What one typed line means when judging without the app: an answer to what was read out, or a command.

Pure: text in, a verdict or a command out. Letters are the keys of the labelling screen; every letter has
a word beside it. Upper case means the same, but for `U` (redo) and `S` (discard), as on the screen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rlhf_tui.app.ordering import names, ranking
from rlhf_tui.errors import nearest
from rlhf_tui.preferences.records import FLAGS, Verdict, prefer, tied

#: What is better of a pair, and by how much: (place, strength). The digits are the aliases of the screen.
_BETTER: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("d", "1", "a much", "a much better"), (0, 2)),
    **dict.fromkeys(("f", "2", "a", "a better"), (0, 1)),
    **dict.fromkeys(("j", "4", "b", "b better"), (1, 1)),
    **dict.fromkeys(("k", "5", "b much", "b much better"), (1, 2)),
}
_TIE = ("=", "tie", "equal")
_PAIR_TIE = (*_TIE, "3")
_ALL_BAD = ("x", "both bad", "all bad")
_LATER: Mapping[str, Verdict] = {
    "s": Verdict("skip"),
    "skip": Verdict("skip"),
    "discard": Verdict("discard"),
}
_ACCEPT: Mapping[str, bool] = {"a": True, "accept": True, "r": False, "reject": False}

#: First word of a command (every spelling) and its name.
_COMMANDS: Mapping[str, str] = {
    "u": "undo",
    "undo": "undo",
    "redo": "redo",
    "n": "note",
    "note": "note",
    "!": "flag",
    "flag": "flag",
    "e": "edit",
    "edit": "edit",
    "h": "history",
    "history": "history",
    "reopen": "reopen",
    "gold": "gold",
    "i": "stats",
    "stats": "stats",
    "g": "guideline",
    "guideline": "guideline",
    "again": "again",
    "?": "help",
    "help": "help",
    "q": "quit",
    "quit": "quit",
}
#: Commands that take words after them; of the others the word stands alone.
_WITH_WORDS = ("note", "flag", "edit", "history", "reopen", "gold")

_ANSWERS_TO: Mapping[str, str] = {
    "pair": "d A much better   f A better   = tie   j B better   k B much better   (or 1 to 5)\n"
    "x both bad   s skip   S discard",
    "rank": "the numbers, best first: '21' or '2143'; '=' joins equal ones: '2=143'   = all equal\n"
    "x all bad   s skip   S discard",
    "rate": "a mark from 1 (worst) to 5 (best) for each, in their order: '3 5'   s skip   S discard",
    "accept": "a accept or r reject for each, in their order: 'a r'   s skip   S discard",
}
_REASONS = f"Reasons are {', '.join(FLAGS)}, and none."
_EVERYWHERE = (
    "u take back   U give again   n TEXT note   ! REASON flag   e WHICH write a better answer   again read it again\n"
    "h [N] history   reopen N (1 is the newest)   gold N   i statistics   g guideline   ? help   q leave\n"
    f"Reasons to flag: {', '.join(f'{name} ({meaning})' for name, meaning in FLAGS.items())}; '! none' takes them off."
)


class Unclear(Exception):
    """A line means nothing now; the text says why, for the rater."""


@dataclass(frozen=True)
class Command:
    """Something to do that is no answer; `words` is what stood after its name, as it was typed."""

    name: str
    words: str = ""


def understand(line: str, kind: str, k: int) -> Verdict | Command:
    """What a line means when a task of `kind` with `k` candidates was read out; `k` 0: nothing is open.

    Raises Unclear for a line that means nothing then.
    """
    command = _command(line)
    if command is not None:
        return command
    if k == 0:
        raise Unclear("There is nothing to answer now: u takes the last answer back, q leaves.")
    if line.strip() == "S":
        return Verdict("discard")
    said = " ".join(line.lower().split())
    return _LATER[said] if said in _LATER else _VERDICTS[kind](said, k)


def help_text(kind: str) -> str:
    """What can be typed when tasks of `kind` are judged."""
    return f"{_ANSWERS_TO[kind]}\n{_EVERYWHERE}"


def place_of(word: str, kind: str, k: int) -> int:
    """The place (from 0) of the candidate of that name. Raises Unclear."""
    called = names(kind, k)
    if word.upper() not in called:
        raise Unclear(f"Which one: {' or '.join(called)}?")
    return called.index(word.upper())


def reasons(words: str) -> tuple[str, ...]:
    """The reasons named after 'flag', without repeats; 'none' is no reason. Raises Unclear for an unknown one."""
    given = re.findall(r"[^\s,]+", words.lower())
    for word in given:
        if word not in FLAGS and word != "none":
            raise Unclear(f"{word!r} is no reason. {nearest(word, FLAGS) or _REASONS}")
    if not given:
        raise Unclear(f"Say why. {_REASONS}")
    return tuple(dict.fromkeys(word for word in given if word != "none"))


def number_of(words: str, default: int | None = None) -> int:
    """The whole number after a command, from 1; `default` where none stands. Raises Unclear."""
    if not words and default is not None:
        return default
    if not re.fullmatch(r"[1-9][0-9]{0,8}", words):
        raise Unclear("Give a number: 1 is your newest answer, as 'history' lists them.")
    return int(words)


def _command(line: str) -> Command | None:
    text = line.strip()
    if text == "U":
        return Command("redo")
    first, _, rest = text.partition(" ")
    if text.startswith("!"):  # '!wrong' needs no space
        first, rest = "!", text[1:]
    name = _COMMANDS.get(first.lower())
    if name is None or (rest and name not in _WITH_WORDS):
        return None
    return Command(name, rest.strip())


# -- answers, one reading for each kind of task -----------------------------------------------------


def _pair(said: str, k: int) -> Verdict:
    if said in _BETTER:
        return prefer(*_BETTER[said])
    if said in _PAIR_TIE:
        return tied()
    if said in _ALL_BAD:
        return Verdict("both_bad")
    raise Unclear(_unknown(said, (*_BETTER, *_PAIR_TIE, *_ALL_BAD)))


def _rank(said: str, k: int) -> Verdict:
    if said in _TIE:
        return tied(k)
    if said in _ALL_BAD:
        return Verdict("both_bad")
    if not re.search(r"[0-9]", said):
        raise Unclear(_unknown(said, (*_TIE, *_ALL_BAD)))
    try:
        return ranking(said, k)
    except ValueError as error:
        raise Unclear(str(error)) from None


def _rate(said: str, k: int) -> Verdict:
    if not re.search(r"[0-9]", said):
        raise Unclear(_unknown(said, ()))
    marks = _each(said)
    if any(mark not in ("1", "2", "3", "4", "5") for mark in marks):
        raise Unclear("A mark is one of 1 (worst), 2, 3, 4 and 5 (best).")
    _require_each(marks, k, "marks")
    return Verdict("rated", ratings=tuple(map(int, marks)))


def _accept(said: str, k: int) -> Verdict:
    marks = [said] if said in _ACCEPT else _each(said)
    if any(mark not in _ACCEPT for mark in marks):
        raise Unclear(_unknown(said, _ACCEPT))
    _require_each(marks, k, "answers")
    return Verdict("accepted", accepted=tuple(_ACCEPT[mark] for mark in marks))


_VERDICTS: Mapping[str, Callable[[str, int], Verdict]] = {
    "pair": _pair,
    "rank": _rank,
    "rate": _rate,
    "accept": _accept,
}


def _each(said: str) -> list[str]:
    """The signs of an answer that names every candidate: '3 5', '3,5' and '35' are the same."""
    parts = re.findall(r"[^\s,]+", said)
    return list(parts[0]) if len(parts) == 1 else parts


def _require_each(marks: list[str], k: int, what: str) -> None:
    if len(marks) != k:
        raise Unclear(f"{k} candidates need {k} {what}, one each in their order; here are {len(marks)}.")


def _unknown(said: str, answers: Mapping[str, object] | tuple[str, ...]) -> str:
    words = (*answers, *_LATER, *_COMMANDS)
    return f"{said!r} is not an answer. {nearest(said, [word for word in words if len(word) > 1])}".rstrip()
