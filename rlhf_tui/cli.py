"""The command line: one thin function for each verb, and the entry point.

Nothing heavy is imported here: every verb imports what it needs when it is called. With --json a
verb prints one JSON document on standard output and nothing else there. Exit codes: 0 done,
1 failed, 2 wrong use. The verbs of settings and prompts are in `cli_content`, those of judgements and
raters in `cli_labels`, those of the base model in `cli_model`, those of training, runs and exports in
`cli_runs`; `verbs` says how a verb that runs the model works.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rlhf_tui import __version__, cli_bench, cli_content, cli_labels, cli_model, cli_runs, verbs
from rlhf_tui.cli_options import HERE, Detach, Folder, Json, Set
from rlhf_tui.errors import UsageError, UserError, nearest

app = typer.Typer(
    name="rlhf-tui",
    help="Teach a language model your taste, in your terminal, on the one GPU you own.\n\n"
    "'rlhf-tui demo' shows the whole loop on a small model; 'rlhf-tui [DIR]' opens the app on a project.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_content.config, name="config")
app.add_typer(cli_content.prompts, name="prompts")
app.add_typer(cli_labels.labels, name="labels")
app.add_typer(cli_model.model, name="model")
app.add_typer(cli_runs.train, name="train")
app.add_typer(cli_runs.runs, name="runs")
app.add_typer(cli_runs.export, name="export")


@app.command("open", hidden=True)
def open_app(directory: Annotated[Path, typer.Argument(metavar="[DIR]")] = HERE) -> None:
    """Open the app on a project, or, where there is none, at Home: with all projects, and the way to a first one."""
    from rlhf_tui.project import open_project
    from rlhf_tui.projects import seems_project

    project = open_project(directory) if seems_project(directory) or not verbs.is_terminal() else None
    verbs.require_terminal("The app")
    verbs.open_app(project, Path.cwd() if project else directory)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the demo project goes.")] = Path(
        "rlhf-demo"
    ),
    headless: Annotated[bool, typer.Option("--headless", help="Without the app: progress bars and a report.")] = False,
    as_json: Json = False,
    settings: Set = None,
) -> None:
    """The whole loop on the starter model: generate, reward, PPO, compare, export."""
    verbs.run_demo(directory, headless, settings or [], as_json)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    model: Annotated[str, typer.Option(metavar="ID|PATH|starter", help="The base model.")] = "starter",
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Make a new project."""
    from rlhf_tui.projects import new_project
    from rlhf_tui.runs.trust import trust_typed

    project = new_project(directory, model, settings or ())
    trust_typed(project.root, settings or ())
    verbs.say(
        {"project": str(project.root), "model": project.settings().model.name},
        f"{project.root} is ready.\nNext: 'rlhf-tui prompts import FILE --project {directory}', then 'rlhf-tui "
        f"{directory}'.",
        as_json,
    )


@app.command()
def doctor(project: Folder = HERE, as_json: Json = False) -> None:
    """Can this machine do it: card, memory, packages, terminal."""
    from dataclasses import asdict

    from rlhf_tui.doctor import examine
    from rlhf_tui.reports import examination

    checks = examine(project)
    verbs.say([asdict(check) for check in checks], examination(checks), as_json)
    if any(check.status == "problem" for check in checks):
        raise typer.Exit(1)


