"""The memory plan against published figures, a second implementation, and its own logic."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhf_tui import fit, settings
from rlhf_tui.errors import UsageError
from rlhf_tui.fit import GIB, MemoryPlan
from rlhf_tui.fit_verdict import verdict
from rlhf_tui.locate import Location
from rlhf_tui.settings import Settings
from rlhf_tui.shape import STARTER_SHAPE, ModelShape, shape_of


def shape(name: str, *sizes: int, tied: bool) -> ModelShape:
    """Sizes: layers, hidden, heads, kv heads, head dimension, intermediate, vocabulary."""
    layers, hidden, heads, kv_heads, head, intermediate, vocabulary = sizes
    bias = name.startswith("Qwen2.5")
    return ModelShape(name, layers, hidden, heads, kv_heads, head, intermediate, vocabulary, tied, bias)


SHAPES = {
    one.name: one
    for one in (
        shape("SmolLM2-360M", 32, 960, 15, 5, 64, 2560, 49152, tied=True),
        shape("Qwen2.5-0.5B", 24, 896, 14, 2, 64, 4864, 151936, tied=True),
        shape("Llama-3.2-1B", 16, 2048, 32, 8, 64, 8192, 128256, tied=True),
        shape("Qwen2.5-1.5B", 28, 1536, 12, 2, 128, 8960, 151936, tied=True),
        shape("SmolLM2-1.7B", 24, 2048, 32, 32, 64, 8192, 49152, tied=True),
        shape("Llama-3.2-3B", 28, 3072, 24, 8, 128, 8192, 128256, tied=True),
        shape("Qwen2.5-3B", 36, 2048, 16, 2, 128, 11008, 151936, tied=True),
        shape("Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064, tied=False),
        shape("Llama-3.1-8B", 32, 4096, 32, 8, 128, 14336, 128256, tied=False),
    )
}
EIGHT = SHAPES["Llama-3.1-8B"]

# A published estimate in GiB: 4-bit base, adapters with Adam, sampling, and the peak without chunked logits and
# without gradient checkpointing. Rank 16, 16 sequences of 128 + 256 tokens, four in a forward pass.
PUBLISHED = {
    "SmolLM2-360M": (0.24, 0.27, 0.30, 4.9),
    "Qwen2.5-0.5B": (0.43, 0.28, 0.17, 6.8),
    "Llama-3.2-1B": (0.96, 0.36, 0.36, 7.9),
    "Qwen2.5-1.5B": (1.06, 0.58, 0.33, 11.3),
    "SmolLM2-1.7B": (0.96, 0.57, 1.29, 9.0),
    "Llama-3.2-3B": (2.09, 0.77, 0.86, 14.0),
    "Qwen2.5-3B": (1.91, 0.95, 0.42, 16.7),
    "Qwen2.5-7B": (5.17, 1.28, 0.67, 24.4),
    "Llama-3.1-8B": (5.31, 1.33, 1.05, 24.4),
}

# Published numbers of parameters (model cards and safetensors indices).
PARAMETERS = {
    "Qwen2.5-0.5B": 494_032_768,
    "Llama-3.2-1B": 1_235_814_400,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Llama-3.2-3B": 3_212_749_824,
    "Qwen2.5-7B": 7_615_616_512,
    "Llama-3.1-8B": 8_030_261_248,
}


def tree(**sections: dict[str, object]) -> Settings:
    return settings.from_tree(sections, origin="test")


def planned(
    model: ModelShape = STARTER_SHAPE,
    wanted: Settings | None = None,
    *,
    quantisation: fit.Quantisation = "nf4",
    device: fit.Device = "cuda",
) -> MemoryPlan:
    return fit.plan(model, wanted or Settings(), quantisation=quantisation, device=device)


QUANTISATIONS: tuple[fit.Quantisation, ...] = ("nf4", "int8", "none")
DEVICES: tuple[fit.Device, ...] = ("cpu", "cuda")


PUBLISHED_SETTINGS = tree(
    model={"max_prompt_tokens": 128},
    adapters={"rank": 16},
    generate={"batch_size": 16, "max_new_tokens": 256},
    reward={"ensemble": 1},
    ppo={"rollout_size": 16, "max_new_tokens": 256, "micro_batch_tokens": 4 * 384},
)


# -- against other people's numbers ---------------------------------------------------------------


def test_the_starter_has_its_exact_number_of_parameters() -> None:
    assert STARTER_SHAPE.parameters == 134_515_008


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_counted_exactly(name: str) -> None:
    assert SHAPES[name].parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_base_adapters_and_cache_match_the_published_estimate(name: str) -> None:
    base, adapters, sampling, peak = PUBLISHED[name]
    plan = planned(SHAPES[name], PUBLISHED_SETTINGS)
    cell = 0.005  # the table is rounded to two decimals
    assert plan.ppo.parts.weights / GIB == pytest.approx(base, rel=0.02, abs=cell)
    # published: two roles with weights, gradients and Adam states, one in 16 bit (34 bytes a number); here the frozen
    # one is in fp32 as well, and only one role has gradients at a time (32 bytes)
    assert plan.ppo.parts.adapters / GIB * 34 / 32 == pytest.approx(adapters, rel=0.02, abs=cell)
    # published with all prompts read at once and logits of 8 bytes a word; here prompts are read in parts
    model = SHAPES[name]
    reading = 2 * 16 * 128 * (8 * model.hidden + 3 * model.intermediate)
    cache = plan.generate.parts.cache / GIB
    assert cache + (8 * 16 * model.vocabulary + reading) / GIB == pytest.approx(sampling, rel=0.02, abs=cell)
    assert plan.generate.peak - fit.CONTEXT_BYTES < 1.06 * (base + sampling + cell) * GIB
    # published without gradient checkpointing, as others keep their layers; here half as much is kept
    assert 0.4 * peak < plan.ppo.peak / GIB < peak


# -- a second implementation ----------------------------------------------------------------------

SMALL = ModelShape("small", 3, 8, 2, 1, 6, 20, 5000, False, attention_bias=True)


def test_every_matrix_by_hand() -> None:
    layer = [(8, 12), (8, 6), (8, 6), (12, 8), (8, 20), (8, 20), (20, 8)]  # q k v o gate up down
    assert SMALL.linear_parameters == 3 * sum(rows * columns for rows, columns in layer)
    assert SMALL.other_parameters == 2 * 5000 * 8 + 7 * 8 + 3 * (12 + 6 + 6)
    assert SMALL.adapter_parameters(5, 2) == 2 * sum(5 * (rows + columns) for rows, columns in layer)
    assert SMALL.adapter_parameters(5, 0) == SMALL.adapter_parameters(5, 3) == SMALL.adapter_parameters(5, 9)


def test_every_part_of_the_ppo_peak_by_hand() -> None:
    wanted = tree(
        model={"max_prompt_tokens": 16},
        adapters={"rank": 2, "layers": 2},
        ppo={"rollout_size": 4, "max_new_tokens": 8, "micro_batch_tokens": 64},
    )
    stage = planned(SMALL, wanted, quantisation="none", device="cpu").ppo
    adapter = SMALL.adapter_parameters(2, 2)
    by_hand = {
        "weights": 4 * SMALL.parameters,
        "unpacked": 0,
        # four roles' numbers, two roles' Adam states, one role's gradients, and two roles' numbers and states once
        # more; heads (8 + 1 numbers) for three, one, one and one
        "adapters": 4 * (4 * adapter + 2 * 2 * adapter + adapter + 2 * 3 * adapter) + 4 * 9 * (3 + 2 + 1 + 3),
        "cache": 0,
        "activations": 2 * 64 * 4 * (4 * 8 + 2 * 12 + 2 * 6 + 2 * 20 + 7 * 2) + 4 * 4 * 64 * 8,
        "logits": 8 * 64 * 5000,
        "rollout": 4 * 24 * (56 + 2 * 4 * 8),
    }
    found = {name: getattr(stage.parts, name) for name in by_hand}
    assert stage.moment == "log-probabilities"
    assert found == by_hand
    assert stage.parts.overhead == GIB // 2 + int(0.06 * sum(by_hand.values()))
    assert stage.peak == sum(by_hand.values()) + stage.parts.overhead


def test_sampling_by_hand() -> None:
    wanted = tree(
        model={"max_prompt_tokens": 16}, generate={"batch_size": 3, "max_new_tokens": 8}, ppo={"rollout_size": 3}
    )
    stage = planned(SMALL, wanted, quantisation="int8", device="cuda").generate
    reading, sampling = (moment.parts for moment in stage.moments)
    assert stage.phases == {"sampling": sampling}
    for parts in (reading, sampling):
        assert parts.cache == 2 * 3 * 6 * 2 * 3 * (16 + 8 - 1)  # keys and values, layers, width, bytes, rows, tokens
        assert parts.unpacked == 2 * 8 * 20
        assert parts.overhead == fit.CONTEXT_BYTES + int(0.06 * (parts.total - parts.overhead))
    assert (reading.activations, reading.logits) == (2 * 3 * 16 * (3 * 8 + 4 * 20), 0)
    assert (sampling.activations, sampling.logits) == (0, 3 * 5000 * (2 + 12))
    many = tree(model={"max_prompt_tokens": 16}, generate={"batch_size": 500, "max_new_tokens": 8, "top_p": 0.5})
    reading, sampling = (
        moment.parts for moment in planned(SMALL, many, quantisation="int8", device="cuda").generate.moments
    )
    assert reading.activations == 2 * 1024 * (3 * 8 + 4 * 20)
    assert sampling.logits == 500 * 5000 * (2 + 28)


def test_the_second_copy_of_the_weights_while_sampling_on_the_cpu() -> None:
    def blocks(model: ModelShape, quantisation: fit.Quantisation, device: fit.Device) -> int:
        plan = planned(model, quantisation=quantisation, device=device)
        assert plan.ppo.phases["scoring"].blocks == plan.ppo.phases["update"].blocks == 0
        return plan.generate.parts.blocks

    words = 49152 * 576
    assert blocks(STARTER_SHAPE, "none", "cpu") == 4 * (STARTER_SHAPE.linear_parameters + words)
    assert blocks(STARTER_SHAPE, "nf4", "cpu") == 4 * words
    assert blocks(EIGHT, "none", "cpu") == blocks(STARTER_SHAPE, "none", "cuda") == 0
    short = tree(generate={"max_new_tokens": 31})  # too few steps to pay for them
    assert planned(STARTER_SHAPE, short, quantisation="none", device="cpu").generate.parts.blocks == 0


def test_heads_that_read_lower_carry_fewer_layers() -> None:
    def at(layer: int) -> fit.MemoryPlan:
        return planned(SMALL, tree(adapters={"rank": 2}, reward={"layer": layer}), quantisation="none", device="cpu")

    kept = 2 * 1024 * 4 * (4 * 8 + 2 * 12 + 2 * 6 + 2 * 20 + 7 * 2) // 2  # of one layer, in a pass of 1024 tokens
    own = SMALL.adapter_parameters(2, 1)
    low, end = at(1), at(SMALL.layers)
    assert at(0).ppo == end.ppo  # not chosen yet
    assert end.reward.parts.activations - low.reward.parts.activations == (SMALL.layers - 1) * kept
    assert end.reward.parts.adapters - low.reward.parts.adapters == 16 * (SMALL.layers - 1) * own
    # of the value its numbers, Adam states and the copy that takes an update back, of two reward models their numbers
    fewer = (SMALL.layers - 1) * own
    assert end.ppo.parts.adapters - low.ppo.parts.adapters == (4 + 8 + 12 + 2 * 4) * fewer
    assert end.compare.parts.adapters - low.compare.parts.adapters == 4 * fewer


def test_a_copy_of_4_bit_weights_is_planned_where_it_raises_no_peak() -> None:
    def ppo(wish: str, **changes: int) -> fit.StagePlan:
        settings = tree(ppo={"sampling_weights": wish, **changes})
        return planned(STARTER_SHAPE, settings, quantisation="nf4", device="cuda").ppo

    size = 2 * STARTER_SHAPE.linear_parameters
    without, roomy, asked = ppo("quantised"), ppo("auto"), ppo("copy")
    assert {name: parts.copy for name, parts in roomy.phases.items()} == {
        "evaluation": size, "sampling": size, "scoring": 0, "update": 0,
    }  # fmt: skip
    assert asked.phases == roomy.phases
    assert roomy.peak == without.peak
    assert fit.copy_room(without) == pytest.approx(fit.copy_room(roomy), abs=2)
    assert fit.copy_room(without) >= size
    tight = {"micro_batch_tokens": 64, "rollout_size": 512, "sampling_rows": 512, "evaluate_every": 0}
    assert fit.copy_room(ppo("quantised", **tight)) < size
    assert ppo("auto", **tight) == ppo("quantised", **tight)
    more = ppo("copy", **tight).peak - ppo("quantised", **tight).peak
    assert more == pytest.approx(1.06 * size, abs=2)


def test_a_copy_that_does_not_fit_is_given_up_before_anything_else() -> None:
    plan = planned(EIGHT, tree(ppo={"sampling_weights": "copy"}))
    found = {one.stage: one for one in verdict(plan, planned(EIGHT).ppo.peak)}
    assert found["ppo"].lower == found["compare"].lower == ("ppo.sampling_weights=auto",)


def test_only_4_bit_weights_are_unpacked() -> None:
    asked = tree(ppo={"sampling_weights": "copy"})
    for quantisation in ("int8", "none"):
        assert planned(STARTER_SHAPE, asked, quantisation=quantisation).ppo.phases["sampling"].copy == 0
    compare = planned(STARTER_SHAPE, asked).compare.phases
    assert compare["sampling"].copy > compare["scoring"].copy == 0
    assert planned(STARTER_SHAPE).compare.phases["sampling"].copy == 0


def test_reward_learning_by_hand() -> None:
    wanted = tree(
        model={"max_prompt_tokens": 64},
        adapters={"rank": 2, "layers": 2},
        generate={"max_new_tokens": 36},
        reward={"micro_batch_tokens": 64},
    )
    tokens = 64 + 36  # a candidate that is longer than the micro-batch stands alone
    layer = 2 * (4 * 8 + 2 * 12 + 2 * 6 + 2 * 20 + 7 * 2)
    backward = 2 * (3 * 8 + 6 * 20)
    card = planned(SMALL, wanted, quantisation="nf4", device="cuda").reward
    assert (card.moment, list(card.phases)) == ("backward", ["update"])
    assert card.parts.activations == tokens * (2 * layer + backward) + 4 * 2 * tokens * 8
    assert (card.parts.logits, card.parts.rollout) == (0, tokens * 56)
    whole = planned(SMALL, wanted, quantisation="int8", device="cuda").reward.parts
    assert whole.activations == (
        tokens * (2 * (2 * (14 * 8 + 5 * 12 + 7 * 20) + 28 * 2) + backward) + 4 * 2 * tokens * 8
    )
    again = tree(
        model={"max_prompt_tokens": 64},
        adapters={"rank": 2, "layers": 2},
        generate={"max_new_tokens": 36},
        reward={"micro_batch_tokens": 64, "checkpointing": "on"},
    )
    parts = planned(SMALL, again, quantisation="nf4", device="cuda").reward.parts
    assert parts.activations == tokens * (2 * 2 * 8 + layer + backward) + 4 * 2 * tokens * 8


def test_what_the_shared_layers_gave_is_kept_for_the_candidates_there_are() -> None:
    wanted = tree(
        model={"max_prompt_tokens": 64},
        adapters={"layers": 2},
        generate={"max_new_tokens": 36},
        reward={"micro_batch_tokens": 64},
    )

    def kept(candidates: int | None, device: fit.Device = "cpu") -> int:
        plan = fit.plan(SMALL, wanted, quantisation="none", device=device, candidates=candidates)
        return plan.reward.parts.rollout - 100 * 56

    assert kept(None) == 512 * 2**20
    assert kept(10) == 10 * 100 * 4 * 8
    assert kept(10**9) == 512 * 2**20
    assert kept(10, "cuda") == 0


def test_compare_holds_what_it_measures() -> None:
    few, many, end = (
        planned(
            EIGHT,
            tree(compare={"prompts": count, "samples_per_prompt": 2}, adapters={"layers": 4}, reward={"layer": layer}),
        ).compare
        for count, layer in ((100, 0), (2000, 0), (2000, 32))
    )
    assert many.moment == "scoring"
    # what the policy's shared layers gave, and what those of the heads gave, unless these read at the end as well
    assert many.parts.rollout == 2000 * 2 * (512 + 128) * (56 + 2 * 2 * 4096)
    assert end.parts.rollout == 2000 * 2 * (512 + 128) * (56 + 2 * 4096)
    assert many.peak > few.peak


def test_what_each_quantisation_weighs() -> None:
    weights = {how: planned(EIGHT, quantisation=how).ppo.parts.weights for how in QUANTISATIONS}
    assert weights["none"] == 2 * EIGHT.parameters
    assert weights["int8"] == EIGHT.linear_parameters + 2 * EIGHT.other_parameters
    assert weights["nf4"] == pytest.approx(4.127 / 8 * EIGHT.linear_parameters + 2 * EIGHT.other_parameters, rel=1e-4)


def test_only_the_stages_that_learn_hold_adapters_that_learn() -> None:
    plan, adapter = planned(), STARTER_SHAPE.adapter_parameters(16, 0)
    assert plan.generate.parts.adapters == 0
    assert plan.reward.parts.adapters == 16 * (adapter + 577)
    assert plan.compare.parts.adapters == 4 * (2 * adapter + 577)
    assert plan.ppo.parts.adapters > plan.reward.parts.adapters


def test_the_phases_of_ppo_and_its_tightest_moment() -> None:
    stage = planned().ppo
    assert list(stage.phases) == ["evaluation", "sampling", "scoring", "update"]
    assert max(parts.total for parts in stage.phases.values()) == stage.peak == stage.phases["update"].total
    assert "evaluation" not in planned(wanted=tree(ppo={"evaluate_every": 0})).ppo.phases
    many = tree(ppo={"rollout_size": 1024, "sampling_rows": 1024, "micro_batch_tokens": 64})
    assert planned(wanted=many).ppo.moment == "sampling"
    fewer = tree(ppo={"rollout_size": 1024, "sampling_rows": 32, "micro_batch_tokens": 64})
    assert planned(wanted=fewer).ppo.phases["sampling"].total < planned(wanted=many).ppo.phases["sampling"].total / 3


def test_a_second_reward_model_is_one_adapter_more() -> None:
    one, two = (planned(wanted=tree(reward={"ensemble": count})).ppo.parts.adapters for count in (1, 2))
    assert two - one == 4 * (STARTER_SHAPE.adapter_parameters(16, 0) + 577)
    assert planned(wanted=tree(reward={"ensemble": 5})).ppo.parts.adapters == two


def test_recomputing_takes_less_and_counts_as_harmless() -> None:
    tight = {"checkpointing": "on", "micro_batch_tokens": 1024}
    kept, again = (planned(EIGHT, tree(ppo=one)).ppo for one in ({"micro_batch_tokens": 1024}, tight))
    assert again.parts.activations < kept.parts.activations / 5
    small = planned(EIGHT, tree(ppo={"micro_batch_tokens": 640, "rollout_size": 8, "evaluate_prompts": 1}))
    found = verdict(small, small.ppo.peak - 3 * GIB // 2)[2]
    assert found.lower == ("ppo.checkpointing=on",)


# -- more never needs less ------------------------------------------------------------------------

# the same examples every time, however slow the machine
unhurried = hypothesis_settings(deadline=None, derandomize=True)

GROWING = {
    "model.max_prompt_tokens": 32768,
    "adapters.rank": 256,
    "generate.max_new_tokens": 4096,
    "generate.batch_size": 1024,
    "reward.micro_batch_tokens": 100_000,
    "ppo.rollout_size": 4096,
    "ppo.sampling_rows": 4096,
    "ppo.evaluate_prompts": 10_000,
    "ppo.micro_batch_tokens": 100_000,
    "ppo.max_new_tokens": 4096,
}


@unhurried
@given(st.data())
def test_a_larger_setting_never_needs_less(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(GROWING)))
    layers = data.draw(st.integers(0, 40))
    low, high = sorted(data.draw(st.tuples(*[st.integers(64, GROWING[key])] * 2)))
    quantisation, device = data.draw(st.sampled_from(QUANTISATIONS)), data.draw(st.sampled_from(DEVICES))
    section, _, name = key.partition(".")

    def peaks(value: int) -> list[int]:
        sections: dict[str, dict[str, object]] = {"adapters": {"layers": layers}}
        sections.setdefault(section, {})[name] = value
        plan = planned(wanted=tree(**sections), quantisation=quantisation, device=device)
        return [stage.peak for stage in plan.stages]

    assert all(b >= a for a, b in zip(peaks(low), peaks(high), strict=True))


@unhurried
@given(st.data())
def test_a_larger_model_never_needs_less(data: st.DataObject) -> None:
    sizes = {"layers": 100, "hidden": 9000, "kv_heads": 64, "intermediate": 30_000, "vocabulary": 300_000, "heads": 64}
    name = data.draw(st.sampled_from(sorted(sizes)))
    low, high = sorted(data.draw(st.tuples(*[st.integers(1, sizes[name])] * 2)))
    quantisation, device = data.draw(st.sampled_from(QUANTISATIONS)), data.draw(st.sampled_from(DEVICES))
    wanted = tree(adapters={"layers": data.draw(st.integers(0, 120))})
    small, large = (
        planned(replace(SHAPES["Llama-3.2-1B"], **{name: size}), wanted, quantisation=quantisation, device=device)
        for size in (low, high)
    )
    assert all(b.peak >= a.peak for a, b in zip(small.stages, large.stages, strict=True))


@unhurried
@given(st.integers(1, 31), st.integers(1, 31))
def test_fewer_adapted_layers_learn_in_less(first: int, second: int) -> None:
    low, high = sorted((first, second))
    few, many = (planned(EIGHT, tree(adapters={"layers": count})).ppo for count in (low, high))
    assert few.parts.activations <= many.parts.activations
    assert few.peak <= many.peak


# -- the verdict ----------------------------------------------------------------------------------


def test_a_large_card_fits_everything() -> None:
    plan = planned()
    found = verdict(plan, 80 * GIB)
    assert [one.stage for one in found] == ["generate", "reward", "ppo", "compare"]
    assert all(one.fits and one.lower == () for one in found)
    assert [one.spare for one in found] == [80 * GIB - stage.peak for stage in plan.stages]


def test_the_edge_is_exact() -> None:
    plan = planned()
    assert verdict(plan, plan.ppo.peak)[2].fits
    assert not verdict(plan, plan.ppo.peak - 1)[2].fits
    assert verdict(plan, plan.ppo.peak - 1)[2].spare == -1


@pytest.mark.parametrize(
    ("name", "card"), [("Llama-3.1-8B", 12), ("Llama-3.2-3B", 8), ("Qwen2.5-0.5B", 2), ("Llama-3.1-8B", 8)]
)
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_the_advice_makes_it_fit(name: str, card: int, quantisation: fit.Quantisation) -> None:
    plan = planned(SHAPES[name], quantisation=quantisation)
    judged = [one for one in verdict(plan, card * GIB) if not one.fits]
    assert judged
    for one in judged:
        assert one.lower
        changed = settings.load(Path("absent"), one.lower)
        how = changed.model.quantisation if changed.model.quantisation != "auto" else quantisation
        again = {stage.stage: stage for stage in planned(SHAPES[name], changed, quantisation=how).stages}
        assert again[one.stage].peak <= card * GIB
        assert all(override in one.advice for override in one.lower)


def test_what_changes_no_result_is_lowered_first() -> None:
    plan = planned(SHAPES["Llama-3.2-3B"])
    assert verdict(plan, plan.ppo.peak - GIB)[2].lower == ("ppo.micro_batch_tokens=1024",)


def test_no_advice_where_none_helps() -> None:
    found = verdict(planned(EIGHT), 4 * GIB)
    assert all(not one.fits and one.lower == () and "smaller model" in one.advice for one in found)


def test_auto_is_resolved_as_the_loader_does() -> None:
    assert fit.resolve(Settings().model, card=True) == ("nf4", "cuda")
    assert fit.resolve(Settings().model, card=False) == ("none", "cpu")
    assert fit.resolve(tree(model={"device": "cpu"}).model, card=True) == ("none", "cpu")
    chosen = tree(model={"quantisation": "int8", "device": "cuda"}).model
    assert fit.resolve(chosen, card=False) == ("int8", "cuda")


def test_the_chunk_is_that_of_the_engine() -> None:
    source = Path(fit.__file__).with_name("model") / "logprobs.py"
    assert f"\nCHUNK = {fit._CHUNK} " in source.read_text(encoding="utf-8")
    linear = Path(fit.__file__).with_name("model") / "linear.py"
    assert fit._BLOCKS_LIMIT == 1 << 30
    assert "\nCOPY_LIMIT = 1 << 30 " in linear.read_text(encoding="utf-8")
    assert f"\nWORTH = {fit._BLOCKS_WORTH} " in linear.read_text(encoding="utf-8")
    stepping = Path(fit.__file__).with_name("model") / "stepping.py"
    assert f"\nPREFILL_TOKENS = {fit._PREFILL} " in stepping.read_text(encoding="utf-8")
    shared = Path(fit.__file__).with_name("training") / "shared.py"
    assert fit._KEPT_BYTES == 512 * 2**20
    assert "\n_KEPT_BYTES = 512 * 2**20" in shared.read_text(encoding="utf-8")


# -- reading a model's shape ----------------------------------------------------------------------

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def folder(path: Path, config: object) -> Location:
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Location("folder", str(path), str(path), "mine")


def test_the_starter_is_known_before_it_is_fetched(tmp_path: Path) -> None:
    there = Location("starter", "starter", str(tmp_path / "absent"), STARTER_SHAPE.name)
    assert shape_of(there) == STARTER_SHAPE


def test_a_folder_and_its_defaults(tmp_path: Path) -> None:
    found = shape_of(folder(tmp_path, LLAMA))
    assert (found.parameters, found.head_dim, found.name) == (134_515_008, 64, "mine")
    bare = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "tie_word_embeddings")}
    found = shape_of(folder(tmp_path, bare | {"head_dim": None}))
    assert (found.kv_heads, found.head_dim, found.tied, found.attention_bias) == (9, 64, False, False)
    assert shape_of(folder(tmp_path, bare | {"model_type": "gemma2"})).tied
    assert shape_of(folder(tmp_path, bare | {"model_type": "qwen2"})).attention_bias
    nested = {"model_type": "some-vision", "text_config": LLAMA}
    assert shape_of(folder(tmp_path, nested)).parameters == 134_515_008


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "num_attention_heads"),
        (LLAMA | {"hidden_size": "wide"}, "'wide'"),
        (LLAMA | {"intermediate_size": [1, 2]}, "intermediate_size"),
        (LLAMA | {"num_hidden_layers": 0}, "above 0"),
        (LLAMA | {"num_local_experts": 8}, "experts"),
        ([1], "no JSON object"),
    ],
)
def test_a_shape_that_cannot_be_read_is_the_users_error(tmp_path: Path, config: object, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shape_of(folder(tmp_path, config))
    assert words in str(caught.value)


def test_a_broken_config_is_the_users_error(tmp_path: Path) -> None:
    there = folder(tmp_path, {})
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"cannot be read"):
        shape_of(there)


def test_a_hub_model_from_cache_download_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder(tmp_path, LLAMA)
    there = Location("hub", "some/one", "some/one", "some/one")
    asked: list[tuple[str, str, str | None]] = []

    def download(name: str, file: str, revision: str | None = None) -> str:
        asked.append((name, file, revision))
        if revision == "gone":
            raise OSError("404: no such revision")
        return str(tmp_path / "config.json")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    assert shape_of(there, "v2").parameters == 134_515_008
    with pytest.raises(UsageError, match="no such revision"):
        shape_of(there, "gone")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: str(tmp_path / "config.json"))
    assert shape_of(there).parameters == 134_515_008
    assert asked == [("some/one", "config.json", "v2"), ("some/one", "config.json", "gone")]


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from rlhf_tui import fit; from rlhf_tui.settings import Settings;"
        "from rlhf_tui.shape import STARTER_SHAPE;"
        "fit.plan(STARTER_SHAPE, Settings(), quantisation='nf4', device='cuda');"
        "print([m for m in ('torch', 'transformers', 'peft', 'bitsandbytes', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
