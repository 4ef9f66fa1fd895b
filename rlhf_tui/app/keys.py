"""Every key of the app, once: bindings, footer and help are all made from this registry.

Keys are chosen to arrive in any terminal, tmux and ssh: no ctrl+h/i/j/m (they are backspace, tab, enter),
no ctrl+a/b/z (taken by screen, tmux and the shell), nothing that needs alt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

When = Literal["always", "live", "idle"]


@dataclass(frozen=True)
class Action:
    """One thing a key does.

    `call` is the Textual action; `shown` is the key as people write it. `rank` orders the footer (lower
    stays longer when space is short); 0 keeps the action out of the footer. `when` says in which state of
    the project the footer offers it.
    """

    id: str
    keys: str
    shown: str
    label: str
    help: str
    call: str
    rank: int = 0
    when: When = "always"


STAGES = (
    ("model", "Model"),
    ("pairs", "Pairs"),
    ("reward", "Reward"),
    ("ppo", "PPO"),
    ("compare", "Compare"),
    ("export", "Export"),
)


def _stage_actions() -> Iterator[Action]:
    for number, (name, title) in enumerate(STAGES, start=1):
        yield Action(
            f"stage.{name}",
            f"{number},f{number + 1}",
            f"{number} F{number + 1}",
            title,
            f"Go to stage {number}, {title}.",
            f"app.stage('{name}')",
        )


REGISTRY: dict[str, tuple[Action, ...]] = {
    "app": (
        Action("app.help", "question_mark,f1", "?", "Help", "All keys of this screen.", "app.help", rank=8),
        Action("app.palette", "ctrl+p", "^p", "Commands", "Find a command by its name.", "app.command_palette"),
        Action("app.copy", "y", "y", "Copy CLI", "Show and copy this as a command line.", "app.copy_command", 9),
        Action("app.log", "L", "L", "Log", "The log of the run shown here.", "app.show_log", rank=10),
        Action("app.leave", "q", "q", "Leave", "Leave the app. A run goes on without it.", "app.leave", rank=7),
    ),
    "stage": (
        *_stage_actions(),
        Action("stage.back", "left_square_bracket", "[", "Back", "The stage before this one.", "app.turn_stage(-1)"),
        Action("stage.next", "right_square_bracket", "]", "Next", "The stage after this one.", "app.turn_stage(1)"),
        Action("stage.up", "pageup", "PgUp", "Up", "Scroll up, where not everything fits.", "scroll_body(-1)"),
        Action("stage.down", "pagedown", "PgDn", "Down", "Scroll down, where not everything fits.", "scroll_body(1)"),
        Action("stage.edit", "e", "e", "Settings", "Change a setting of the project.", "app.edit_setting", rank=6),
    ),
    "run": (
        Action(
            "run.pause",
            "space",
            "space",
            "Pause",
            "Pause the run, or let it go on.",
            "app.toggle_pause",
            2,
            "live",
        ),
        Action("run.save", "ctrl+s", "^s", "Save", "Save a checkpoint now.", "app.save_now", rank=4, when="live"),
        Action("run.stop", "full_stop", ".", "Stop…", "Stop the run; it saves.", "app.stop_run", rank=3, when="live"),
    ),
    "model": (Action("model.next", "enter", "⏎", "To the pairs", "Go on to stage 2, Pairs.", "app.stage('pairs')", 1),),
    "pairs": (
        Action("pairs.start", "enter", "⏎", "Generate", "Sample candidates for the prompts.", "start", 2, "idle"),
        Action("pairs.label", "l", "l", "Label", "Judge the pairs that wait.", "label", rank=1),
    ),
    "reward": (
        Action("reward.start", "enter", "⏎", "Train", "Train the reward model on the labels.", "start", 1, "idle"),
    ),
    "ppo": (
        Action("ppo.start", "enter", "⏎", "Start", "Start a PPO run.", "start", 1, "idle"),
        Action("ppo.older", "left", "←→", "Samples", "Browse the samples: older.", "browse(-1)", rank=5),
        Action("ppo.newer", "right", "→", "Newer sample", "Browse the samples: newer.", "browse(1)"),
        Action("ppo.why", "w", "w", "Why", "What the newest alert means and what to do.", "why", rank=5),
    ),
    "compare": (
        Action("compare.start", "enter", "⏎", "Compare", "Measure before and after.", "start", 1, "idle"),
        Action("compare.older", "left", "←→", "Prompt", "The prompt before this one.", "browse(-1)", rank=2),
        Action("compare.newer", "right", "→", "Next prompt", "The prompt after this one.", "browse(1)"),
    ),
    "export": (
        Action("export.start", "enter", "⏎", "Export", "Write the chosen form.", "start", 1, "idle"),
        Action("export.up", "up,k", "↑↓", "Choose", "Choose the form above.", "choose(-1)", rank=2),
        Action("export.down", "down,j", "↓", "Choose", "Choose the form below.", "choose(1)"),
    ),
    "label": (
        Action("label.left2", "d,1", "d", "A much", "A is much better.", "answer('left', 2)"),
        Action("label.left", "f,2", "f", "A", "A is better.", "answer('left', 1)", rank=1),
        Action("label.tie", "space,3", "space", "Tie", "Both are equally good.", "answer('tie', 1)", rank=3),
        Action("label.right", "j,4", "j", "B", "B is better.", "answer('right', 1)", rank=2),
        Action("label.right2", "k,5", "k", "B much", "B is much better.", "answer('right', 2)"),
        Action("label.bad", "x", "x", "Both bad", "Neither should be learnt from.", "answer('both_bad', 1)"),
        Action("label.skip", "s", "s", "Skip", "Decide later; it comes back at the end.", "answer('skip', 1)", rank=6),
        Action("label.undo", "u", "u", "Undo", "Take the last answer back.", "undo", rank=4),
        Action("label.redo", "U", "U", "Redo", "Give the answer taken back again.", "redo"),
        Action("label.note", "n", "n", "Note", "A note that is stored with the answer.", "note", rank=10),
        Action("label.zoom", "z", "z", "Zoom", "Only A, only B, both again.", "zoom", rank=9),
        Action("label.stack", "v", "v", "Stack", "Side by side, or one above the other.", "stack", rank=11),
        Action("label.up", "up", "↑", "Up", "Scroll both up.", "scroll_both(-1)"),
        Action("label.down", "down", "↓", "Down", "Scroll both down.", "scroll_both(1)"),
        Action("label.page_up", "pageup", "PgUp", "Page up", "Scroll both up by a page.", "scroll_both(-10)"),
        Action("label.page_down", "pagedown", "PgDn", "Page down", "Scroll both down by a page.", "scroll_both(10)"),
        Action("label.guideline", "g", "g", "Guideline", "Read or write the guideline.", "guideline", rank=7),
        Action("label.stats", "i", "i", "Stats", "How you have judged so far.", "statistics", rank=8),
        Action("label.back", "escape", "esc", "Back", "Back to the pairs; every answer is saved.", "back", rank=5),
    ),
    "dialog": (Action("dialog.close", "escape", "esc", "Close", "Close this window.", "close", rank=1),),
}

#: Which groups of keys work on which screen, nearest first.
SCOPES: dict[str, tuple[str, ...]] = {
    **{name: (name, "run", "stage", "app") for name, _ in STAGES},
    "label": ("label", "app"),
}


def bindings(*groups: str) -> list[BindingType]:
    """Textual bindings of the named groups. Textual's own footer is not used, so none is shown there."""
    return [
        Binding(action.keys, action.call, action.label, show=False, id=action.id, tooltip=action.help)
        for group in groups
        for action in REGISTRY[group]
    ]


