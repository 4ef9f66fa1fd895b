"""A PPO run from its first update to its last: evaluations, alerts and what follows from them, the best policy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import Alert, Checkpoint, EventSink, Metric, Progress
from rlhf_tui.settings import GuardSettings
from rlhf_tui.training import guards
from rlhf_tui.training.checkpoint import best_facts, keep_best, restore_best
from rlhf_tui.training.heldout import Evaluation, Heldout
from rlhf_tui.training.memory import measure
from rlhf_tui.training.ppo import LEARNING, Ppo
from rlhf_tui.training.watch import Watch

ROLLBACKS = 2
_TOLD = 100  # alerts that the result lists, at most


@dataclass(frozen=True)
class Told:
    """An alert as the result of a run lists it."""

    update: int
    level: str
    code: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What a run came to. Evaluations are None where there were none."""

    ended: str
    """'finished', or the code of the alert that ended it"""
    updates: int
    kept: int
    """the roles are now as they were after this update"""
    why: str
    start: Evaluation | None
    best: Evaluation | None
    end: Evaluation | None
    alerts: tuple[Told, ...]
    rollbacks: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class PpoRun:
    """A run between two updates, and all that a checkpoint holds of it.

    `heldout` may be None: then nothing is evaluated, there is no best policy, and the last one is kept.
    """

    def __init__(
        self, ppo: Ppo, guard: GuardSettings, *, emit: EventSink, checkpoints: Path, heldout: Heldout | None = None
    ) -> None:
        self.ppo = ppo
        self._guard, self._emit, self._checkpoints = guard, emit, checkpoints
        self._heldout = heldout if ppo.settings.evaluate_every else None
        self._watch = Watch(ppo.settings, guard)
        self._start: Evaluation | None = None
        self._best: Evaluation | None = None
        self._end: Evaluation | None = None
        self._told: list[Told] = []
        self._rollbacks = 0
        self._ended = ""

    # -- what a checkpoint holds --------------------------------------------------------------

    @property
    def roles(self) -> Roles:
        return self.ppo.roles

    @property
    def optimisers(self) -> dict[Role, torch.optim.AdamW]:
        return self.ppo.optimisers

    @property
    def done(self) -> int:
        return self.ppo.done

    def state(self) -> dict[str, Any]:
        """What decides the rest of the run, beside weights and optimisers."""
        return {
            "ppo": self.ppo.state(),
            "watch": self._watch.state(),
            "heldout": self._heldout.state() if self._heldout else None,
            "start": asdict(self._start) if self._start else None,
            "best": asdict(self._best) if self._best else None,
            "end": asdict(self._end) if self._end else None,
            "told": [asdict(one) for one in self._told],
            "rollbacks": self._rollbacks,
            "ended": self._ended,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Those of the learner."""
        return self.ppo.tensors()

    def resume(self, done: int, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Be where another one was when it gave `state`; weights and optimisers are the caller's."""
        self.ppo.resume(done, state["ppo"], tensors)
        self._watch.resume(state["watch"])
        if self._heldout and state["heldout"]:
            self._heldout.resume(state["heldout"])
        self._start, self._end = _evaluation(state["start"]), _evaluation(state["end"])
        self._told = [Told(**one) for one in state["told"]]
        self._rollbacks, self._ended = int(state["rollbacks"]), str(state["ended"])
        self._scale_rates(0.5**self._rollbacks)
        # The folder may be ahead of the checkpoint, when the run died between the two: the same updates come again.
        self._best = _evaluation(best_facts(LEARNING, self._checkpoints)) if state["best"] else None
        if state["best"] and self._best is None:
            self._tell([_best_is_lost(self._checkpoints)])

    # -- the run ------------------------------------------------------------------------------

    def run(self, *, save: Callable[[PpoRun], None], boundary: Callable[[Callable[[], None]], None]) -> Outcome:
        """Update until the planned number is done or an alert ends it; then the roles are as in the policy to keep.

        `save` writes a checkpoint; `boundary` is called between updates with a way to save, and may raise to stop.
        Raises UserError when the training broke down and there is nothing to go back to.
        """
        self._emit(Progress(self.done, self.ppo.settings.updates, "updates"))
        if self.done == 0 and self._start is None and self._heldout:
            if not self._heldout.has_second_opinion:
                self._tell([_no_gold()])
            self._evaluate()
            self._emit(measure("evaluation", self.roles.base.device))
            boundary(lambda: save(self))
        prints, saved = self._prints(), self.done
        while not self._ended and self.done < self.ppo.settings.updates:
            rollbacks, unreached = self._rollbacks, [role for role in prints if not self.roles.reaches(role)]
            if not self._survive_round():
                break
            if prints and self.done > self.ppo.critic_warmup and rollbacks == self._rollbacks:
                prints = self._moved(prints, unreached)
            due = self.done - saved >= self.ppo.settings.save_every or rollbacks != self._rollbacks
            if self._ended or due or self.done == self.ppo.settings.updates:
                save(self)
                saved = self.done
            if not self._ended:
                boundary(lambda: save(self))
        return self._outcome()

    def _prints(self) -> dict[Role, str]:
        """The adapters before the policy's first step; in a run that is past it, those that are yet to move."""
        past = self.done > self.ppo.critic_warmup
        return {role: self.roles.adapter_fingerprint(role) for role in LEARNING if not past or self.ppo.skips(role)}

    def _moved(self, prints: Mapping[Role, str], unreached: Collection[Role]) -> dict[Role, str]:
        """Raise UserError when an adapter has not moved.

        Those that could not are left for later: their steps are being skipped, or no gradient had reached them.
        """
        left = {role: before for role, before in prints.items() if self.ppo.skips(role) or role in unreached}
        for role in prints.keys() - left.keys():
            guards.require_moved(prints[role], self.roles.adapter_fingerprint(role), role)
        return left

    def _survive_round(self) -> bool:
        """One round; False when it broke down and the run is over. Raises NotFinite when there is nothing to keep."""
        try:
            self._round()
        except guards.NotFinite as error:
            return self._broke_down(error)
        return True

    def _round(self) -> None:
        """One update, an evaluation when it is due, and what follows from their numbers."""
        values = self.ppo.update()
        self._emit(Metric(self.done, values))
        self._emit(Progress(self.done, self.ppo.settings.updates, "updates"))
        serious = self._tell(self._watch.after_update(values))
        last = self.done == self.ppo.settings.updates
        over = bool(serious) and not self._may_go_on()
        if self._heldout and (last or over or self.done % self.ppo.settings.evaluate_every == 0):
            serious += self._evaluate()
        if serious:
            self._act(serious[0])

    def _evaluate(self) -> list[str]:
        """Look at the policy on held-out prompts and keep it if it is the best so far; codes of serious alerts."""
        assert self._heldout is not None
        found = self._heldout.evaluate(self.done)
        serious = self._tell(self._watch.after_evaluation(found))
        self._start = self._start or found
        self._end = found
        better = self._best is None or self._rank(found) > self._rank(self._best)
        if better and (found is self._start or self._is_sound(found)):
            self._best = found
            folder = keep_best(self.roles, LEARNING, asdict(found), self._checkpoints)
            self._emit(Checkpoint(found.update, f"{folder.parent.name}/{folder.name}", best=True))
        return serious

    def _is_sound(self, found: Evaluation) -> bool:
        return found.kl <= self._guard.kl_budget and found.repetition <= self._watch.repetition_limit

    def _rank(self, found: Evaluation) -> float:
        """What 'best' means: the gain over the start; with a second reward model, the smaller of the two gains.

        One that has found a fault of the reward model gains by the one and loses by the other (worst case of an
        ensemble: Coste et al., 2024).
        """
        assert self._start is not None
        gain = found.score - self._start.score
        if found.gold is None or self._start.gold is None:
            return gain
        return min(gain, found.gold - self._start.gold)

    # -- alerts and what follows --------------------------------------------------------------

    def _tell(self, alerts: Iterable[Alert]) -> list[str]:
        """Emit alerts; returns the codes of the serious ones. Those that do not end the run are called warnings."""
        serious = []
        for alert in alerts:
            if alert.level == "stop":
                serious.append(alert.code)
                alert = msgspec.structs.replace(alert, level="warning") if self._may_go_on() else alert
            self._emit(alert)
            if len(self._told) < _TOLD:
                self._told.append(Told(self.done, alert.level, alert.code, alert.message))
        return serious

    def _may_go_on(self) -> bool:
        """Whether a serious alert leaves the run something to go on with."""
        action = self._guard.action
        return action == "warn" or (action == "rollback" and self._rollbacks < ROLLBACKS and self._best is not None)

    def _act(self, code: str) -> None:
        if not self._may_go_on():
            self._ended = code
        elif self._guard.action == "rollback":
            self._roll_back(code)

    def _roll_back(self, code: str) -> None:
        """Go on from the best policy, held nearer to the reference and with smaller steps."""
        assert self._best is not None
        restore_best(self.roles, LEARNING, self._checkpoints)
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
            optimiser.state.clear()
        self._scale_rates(0.5)
        self.ppo.kl_coefficient *= 2
        self._rollbacks += 1
        self._watch.forget()
        self._tell(
            [
                Alert(
                    "note",
                    "rolled-back",
                    f"Back to the policy of update {self._best.update} ({code}).",
                    why=f"guard.action is 'rollback'; this is number {self._rollbacks} of {ROLLBACKS}.",
                    remedy=f"It goes on with twice the KL coefficient ({self.ppo.kl_coefficient:g}) and half the "
                    "learning rates.",
                )
            ]
        )

    def _scale_rates(self, factor: float) -> None:
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["peak"] *= factor

    def _broke_down(self, error: guards.NotFinite) -> bool:
        """NaN or infinity in an update, whose weights are now worth nothing; True when the run goes on."""
        rolls_back = self._guard.action == "rollback" and self._may_go_on()
        kept = self._best is not None and self._best.update > 0 and self.ppo.settings.keep == "best"
        if not rolls_back and (self._guard.action == "warn" or not kept):
            raise error
        self._tell([Alert("stop", "nan", error.what, why=error.why, remedy=error.todo)])
        self._act("nan")
        return rolls_back

    # -- the end ------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        kept, why = self.done, ""
        if self.ppo.settings.keep == "last":
            why = "ppo.keep is 'last'."
        elif self._best is None:
            why = "Nothing was evaluated on held-out prompts, so the last policy is kept."
        else:
            restore_best(self.roles, LEARNING, self._checkpoints)
            kept, why = self._best.update, self._reason(self._best)
        return Outcome(
            ended=self._ended or "finished",
            updates=self.done,
            kept=kept,
            why=why,
            start=self._start,
            best=self._best,
            end=self._end,
            alerts=tuple(self._told),
            rollbacks=self._rollbacks,
        )

    def _reason(self, best: Evaluation) -> str:
        budget = self._guard.kl_budget
        by = "held-out score" if best.gold is None else "held-out score (the smaller gain of the two reward models)"
        if best.update == 0:
            return f"Nothing within {budget:g} nats beat the start by its {by}: the policy that is kept is the base."
        return f"The best {by} within {budget:g} nats: {self._rank(best):+.2f} deviations over the start."


def _evaluation(facts: Mapping[str, Any] | None) -> Evaluation | None:
    return Evaluation(**facts) if facts else None


def _no_gold() -> Alert:
    return Alert(
        "note",
        "no-gold",
        "There is no second reward model: when the policy learns to exploit a fault of the first, nothing tells.",
        why="reward.ensemble was 1 when the reward model was trained, or the folder of that run is gone or damaged.",
        remedy="For a second opinion set reward.ensemble=2, train the reward model again, and then start PPO.",
    )


def _best_is_lost(checkpoints: Path) -> Alert:
    return Alert(
        "warning",
        "best-lost",
        f"The best policy so far cannot be read from {checkpoints}.",
        why="A file is missing or damaged.",
        remedy="The next evaluation starts the search for the best policy again.",
    )
