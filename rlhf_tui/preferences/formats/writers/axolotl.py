"""axolotl's rows for DPO and reward models (docs/rlhf.qmd, docs/reward_modelling.qmd, July 2026).

Its `zephyr.nectar` reads the shape of berkeley-nest/Nectar, in which rank 1 is the best answer, but sorts by
rank and takes the last as chosen (src/axolotl/prompt_strategies/dpo/zephyr.py): the worst one. The file here
keeps the data set's meaning, and says so in its manifest.
"""

from __future__ import annotations

from rlhf_tui.preferences.formats.writers.shapes import Row, Unfit, answer, conversation, plain, single, unmistakable
from rlhf_tui.preferences.records import Judged, LabelledPair, Verdict

NO_RANKING = "judgements that rank nothing"

_CONFIG = "datasets:\n  - ds_type: json\n    data_files:\n      - {file}\n    split: train\n    type: "
USE = {
    "axolotl": f"rl: dpo\nchat_template: tokenizer_default\n{_CONFIG}chat_template.default\n",
    "axolotl-intel": f"rl: dpo\n{_CONFIG}chatml.intel  # or llama3.intel, by the model\n",
    "axolotl-nectar": (
        "Rank 1 is the best answer, equal ranks are ties, as in berkeley-nest/Nectar. Do not train on it with "
        "axolotl's own 'zephyr.nectar': up to July 2026 that takes the two highest rank numbers, the worst two "
        "answers, and prefers the worst. For training in axolotl export 'axolotl', which holds every pair."
    ),
    "axolotl-rm": f"reward_model: true\nchat_template: tokenizer_default\n{_CONFIG}bradley_terry.chat_template\n",
}


def chat(pair: LabelledPair, judged: Judged) -> Row:
    """`chat_template.default`: the prompt's messages, and each answer as one message."""
    return {
        "messages": conversation(pair.prompt.messages),
        "chosen": answer(pair.chosen.text),
        "rejected": answer(pair.rejected.text),
    }


def intel(pair: LabelledPair, judged: Judged) -> Row:
    """`chatml.intel`. Raises Unfit for a prompt of several turns."""
    system, text = single(pair.prompt)
    return {
        "system": system,
        "question": unmistakable(text),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
    }


def bradley_terry(pair: LabelledPair, judged: Judged) -> Row:
    """`bradley_terry.chat_template`; the system message is always there, maybe empty. Raises Unfit."""
    system, text = single(pair.prompt)
    return {"system": system, "input": unmistakable(text), "chosen": pair.chosen.text, "rejected": pair.rejected.text}


def nectar(judged: Judged) -> Row:
    """A whole ranking, best rank 1, in the order on screen. Raises Unfit."""
    ranks = ranking(judged.verdict)
    answers = [{"answer": one.text, "rank": rank} for one, rank in zip(judged.shown, ranks, strict=True)]
    return {"prompt": unmistakable(plain(judged.prompt)), "answers": answers}


def ranking(verdict: Verdict) -> tuple[int, ...]:
    """The rank of each candidate, 1 is best: as it was given, or by the ratings. Raises Unfit.

    Accepted and rejected answers make no ranking: two accepted ones need not be equally good.
    """
    marks = verdict.ranks or tuple(-rating for rating in verdict.ratings)
    if len(marks) < 2:
        raise Unfit(NO_RANKING)
    return tuple(1 + sum(other < mark for other in marks) for mark in marks)
