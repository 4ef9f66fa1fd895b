"""What comes with a project is neither started nor written to before the user of this machine has allowed it."""

from __future__ import annotations

import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_tui import doctor, settings
from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import notify
from rlhf_tui.runs.events import Alert
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.preflight import nobody_told
from rlhf_tui.runs.trust import allowed, trust, trust_file, trust_typed, untrusted
from rlhf_tui.settings import NotifySettings
from tests.runs.listener import keeper, told

ROOT = Path(__file__).parents[2]


def set_in_file(project: Project, **values: str) -> None:
    """As whoever made the project wrote it."""
    for name, value in values.items():
        settings.write(project.config, f"notify.{name}", value)


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf_tui", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def heard_by_the_program(project: Project, run: RunFolder, stages: str, until: Callable[..., None]) -> int:
    """Carry the run out in processes as a user's are; how often its program was started."""
    from rlhf_tui.runs.launcher import launch as start

    before = len(told(project.root))
    start(project, run, stages=stages)
    until(lambda: not run.alive, "the run ends")
    assert run.status() == "finished", run.log_tail(20)
    if notify.settings_of(run).words:
        until(lambda: len(told(project.root)) > before, "the program is told")
    return len(told(project.root)) - before


def alerts(run: RunFolder) -> list[Alert]:
    return [one.event for one in JournalReader(run.events_path).read(60) if isinstance(one.event, Alert)]


def test_what_came_with_a_project_is_not_started_until_the_user_allows_it_and_only_as_it_was(
    project: Project, stages: str, until: Callable[..., None]
) -> None:
    command = shlex.quote(keeper(project.root))
    set_in_file(project, command=command)
    run = create_run(project, "quick")
    assert heard_by_the_program(project, run, stages, until) == 0
    (alert,) = alerts(run)
    assert alert.code == "not-trusted"
    assert "tell me.py" in alert.message
    assert "config trust" in alert.remedy
    assert "notify: The project wants to start a program" in "\n".join(run.log_tail(50))
    said = cli("config", "trust", "--project", project.root)
    assert command in said.stdout
    assert heard_by_the_program(project, run, stages, until) == 1  # the same run, taken up again
    run = create_run(project, "quick")
    assert heard_by_the_program(project, run, stages, until) == 1
    assert alerts(run) == []
    set_in_file(project, command=f"{command} --and more")
    assert heard_by_the_program(project, create_run(project, "quick"), stages, until) == 0


def test_a_copied_project_starts_nothing(project: Project, stages: str, until: Callable[..., None]) -> None:
    command = f"{shlex.quote(keeper(project.root))} --typed"
    said = cli("config", "set", "notify.command", command, "--project", project.root)
    assert said.returncode == 0, said.stderr
    assert heard_by_the_program(project, create_run(project, "quick"), stages, until) == 1
    copy = Project(project.root.with_name("downloaded"))
    shutil.copytree(project.root, copy.root)
    (copy.root / "told.jsonl").unlink()
    assert heard_by_the_program(copy, create_run(copy, "quick"), stages, until) == 0
    again = list_runs(copy)[0]  # what a run was started with comes with a project, too
    assert again.record.settings["notify"]["command"] == command
    assert heard_by_the_program(copy, again, stages, until) == 0


def test_what_is_typed_with_set_is_allowed_and_nothing_else_is(project: Project) -> None:
    set_in_file(project, webhook="https://chat.example.org/secret", command="true")
    trust_typed(project.root, ["notify.command=sh -c true", "ppo.updates=3"])
    typed = project.settings(["notify.command=sh -c true"]).notify
    assert untrusted(typed, project.root) == {"notify.webhook": "https://chat.example.org/secret"}
    assert allowed(typed, project.root).words == ("sh", "-c", "true")
    assert allowed(typed, project.root).webhook == ""
    assert set(untrusted(project.settings().notify, project.root)) == {"notify.command", "notify.webhook"}
    said = nobody_told(project, project.settings())
    assert "chat.example.org" in said
    assert "secret" not in said
    assert "'rlhf-tui config trust'" in said


def test_a_file_of_trust_that_cannot_be_read_allows_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    chosen = NotifySettings(command="true")
    assert allowed(chosen, project.root).command == ""
    trust(project.root, {"notify.command": "true", "notify.webhook": "", "run.seed": "3"})
    trust(project.root, {"notify.command": "true"})
    assert len(trust_file().read_text().split()) == 1
    assert stat.S_IMODE(trust_file().stat().st_mode) == 0o600
    assert "true" not in trust_file().read_text()
    assert allowed(chosen, project.root) == chosen
    trust_file().write_bytes(b"\xff\n")
    assert allowed(chosen, project.root).command == ""
    trust_file().unlink()
    trust_file().mkdir()
    assert allowed(chosen, project.root).command == ""
    with pytest.raises(UserError, match="cannot be written"):
        trust(project.root, {"notify.command": "true"})


def test_the_doctor_says_what_came_with_a_project(project: Project) -> None:
    set_in_file(project, command="true")
    (check,) = [one for one in doctor.examine(project.root) if one.name == "notify"]
    assert (check.status, check.found) == ("note", "notify.command came with the project")
    trust(project.root, {"notify.command": "true"})
    assert [one for one in doctor.examine(project.root) if one.name == "notify"] == []
