"""A PPO run from its first update to its last: checkpoints, alerts, and why it ended."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_tui.runs.events import EventSink, Metric, Progress
from rlhf_tui.settings import GuardSettings
from rlhf_tui.training import guards
from rlhf_tui.training.memory import measure
from rlhf_tui.training.ppo import LEARNING, Ppo


def train_ppo(
    ppo: Ppo,
    guard: GuardSettings,
    *,
    emit: EventSink,
    save: Callable[[Ppo], None],
    boundary: Callable[[Callable[[], None]], None],
) -> str:
    """Run updates until the planned number is done; returns why it ended: 'finished', or an alert's code.

    `save` writes a checkpoint; `boundary` is called between updates with a way to save, and may
    raise to stop.
    """
    emit(Progress(ppo.done, ppo.settings.updates, "updates"))
    prints = {role: ppo.roles.fingerprint(role) for role in LEARNING} if ppo.done == 0 else {}
    saved = ppo.done
    while ppo.done < ppo.settings.updates:
        values = ppo.update()
        if ppo.done == 1:
            emit(measure("ppo update", ppo.roles.base.device))
        if prints and ppo.done > ppo.critic_warmup:
            for role in LEARNING:
                guards.require_moved(prints[role], ppo.roles.fingerprint(role), role)
            prints = {}
        emit(Metric(ppo.done, values))
        emit(Progress(ppo.done, ppo.settings.updates, "updates"))
        alerts = guards.watch(values, ppo.settings, guard)
        for alert in alerts:
            emit(alert)
        stopping = [alert.code for alert in alerts if alert.level == "stop"]
        if stopping or ppo.done - saved >= ppo.settings.save_every or ppo.done == ppo.settings.updates:
            save(ppo)
            saved = ppo.done
        if stopping:
            return stopping[0]
        boundary(lambda: save(ppo))
    return "finished"
