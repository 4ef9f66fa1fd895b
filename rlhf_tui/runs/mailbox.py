"""Talking to a chat run: questions as small files in its folder, answers in its journal.

A question is `questions/000001.json`, written whole and never changed; whoever gets the number first has it, so that
the app and the command line may ask the same run. An answer is a `sample` event with the question's number as its
step. What is being said at the moment is one small file, replaced a few times a second: the journal is kept for ever,
and gets an answer once, when it is whole. `seen` is touched when somebody looks; a chat that nobody looks at ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.runs.events import Alert, Launch, Sample, Stage, Stamped
from rlhf_tui.runs.folder import RunFolder, write_whole

BASE, POLICY = "base", "policy"
SIDES = (BASE, POLICY)
#: The stages a chat reports; the last of these names the side that answers in its detail.
READY, ANSWERING = "waiting for a question", "answering"
#: The alert of a chat without a tuned model.
BASE_ALONE = "base-alone"

_QUESTIONS, _SPEAKING, _SEEN = "questions", "speaking.json", "seen"
_LONGEST = 100_000  # characters of a question


class Question(msgspec.Struct, frozen=True):
    """What was asked. `fresh`: what was said before is forgotten first."""

    text: str
    fresh: bool = False


class Speaking(msgspec.Struct, frozen=True):
    """What one side has said so far of its answer to a question."""

    number: int = 0
    side: str = ""
    text: str = ""


@dataclass
class Exchange:
    """A question and what was answered, by side."""

    number: int
    question: Question
    answers: dict[str, Sample] = field(default_factory=dict)


def ask(run: RunFolder, text: str, *, fresh: bool = False) -> int:
    """Put a question; returns its number. Raises UsageError for an empty or endless one, UserError when it fails."""
    require_askable(text)
    folder = run.path / _QUESTIONS
    draft = folder / f".{os.getpid()}.{time.monotonic_ns()}.partial"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(draft, msgspec.json.encode(Question(text, fresh)))
        number = _newest(folder) + 1
        while not _claimed(draft, _path(run, number)):
            number += 1
        draft.unlink()
    except OSError as error:
        raise UserError(
            f"{run.name} could not be asked.", why=str(error), todo="Check the disk and the folder's rights."
        ) from None
    look(run)
    return number


def require_askable(text: str) -> None:
    """Raise UsageError for a question that is empty or endless."""
    if not text.strip():
        raise UsageError("A question without a word cannot be answered.")
    if len(text) > _LONGEST:
        raise UsageError(f"The question has {len(text):,} characters.", todo=f"At most {_LONGEST:,} are taken.")


def question(run: RunFolder, number: int) -> Question | None:
    """The question of this number; None while nobody has asked it. Raises UserError for a damaged one."""
    path = _path(run, number)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Question)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged.", why=str(error), todo="Start a new chat instead.") from None


def look(run: RunFolder) -> None:
    """Somebody is there: the chat does not end yet."""
    with suppress(OSError):  # on a full disk it ends a little earlier
        (run.path / _SEEN).touch(mode=0o600)
        os.utime(run.path / _SEEN)


def speak(run: RunFolder, said: Speaking) -> None:
    """Let readers see what is being said. It may be lost: the whole answer will be in the journal."""
    path = run.path / _SPEAKING
    beside = path.with_name(f".{_SPEAKING}.partial")
    with suppress(OSError):
        beside.write_bytes(msgspec.json.encode(said))
        os.replace(beside, path)


def heard(run: RunFolder) -> Speaking:
    """What is being said at this moment; nothing when nobody speaks."""
    try:
        return msgspec.json.decode((run.path / _SPEAKING).read_bytes(), type=Speaking)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Speaking()


class Patience:
    """How long a chat waits for somebody to look. What counts is that `seen` has changed, not what its clock says."""

    def __init__(self, run: RunFolder, minutes: float, clock: Callable[[], float]) -> None:
        self._path, self._seconds, self._clock = run.path / _SEEN, minutes * 60, clock
        self._known = self._stamp()
        self._since = clock()

    @property
    def over(self) -> bool:
        """Whether nobody has looked for so long."""
        now, stamp = self._clock(), self._stamp()
        if stamp != self._known:
            self._known, self._since = stamp, now
        return now - self._since >= self._seconds

    def begin_again(self) -> None:
        """Somebody was answered just now."""
        self._since = self._clock()

    def _stamp(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0


class Conversation:
    """What was asked and answered in a run, from its journal and its questions."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.exchanges: list[Exchange] = []
        self.alone = False
        """Whether there is no tuned model, and the base answers alone."""
        self.doing = Stage("")

    @property
    def sides(self) -> tuple[str, ...]:
        """Who answers."""
        return (BASE,) if self.alone else SIDES

    @property
    def open(self) -> list[Exchange]:
        """What is not answered by every side yet."""
        return [one for one in self.exchanges if any(side not in one.answers for side in self.sides)]

    def take(self, stamped: Stamped) -> None:
        """Take in one event of the run, in their order."""
        match stamped.event:
            case Launch():
                self.alone, self.doing = False, Stage("")
            case Alert(code=code) if code == BASE_ALONE:
                self.alone = True
            case Stage() as stage:
                self.doing = stage
            case Sample(step=number, source=side) as sample if side in SIDES:
                self.notice(number)
                if number <= len(self.exchanges):
                    self.exchanges[number - 1].answers[side] = sample
            case _:
                pass

    def notice(self, until: int = 0) -> None:
        """Take in the questions that have been asked; up to the number `until`, even where a file is gone."""
        while True:
            number = len(self.exchanges) + 1
            asked = question(self.run, number)
            if asked is None and number > until:
                return
            self.exchanges.append(Exchange(number, asked or Question("")))


def _path(run: RunFolder, number: int) -> Path:
    return run.path / _QUESTIONS / f"{number:06d}.json"


def _newest(folder: Path) -> int:
    return max((int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdecimal()), default=0)


def _claimed(draft: Path, path: Path) -> bool:
    """Whether the question is in its place; False when another one has the number."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    return True