@app.command()
def fit(
    model: Annotated[str, typer.Option(metavar="ID|PATH|starter", help="Empty: the project's, or the starter.")] = "",
    card: Annotated[float, typer.Option(min=0, metavar="GIB", help="Memory of the card; 0 asks the machine.")] = 0.0,
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """The memory plan, stage by stage: estimated, not measured."""
    from rlhf_tui.fit_report import fit_report

    document, text = fit_report(project, model, card, settings or ())
    verbs.say(document, text, as_json)


@app.command()
def bench(
    model: Annotated[str, typer.Option(metavar="ID|PATH|starter", help="Empty: the project's, or the starter.")] = "",
    project: Folder = HERE,
    settings: Set = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Speed and memory of each phase of PPO on this machine: measured."""
    cli_bench.run_bench(project, model, settings or (), detach, as_json)


@app.command()
def generate(
    count: Annotated[int | None, typer.Option("--prompts", min=1, help="How many prompts, at most.")] = None,
    each: Annotated[int | None, typer.Option("--per-prompt", min=2, help="Candidates for each prompt.")] = None,
    project: Folder = HERE,
    settings: Set = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Sample candidates to judge."""
    overrides = list(settings or ())
    overrides += [f"generate.prompts={count}"] if count is not None else []
    overrides += [f"generate.per_prompt={each}"] if each is not None else []
    verbs.run_stage(project, "generate", overrides, {}, detach, as_json)


@app.command()
def label(
    plain: Annotated[bool, typer.Option("--plain", help="Line by line, without the app.")] = False,
    rater: Annotated[str, typer.Option(metavar="NAME", help="Who judges; empty: you.")] = "",
    mode: Annotated[str, typer.Option(metavar="pair|rank|rate|accept", help="Default: label.mode.")] = "",
    candidates: Annotated[int | None, typer.Option(metavar="K", help="How many to rank or rate at a time.")] = None,
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Judge candidates: pairs, rankings, marks, or accept and reject."""
    from rlhf_tui.app.labelling import rules_of
    from rlhf_tui.project import open_project

    opened = open_project(project)
    overrides = list(settings or ())
    overrides += [f"label.mode={mode}"] if mode else []
    overrides += [f"label.candidates={candidates}"] if candidates is not None else []
    rules = rules_of(opened.settings(overrides).label)
    if plain or as_json or not verbs.is_terminal():
        from rlhf_tui.label_plain import label_plain

        out = sys.stderr if as_json else sys.stdout
        left = label_plain(opened, rater, rules=rules, source=sys.stdin, out=out)
        verbs.say(left.as_dict(), left.text(), as_json)
        return
    verbs.open_app(opened, Path.cwd(), start="label", rater=rater, rules=rules)


@app.command()
def compare(project: Folder = HERE, settings: Set = None, detach: Detach = False, as_json: Json = False) -> None:
    """Before and after on held-out prompts."""
    verbs.run_stage(project, "compare", settings or [], {}, detach, as_json)


@app.command()
def chat(
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="One question; then it ends.")] = "",
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Talk to base and tuned model side by side: one question a line, or one with --message."""
    from rlhf_tui.chat_plain import chat_lines, chat_once
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.trust import trust_typed

    if as_json and not message:
        raise UsageError("--json answers one question.", todo="Say which with --message TEXT.")
    opened = open_project(project)
    trust_typed(opened.root, settings or ())
    if message:
        verbs.say(*chat_once(opened, settings or (), message, sys.stderr), as_json)
    else:
        chat_lines(opened, settings or (), sys.stdin, sys.stdout, sys.stderr)


@app.command("help")
def help_about(
    topic: Annotated[str, typer.Argument(metavar="[TOPIC]", help="Empty: which topics there are.")] = "",
    as_json: Json = False,
) -> None:
    """What the program means by its words: 'rlhf-tui help reward'."""
    from rlhf_tui.reports import TOPICS, help_on, help_topics

    if topic:
        verbs.say({"topic": topic, "text": (text := help_on(topic))}, text, as_json)
    else:
        verbs.say({"topics": TOPICS}, help_topics(), as_json)


# -- the entry point ------------------------------------------------------------------------------


def main() -> None:
    """Entry point: a folder as the first word opens the app; errors become one message and an exit code."""
    _print_whatever_comes()
    as_json = "--json" in sys.argv[1:]
    try:
        code = app(_with_default_verb(sys.argv[1:]), prog_name="rlhf-tui", standalone_mode=False)
    except UserError as error:
        _fail(error, as_json)
    except typer.TyperException as error:
        _fail(UsageError(error.format_message(), todo="See 'rlhf-tui --help'."), as_json)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _print_whatever_comes() -> None:
    """A terminal without UTF-8, or a file name that is not text, must not turn a message into a traceback."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _with_default_verb(arguments: list[str]) -> list[str]:
    """The arguments with the verb 'open' put in front where none is given. Raises UsageError for an unknown word."""
    if not arguments:
        return ["open"]
    first = arguments[0]
    if first in ("--version", "-V"):
        typer.echo(f"rlhf-tui {__version__}")
        sys.exit(0)
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {str(group.name) for group in app.registered_groups}
    if first.startswith("-") or first in known:
        return arguments
    if Path(first).exists():
        return ["open", *arguments]
    raise UsageError(
        f"There is no command or project folder {first!r}.",
        why=nearest(first, known - {"open"}),
        todo="See 'rlhf-tui --help'.",
    )


def _fail(error: UserError, as_json: bool) -> None:
    from rlhf_tui.preferences.display import clean

    if as_json:
        verbs.say({"error": error.as_dict()}, "", as_json)
    else:
        typer.echo(clean(str(error)), err=True)
    sys.exit(error.exit_code)
