"""The table of keys: every action of every screen, once. What is made of it is in `keys`.

Keys are chosen to arrive in any terminal, tmux and ssh: no ctrl+h/i/j/m (they are backspace, tab, enter),
no ctrl+a/b/z (taken by screen, tmux and the shell), nothing that needs alt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

When = Literal["always", "live", "idle", "report", "charts", "shown", "unfit", "unasked", "unfinished"]


@dataclass(frozen=True)
class Action:
    """One thing a key does.

    `call` is the Textual action; `shown` is the key as people write it. `rank` orders the footer (lower
    stays longer when space is short); 0 keeps the action out of the footer. `when` says in which state of
    the project the footer offers it; 'report': while there is one to read; 'charts': while some are on screen;
    'shown': while there is something on screen that it is about; 'unfinished': while a run of the stage can be taken
    up; 'unfit': while a stage does not fit; 'unasked': on a model of the hub that is not here.
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
        Action("app.help", "question_mark,f1", "?", "Help", "All keys of this screen.", "app.help", rank=1),
        Action("app.palette", "ctrl+p", "^p", "Commands", "Find a command by its name.", "app.command_palette"),
        Action("app.copy", "y", "y", "Copy CLI", "Show and copy this as a command line.", "app.copy_command", 9),
        Action("app.log", "L", "L", "Log", "The logs of the runs, this stage's first.", "app.show_log", rank=10),
        Action("app.theme", "T", "T", "Theme", "Other colours: dark, light, colour-blind, ansi.", "app.change_theme"),
        Action("app.leave", "q", "q", "Leave", "Leave the app. A run goes on without it.", "app.leave", rank=1),
    ),
    "stage": (
        *_stage_actions(),
        Action("stage.back", "left_square_bracket", "[", "Back", "The stage before this one.", "app.turn_stage(-1)"),
        Action("stage.next", "right_square_bracket", "]", "Next", "The stage after this one.", "app.turn_stage(1)"),
        Action("stage.up", "pageup", "PgUp", "Up", "Scroll up, where not everything fits.", "scroll_body(-1)"),
        Action("stage.down", "pagedown", "PgDn", "Down", "Scroll down, where not everything fits.", "scroll_body(1)"),
        Action("stage.home", "H", "H", "Home", "All your projects: open another one.", "app.home", rank=12),
        Action(
            "stage.edit", "e", "e", "Settings", "Read and change the project's settings.", "app.edit_setting", rank=6
        ),
        Action("stage.chat", "t", "t", "Talk", "Talk to base and tuned model, side by side.", "talk", rank=13),
        Action("stage.doctor", "D", "D", "This machine", "What this machine can do, check by check.", "doctor"),
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
        Action(
            "run.resume",
            "r",
            "r",
            "Go on",
            "Take up the run of this stage that was stopped or broke off.",
            "app.resume_run",
            1,
            "unfinished",
        ),
        Action("run.save", "ctrl+s", "^s", "Save", "Save a checkpoint now.", "app.save_now", 4, "live"),
        Action("run.stop", "full_stop", ".", "Stop…", "Stop the run; it saves.", "app.stop_run", 3, "live"),
    ),
    "model": (
        Action(
            "model.next", "enter", "⏎", "Choose", "Choose the lit model; download it; or go on to stage 2.", "take", 1
        ),
        Action("model.up", "up,k", "↑↓", "Models", "The model above.", "move(-1)", rank=3),
        Action("model.down", "down,j", "↓", "Models", "The model below.", "move(1)"),
        Action("model.other", "slash", "/", "Other…", "Name a folder, or a model of the hub.", "other", rank=2),
        Action(
            "model.fit",
            "f",
            "f",
            "Make fit…",
            "Lower the settings that keep a stage from fitting.",
            "make_fit",
            4,
            "unfit",
        ),
        Action(
            "model.size",
            "a",
            "a",
            "Ask hub",
            "Ask the hub how large the lit model is; only its config.json is fetched.",
            "ask_hub",
            5,
            "unasked",
        ),
        Action("model.read", "o", "o", "Read", "All about the lit model, the memory and the settings.", "read", 11),
    ),
    "pairs": (
        Action("pairs.start", "enter", "⏎", "Generate", "Sample candidates for the prompts.", "start", 2, "idle"),
        Action("pairs.label", "l", "l", "Label", "Judge the pairs that wait.", "label", rank=1),
        Action("pairs.import", "i", "i", "Import…", "Import prompts from a file.", "import_prompts", rank=5),
        Action("pairs.write", "w", "w", "Write…", "Write one prompt by hand.", "write_prompt", rank=11),
    ),
    "reward": (
        Action("reward.start", "enter", "⏎", "Train", "Train the reward model on the labels.", "start", 1, "idle"),
        Action("reward.report", "v", "v", "Report", "The whole report.", "read_report", 2, "report"),
        Action(
            "reward.disagreements",
            "d",
            "d",
            "Disagreements",
            "Where rater and model disagree most; judge again.",
            "disagreements",
            3,
            "report",
        ),
        Action("reward.best", "b", "b", "Best of n", "What it would choose of 1, 4 and 16.", "best_of", 4, "report"),
        Action("reward.curves", "c", "c", "Curves", "Training curves, or the report again.", "curves", 9, "report"),
        Action("reward.older", "left", "←→", "Cursor", "In a lit chart: to the value before.", "browse(-1)"),
        Action("reward.newer", "right", "→", "Later value", "In a lit chart: to the value after.", "browse(1)"),
    ),
    "ppo": (
        Action("ppo.start", "enter", "⏎", "Start", "Start a PPO run.", "start", 1, "idle"),
        Action(
            "ppo.older",
            "left",
            "←→",
            "Browse",
            "Older sample; in a lit chart, value before.",
            "browse(-1)",
            13,
            "charts",
        ),
        Action("ppo.newer", "right", "→", "Newer", "Newer sample; in a lit chart, value after.", "browse(1)"),
        Action("ppo.samples", "s", "s", "Samples", "Read the samples, now and at the start.", "samples", 4, "charts"),
        Action("ppo.heldout", "h", "h", "Held-out", "Scores on held-out prompts against √KL.", "held_out", 8, "charts"),
        Action("ppo.why", "w", "w", "Alerts", "All alerts: why, and what to do.", "why", 5, "charts"),
        Action("ppo.light", "c", "c", "Next chart", "Light up the next chart.", "light(1)"),
        Action(
            "ppo.kept", "k", "k", "Kept", "Checkpoints, the best one, where time and memory go.", "kept", 7, "charts"
        ),
    ),
    "charts": (
        Action("charts.next", "tab", "tab", "Charts", "Light up the next chart.", "light(1)", 4, "charts"),
        Action("charts.last", "shift+tab", "shift+tab", "Back", "Light up the chart before.", "light(-1)"),
        Action("charts.out", "escape", "esc", "Out", "No chart is lit.", "put_out"),
        Action("charts.first", "home", "home", "First", "In a lit chart: to the first value.", "browse(-1000000)"),
        Action("charts.newest", "end", "end", "Newest", "In a lit chart: follow the newest value.", "browse(1000000)"),
        Action("charts.in", "plus,equals_sign", "+", "Closer", "Half as many steps, in all charts.", "zoom(True)"),
        Action("charts.back", "minus", "-", "Further", "Twice as many steps, in all charts.", "zoom(False)"),
        Action("charts.all", "0", "0", "All steps", "All steps, in all charts.", "zoom(None)"),
        Action(
            "charts.log", "o", "o", "Log", "Logarithmic scale of the lit chart, or linear.", "log_scale", 12, "charts"
        ),
        Action("charts.choose", "slash", "/", "Choose", "Choose which numbers have a chart.", "choose", 11, "charts"),
    ),
    "compare": (
        Action("compare.start", "enter", "⏎", "Compare", "Measure before and after.", "start", 1, "idle"),
        Action("compare.older", "left", "←→", "Prompt", "The prompt before this one.", "browse(-1)", 2, "shown"),
        Action("compare.newer", "right", "→", "Next prompt", "The prompt after this one.", "browse(1)"),
    ),
    "export": (
        Action("export.start", "enter", "⏎", "Export", "Write the chosen form.", "start", 1, "idle"),
        Action("export.up", "up,k", "↑↓", "Choose", "Choose the form above.", "choose(-1)", rank=2),
        Action("export.down", "down,j", "↓", "Choose", "Choose the form below.", "choose(1)"),
    ),
    "label-pair": (
        Action("label.left2", "d,1", "d", "A much", "A is much better.", "prefer(0, 2)"),
        Action("label.left", "f,2", "f", "A", "A is better.", "prefer(0, 1)"),
        Action("label.tie", "space,3", "space", "Tie", "Both are equally good.", "tie"),
        Action("label.right", "j,4", "j", "B", "B is better.", "prefer(1, 1)"),
        Action("label.right2", "k,5", "k", "B much", "B is much better.", "prefer(1, 2)"),
        Action("label.bad", "x", "x", "Both bad", "Neither should be learnt from.", "all_bad"),
    ),
    "label-rank": (
        *(
            Action(f"label.next{n}", str(n), str(n), f"Candidate {n}", f"Candidate {n} comes next.", f"place({n})")
            for n in range(1, 7)
        ),
        Action("label.equal", "equals_sign", "=", "As good", "The next is as good as the last.", "equal"),
        Action("label.rank-erase", "backspace", "bksp", "Erase", "Take the last sign back.", "erase"),
        Action("label.rank-done", "enter", "⏎", "Done", "Store the order, once all are in it.", "commit"),
        Action("label.all-bad", "x", "x", "All bad", "None should be learnt from.", "all_bad"),
    ),
    "label-rate": (
        *(
            Action(f"label.mark{n}", str(n), str(n), f"Mark {n}", f"Mark {n} for the lit answer{said}.", f"mark({n})")
            for n, said in zip(range(1, 6), (", the worst", "", "", "", ", the best"), strict=True)
        ),
        Action("label.rate-erase", "backspace", "bksp", "Erase", "Take the last mark back.", "erase"),
        Action("label.rate-done", "enter", "⏎", "Done", "Store the marks, once all are given.", "commit"),
    ),
    "label-accept": (
        Action("label.accept", "a", "a", "Accept", "Accept the lit answer.", "accept(True)"),
        Action("label.reject", "r", "r", "Reject", "Reject the lit answer.", "accept(False)"),
        Action("label.accept-erase", "backspace", "bksp", "Erase", "Take the last one back.", "erase"),
        Action("label.accept-done", "enter", "⏎", "Done", "Store it, once all are decided.", "commit"),
    ),
    "label": (
        Action("label.skip", "s", "s", "Skip", "Later: it comes back in the next sitting.", "skip", 2, "shown"),
        Action("label.discard", "S", "S", "Discard", "Never show it to you again.", "discard", 19, "shown"),
        Action("label.undo", "u", "u", "Undo", "Take the last answer back; again and again.", "undo", rank=1),
        Action("label.redo", "U", "U", "Redo", "Give the answer taken back again.", "redo"),
        Action(
            "label.history", "h", "h", "History", "Every answer of yours: open again, gold.", "ask('history')", rank=5
        ),
        Action(
            "label.flag",
            "exclamation_mark",
            "!",
            "Flag",
            "Say what is wrong with this one.",
            "ask('flag')",
            12,
            "shown",
        ),
        Action("label.note", "n", "n", "Note", "A note that is stored with the answer.", "ask('note')", 4, "shown"),
        Action("label.edit", "e", "e", "Edit", "Write an answer better; yours then wins.", "ask('edit')", 13, "shown"),
        Action("label.up", "up", "↑", "Up", "Scroll all up.", "scroll_all(-1)"),
        Action("label.down", "down", "↓", "Down", "Scroll all down.", "scroll_all(1)"),
        Action("label.page-up", "pageup", "PgUp", "Page up", "Scroll all up by a page.", "scroll_page(-1)"),
        Action("label.page-down", "pagedown", "PgDn", "Page down", "Scroll all down by a page.", "scroll_page(1)"),
        Action("label.top", "home", "home", "Top", "Scroll all to the top.", "scroll_far(-1)"),
        Action("label.end", "end", "end", "End", "Scroll all to the end.", "scroll_far(1)"),
        Action("label.lit-up", "shift+up", "shift+↑", "Lit up", "Scroll only the lit answer up.", "scroll_lit(-1)"),
        Action("label.lit-down", "shift+down", "shift+↓", "Lit down", "Scroll only the lit answer.", "scroll_lit(1)"),
        Action("label.focus", "tab", "tab", "Next", "Light up the next answer.", "light(1)", 20, "shown"),
        Action("label.focus-back", "shift+tab", "shift+tab", "Last", "Light up the answer before.", "light(-1)"),
        Action("label.zoom", "z", "z", "Zoom", "Only the lit answer, the next one, all again.", "zoom", 5, "shown"),
        Action("label.stack", "v", "v", "Stack", "Side by side, or one above the other.", "stack", 21, "shown"),
        Action(
            "label.read", "o", "o", "Prompt", "The whole conversation in a window.", "ask('read_prompt')", 22, "shown"
        ),
        Action("label.markdown", "m", "m", "Markdown", "Formatted, or as it was written.", "markdown", 10, "shown"),
        Action(
            "label.diff", "D", "D", "Diff", "Mark the words the other answer does not have.", "word_diff", 9, "shown"
        ),
        Action("label.guideline", "g", "g", "Guideline", "Read or write the guideline.", "ask('guideline')", rank=14),
        Action("label.stats", "i", "i", "Stats", "How you have judged so far.", "ask('statistics')", rank=15),
        Action("label.mode", "M", "M", "Mode", "Pairs, rankings, marks, or accept and reject.", "ask('mode')", rank=16),
        Action("label.rater", "R", "R", "Rater", "Who judges; card and consent.", "ask('raters')", rank=23),
        Action("label.back", "escape", "esc", "Back", "Back; every answer is saved.", "back", rank=3),
    ),
    "settings": (
        Action("settings.change", "enter,space,e", "⏎", "Change", "Change the lit setting.", "change", rank=1),
        Action("settings.reset", "r", "r", "Reset", "Give the lit setting its default again.", "reset", rank=4),
        Action("settings.undo", "u", "u", "Undo", "Take the last change back; again and again.", "undo", rank=5),
        Action("settings.filter", "slash", "/", "Find", "List only what says the words typed.", "filter", rank=3),
        Action("settings.differing", "d", "d", "Changed", "List only what differs, or all.", "differing", rank=6),
        Action(
            "settings.section", "tab,right_square_bracket", "tab", "Section", "The next section.", "turn_section(1)", 7
        ),
        Action(
            "settings.before",
            "shift+tab,left_square_bracket",
            "shift+tab",
            "Section",
            "The section before.",
            "turn_section(-1)",
        ),
        Action("settings.read", "o", "o", "Read", "All about the lit setting, in a window.", "read", rank=11),
        Action("settings.up", "up,k", "↑", "Up", "The setting above.", "move(-1)"),
        Action("settings.down", "down,j", "↓", "Down", "The setting below.", "move(1)"),
        Action("settings.page-up", "pageup", "PgUp", "Page up", "A page up.", "page(-1)"),
        Action("settings.page-down", "pagedown", "PgDn", "Page down", "A page down.", "page(1)"),
        Action("settings.top", "home", "home", "Top", "The first setting.", "far(-1)"),
        Action("settings.end", "end", "end", "End", "The last setting.", "far(1)"),
        Action("settings.back", "escape", "esc", "Back", "All settings again, or back to the stage.", "back", rank=2),
    ),
    "doctor": (
        Action("doctor.read", "enter,o", "⏎", "Read", "All about the lit check, in a window.", "read", rank=3),
        Action("doctor.again", "r", "r", "Look again", "Look at the machine again.", "again", rank=1),
        Action("doctor.up", "up,k", "↑", "Up", "The check above.", "move(-1)"),
        Action("doctor.down", "down,j", "↓", "Down", "The check below.", "move(1)"),
        Action("doctor.page-up", "pageup", "PgUp", "Page up", "A page up.", "page(-1)"),
        Action("doctor.page-down", "pagedown", "PgDn", "Page down", "A page down.", "page(1)"),
        Action("doctor.top", "home", "home", "Top", "The first check.", "far(-1)"),
        Action("doctor.end", "end", "end", "End", "The last check.", "far(1)"),
        Action("doctor.back", "escape", "esc", "Back", "Back to where you were.", "back", rank=2),
    ),
    "chat": (
        Action("chat.afresh", "ctrl+n", "^n", "Afresh", "The next question begins afresh, or not.", "afresh", rank=3),
        Action("chat.stop", "ctrl+t", "^t", "Stop", "Stop the chat; the model is let go of.", "stop", 4, "live"),
        Action("chat.page-up", "pageup", "PgUp", "Page up", "Both a page up.", "page(-1)", rank=6),
        Action("chat.page-down", "pagedown", "PgDn", "Page down", "Both a page down.", "page(1)"),
        Action("chat.back", "escape", "esc", "Back", "Back; the chat goes on for a while.", "back", rank=1),
        Action("chat.help", "f1", "F1", "Help", "All keys of this screen.", "app.help", rank=2),
        Action(
            "chat.copy", "ctrl+y", "^y", "Copy CLI", "Show and copy this as a command line.", "app.copy_command", rank=5
        ),
    ),
    "log": (
        Action("log.older", "tab", "tab", "Older run", "The log of the run before this one.", "turn(1)", 2, "shown"),
        Action("log.newer", "shift+tab", "shift+tab", "Newer", "The log of the run after this one.", "turn(-1)"),
        Action("log.turn-over", "v", "v", "What it did", "What the run did, or its log.", "turn_over", 4, "shown"),
        Action("log.find", "slash", "/", "Find", "Find words, from here upwards.", "find", 3, "shown"),
        Action("log.match-up", "n", "n", "Next match", "The next match, further up.", "again(True)"),
        Action("log.match-down", "N", "N", "Match below", "The match before that, further down.", "again(False)"),
        Action("log.up", "up,k", "↑", "Up", "A line up.", "scroll_log(-1)"),
        Action("log.down", "down,j", "↓", "Down", "A line down.", "scroll_log(1)"),
        Action("log.page-up", "pageup", "PgUp", "Page up", "A page up.", "page(-1)"),
        Action("log.page-down", "pagedown", "PgDn", "Page down", "A page down.", "page(1)"),
        Action("log.top", "home", "home", "Start", "To the beginning of the log.", "start"),
        Action("log.end", "end", "end", "Follow", "To the end, and on with it while the run lives.", "end", 5, "shown"),
        Action("log.path", "c", "c", "Copy path", "Copy where the file lies.", "copy_path", 6, "shown"),
        Action("log.back", "escape", "esc", "Back", "Out of the search, or back to where you were.", "back", rank=1),
    ),
    "home": (
        Action("home.open", "enter", "⏎", "Open", "Open the lit project.", "open", rank=1),
        Action("home.drop", "x", "x", "Drop", "Take the lit project off this list; its folder stays.", "drop", rank=5),
    ),
    "first": (
        Action("first.machine", "1", "1", "Machine", "What this machine can do, in detail.", "machine", rank=3),
        Action("first.sample", "2", "2", "Sample", "Make a sample project, with pairs to judge.", "sample", rank=2),
        Action("first.label", "3", "3", "Label five", "Judge some pairs of the sample project.", "try_labels", rank=1),
    ),
    "begin": (
        Action("begin.new", "n", "n", "New project", "Make a new project of your own.", "new", rank=4),
        Action("begin.demo", "d", "d", "Demo", "See the whole loop on the starter model.", "demo", rank=6),
        Action("begin.machine", "c", "c", "This machine", "What this machine can do, in detail.", "machine", rank=11),
        Action("begin.up", "pageup", "PgUp", "Up", "Scroll up, where not everything fits.", "scroll_body(-1)"),
        Action("begin.down", "pagedown", "PgDn", "Down", "Scroll down, where not everything fits.", "scroll_body(1)"),
    ),
    "dialog": (
        Action("dialog.close", "escape", "esc", "Close", "Close this window.", "close", rank=1),
        Action("dialog.copy", "y", "y", "Copy", "Copy all that the window says.", "app.copy_text"),
    ),
}

#: What the screens in front of the stages are called.
TITLES: Mapping[str, str] = {
    **dict(STAGES),
    "settings": "Settings",
    "doctor": "This machine",
    "log": "Log",
    "chat": "Talk",
}

#: Which groups of keys work on which screen, nearest first.
SCOPES: dict[str, tuple[str, ...]] = {
    **{name: (name, "run", "stage", "app") for name, _ in STAGES},
    **{name: (name, "charts", "run", "stage", "app") for name in ("reward", "ppo")},
    "label": ("label-pair", "label", "app"),
    **{f"label-{kind}": (f"label-{kind}", "label", "app") for kind in ("rank", "rate", "accept")},
    "settings": ("settings", "app"),
    "doctor": ("doctor", "app"),
    "log": ("log", "app"),
    "chat": ("chat",),
    "home": ("home", "begin", "app"),
    "first": ("first", "begin", "app"),
}
#: One earlier judgement is judged again: nothing leads away from it, and esc leaves it as it is.
SCOPES |= {name.replace("label", "rejudge"): groups for name, groups in SCOPES.items() if "label" in groups}