def actions(screen: str) -> Iterator[Action]:
    """Every action that works on a screen."""
    for group in SCOPES[screen]:
        yield from REGISTRY[group]


def footer(screen: str, width: int, *, live: bool) -> list[tuple[str, str]]:
    """(key, label) pairs for the last line: the most important ones that fit, in registry order."""
    state: When = "live" if live else "idle"
    offered = [action for action in actions(screen) if action.rank and action.when in ("always", state)]
    kept: set[str] = set()
    used = 1
    for action in sorted(offered, key=lambda item: item.rank):
        needed = len(action.shown) + 1 + len(action.label) + 2
        if used + needed <= width + 2:
            kept.add(action.id)
            used += needed
    return [(action.shown, action.label) for action in offered if action.id in kept]


def help_rows(screen: str) -> Sequence[tuple[str, str]]:
    """(keys, what they do) for the help window."""
    return [(_spelt(action), action.help) for action in actions(screen)]


def _spelt(action: Action) -> str:
    names = {
        "question_mark": "?",
        "full_stop": ".",
        "left_square_bracket": "[",
        "right_square_bracket": "]",
        "escape": "esc",
        "pageup": "PgUp",
        "pagedown": "PgDn",
        "up": "↑",
        "down": "↓",
        "left": "←",
        "right": "→",
    }
    keys = [key.strip() for key in action.keys.split(",")]
    return " ".join(names.get(key, key.upper() if key[:1] == "f" and key[1:].isdigit() else key) for key in keys)
