"""What stands on the PPO screen before there is a run: what it would do, its leash, and what it builds on."""

from __future__ import annotations

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.appraisal import LEVELS as LEVELS_OF_REWARD
from rlhf_tui.app.overview import ENOUGH, Overview, Watched
from rlhf_tui.app.screens.reward import heldout_result
from rlhf_tui.app.widgets.panel import Row, lines, tinted
from rlhf_tui.preferences.display import clean
from rlhf_tui.settings import Settings


def plan_rows(settings: Settings) -> list[Row]:
    """What a run would do."""
    ppo = settings.ppo
    looks = f"{ppo.evaluate_prompts} prompts, every {ppo.evaluate_every}" if ppo.evaluate_every else "never"
    return [
        Row("updates", f"{ppo.updates}, saved every {ppo.save_every}"),
        Row("rollout", f"{ppo.rollout_size} completions"),
        Row("learning", f"{ppo.epochs} x {ppo.minibatches} steps a rollout"),
        Row("longest", f"{ppo.max_new_tokens} tokens, temp. {ppo.temperature:g}"),
        Row("learning rate", f"{ppo.policy_learning_rate:g}, value {ppo.value_learning_rate:g}"),
        Row("held-out", looks),
    ]


#: What is done about a serious alert (guard.action).
ACTIONS = {"stop": "stops, keeps the best", "rollback": "back to the best", "warn": "only warns"}


def leash_rows(settings: Settings) -> list[Row]:
    """What keeps the policy near its reference, and what is kept of it."""
    ppo, guard = settings.ppo, settings.guard
    steering = f"for {ppo.kl_target:g} nats" if ppo.kl_target else "fixed"
    best = ppo.keep == "best" and ppo.evaluate_every > 0
    return [
        Row("KL coefficient", f"{ppo.kl_coefficient:g}, {steering}"),
        Row("clip", f"±{ppo.clip:g}, value ±{ppo.value_clip:g}"),
        Row("skips above", f"{1.5 * ppo.target_kl:g} KL in an update" if ppo.target_kl else "never"),
        Row("score", f"±{ppo.score_clip:g}, no EOS: -{ppo.missing_eos_penalty:g}"),
        Row(f"past {guard.max_kl:g} nats", ACTIONS[guard.action]),
        Row("keeps", f"best within {guard.kl_budget:g} nats" if best else "the last policy"),
    ]


def readiness(view: Overview) -> Content:
    """What PPO builds on, with a mark for each."""
    missing = view.missing("ppo")
    labels = words.plural(view.counts.judgements, "judgement")
    kept = words.plural(view.counts.heldout, "held-out prompt")
    enough = view.counts.judgements >= ENOUGH
    return lines(
        tinted("⚠ no reward model yet", "warn") if missing else reward_model(view.run("reward")),
        tinted(f"✓ {labels}", "good") if enough else tinted(f"⚠ {labels}: few; {ENOUGH} and more is usual", "warn"),
        tinted(f"✓ {kept}, kept for comparing", "good")
        if view.counts.heldout
        else tinted("⚠ no held-out prompts to compare on", "warn"),
    )


def reward_model(run: Watched | None) -> Content:
    """What the newest training said of its reward model: the verdict, or what an older version measured."""
    said = run.state.done.result if run and run.state.done else {}
    if said.get("verdict") in LEVELS_OF_REWARD and isinstance(said.get("headline"), str):
        mark, tone = LEVELS_OF_REWARD[said["verdict"]]
        return tinted(f"{mark} reward model: {clean(said['headline'])}", tone)
    result = heldout_result(run)
    there = "✓ a reward model is there"
    if "accuracy" in result:
        there += f": it agrees with {words.percent(result['accuracy'])} of the held-out judgements"
    return tinted(there, "good")
