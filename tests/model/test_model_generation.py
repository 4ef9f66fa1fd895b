"""Sampling in slots and in batches against a loop that does nothing clever, and draws against the distribution."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf_tui.model import generation, stepping
from rlhf_tui.model.base import Base
from rlhf_tui.model.draw import chances
from rlhf_tui.model.general import sample_in_batches
from rlhf_tui.model.generation import Completion, Sampling, draw, sample
from rlhf_tui.model.roles import Roles
from rlhf_tui.model.slots import Slots, attending

NO_END = (-1,)
MOST = 14
HOT = Sampling(max_new_tokens=MOST, temperature=1.3)
SEED = 11

Sample = Callable[..., list[Completion]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model(tiny_folder: Any, load: Callable[..., Base]) -> PreTrainedModel:
    return load(tiny_folder).model


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Nine prompts of 1 to 21 tokens, in no order; two of them come more than once."""
    generator = seeded(9)
    drawn = [torch.randint(3, 260, (length,), generator=generator).tolist() for length in [3, 21, 7, 7, 1, 12]]
    return [*drawn[:3], drawn[1], *drawn[3:], drawn[1], drawn[4]]


@torch.no_grad()
def plain(model: PreTrainedModel, prompt: Sequence[int], end_ids: Sequence[int], place: int) -> Completion:
    """One sequence, no cache, no padding, one uniform number a token: the definition of what sampling is."""
    ids: list[int] = []
    for uniform in chances(SEED, place, MOST).tolist():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1]
        cumulative = torch.softmax(logits.double() / HOT.temperature, -1).cumsum(-1)
        ids.append(int((cumulative <= uniform * cumulative[-1]).sum()))
        if ids[-1] in end_ids:
            return Completion(tuple(ids), True)
    return Completion(tuple(ids), False)


@pytest.fixture(scope="module")
def endless(model: PreTrainedModel, prompts: list[list[int]]) -> list[Completion]:
    return [plain(model, prompt, NO_END, place) for place, prompt in enumerate(prompts)]


@pytest.fixture(scope="module")
def end_ids(endless: list[Completion]) -> tuple[int, ...]:
    """Ids at which some of the answers end, at different lengths."""
    return endless[1].ids[3], endless[5].ids[8], endless[7].ids[1], endless[8].ids[5]


@pytest.fixture
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """Rows and width of every forward pass of the decoder stack."""
    seen: list[tuple[int, int]] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    yield seen
    hook.remove()


def in_slots(model: PreTrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling, **options: Any) -> Any:
    assert stepping.suits_slots(model)
    return sample(model, prompts, sampling, **options)


def in_batches(model: PreTrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling, **options: Any) -> Any:
    return sample_in_batches(
        model, prompts, sampling, progress=options.pop("progress", lambda finished: None), **options
    )


# -- slots and batches, both ---------------------------------------------------------------------


@pytest.mark.parametrize("way", [in_slots, in_batches])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9, 50])
def test_any_number_of_rows_gives_what_each_prompt_gives_alone_without_a_cache(
    model: PreTrainedModel, prompts: list[list[int]], end_ids: tuple[int, ...], rows: int, way: Sample
) -> None:
    expected = [plain(model, prompt, end_ids, place) for place, prompt in enumerate(prompts)]
    assert len({len(completion.ids) for completion in expected}) > 3  # rows end at different times
    assert {completion.ended for completion in expected} == {True, False}
    assert way(model, prompts, HOT, end_ids=end_ids, rows=rows, seed=SEED) == expected


@pytest.mark.parametrize("way", [in_slots, in_batches])
def test_without_an_end_everything_runs_to_the_limit(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion], way: Sample
) -> None:
    got = way(model, prompts, HOT, end_ids=NO_END, rows=4, seed=SEED)
    assert got == endless
    assert {len(completion.ids) for completion in got} == {MOST}
    assert not any(completion.ended for completion in got)


@pytest.mark.parametrize("way", [in_slots, in_batches])
@pytest.mark.parametrize("most", [1, 2, 9])
def test_the_limit_is_respected(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion], most: int, way: Sample
) -> None:
    got = way(model, prompts, Sampling(most, HOT.temperature), end_ids=NO_END, rows=9, seed=SEED)
    assert [completion.ids for completion in got] == [completion.ids[:most] for completion in endless]


@pytest.mark.parametrize("way", [in_slots, in_batches])
@pytest.mark.parametrize("position", [0, 3, 13])
def test_it_stops_at_any_end_id_and_includes_it(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion], position: int, way: Sample
) -> None:
    whole = endless[0].ids
    end = whole[position]
    first = whole.index(end)
    for ends in ((end, 9999), (9999, end)):
        [got] = way(model, prompts[:1], HOT, end_ids=ends, rows=1, seed=SEED)
        assert got == Completion(whole[: first + 1], True)


@pytest.mark.parametrize("way", [in_slots, in_batches])
def test_an_end_inside_the_prompt_ends_nothing(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion], way: Sample
) -> None:
    end = next(token for token in prompts[1] if all(token not in completion.ids for completion in endless))
    assert way(model, prompts, HOT, end_ids=[end], rows=3, seed=SEED) == endless


@pytest.mark.parametrize("way", [in_slots, in_batches])
def test_the_same_seed_gives_the_same_ids_and_another_seed_others(
    model: PreTrainedModel, prompts: list[list[int]], way: Sample
) -> None:
    def run(seed: int) -> list[Completion]:
        torch.rand(3)  # the global generator has no say
        return way(model, prompts, HOT, end_ids=(2,), rows=4, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("way", [in_slots, in_batches])
def test_equal_prompts_get_different_answers(model: PreTrainedModel, prompts: list[list[int]], way: Sample) -> None:
    got = way(model, [prompts[0]] * 6, HOT, end_ids=NO_END, rows=6, seed=3)
    assert len({completion.ids for completion in got}) == 6


@pytest.mark.parametrize("way", [in_slots, in_batches])
def test_progress_is_told_and_ends_with_everything(
    model: PreTrainedModel, prompts: list[list[int]], end_ids: tuple[int, ...], way: Sample
) -> None:
    told: list[int] = []
    way(model, prompts, HOT, end_ids=end_ids, rows=4, seed=SEED, progress=told.append)
    assert told == sorted(set(told))
    assert told[-1] == len(prompts)
    assert len(told) > 3


def test_no_prompts_give_no_completions(model: PreTrainedModel) -> None:
    assert sample(model, [], HOT, end_ids=(2,), rows=4, seed=0) == []


def test_sampling_leaves_no_graph_and_answers_as_the_active_role(
    tiny_base: Base, make_roles: Callable[..., Roles], prompts: list[list[int]]
) -> None:
    roles = make_roles(tiny_base, "policy")
    with roles.acting("policy"):
        tuned = sample(tiny_base.model, prompts, HOT, end_ids=NO_END, rows=4, seed=SEED)
        expected = [plain(tiny_base.model, prompt, NO_END, place) for place, prompt in enumerate(prompts)]
    with roles.reference():
        untuned = sample(tiny_base.model, prompts, HOT, end_ids=NO_END, rows=4, seed=SEED)
    assert tuned == expected
    assert tuned != untuned


# -- slots ---------------------------------------------------------------------------------------


def test_an_equal_prompt_is_read_once_and_slots_stay_busy(
    model: PreTrainedModel, prompts: list[list[int]], end_ids: tuple[int, ...], passes: list[tuple[int, int]]
) -> None:
    """Prompts of 21 (three times), 12, 7, 7, 3 and 1 (twice) tokens: the last token of each is its first step."""
    got = sample(model, prompts, HOT, end_ids=end_ids, rows=3, seed=SEED)
    read = [shape for shape in passes if shape[1] > 1]
    assert read[0] == (1, 20)
    assert sum(rows for rows, _ in read) == 5
    steps = [rows for rows, width in passes if width == 1]
    assert sum(steps) == sum(len(completion.ids) for completion in got)  # nobody is carried along after the end
    full = steps.index(next(rows for rows in steps if rows < 3))
    assert all(rows == 3 for rows in steps[:full])
    assert steps == sorted(steps, reverse=True)  # slots empty only when the queue has


def test_the_longest_prompts_come_first_and_the_next_one_takes_the_first_free_slot(model: PreTrainedModel) -> None:
    order: list[int] = []
    prompts = [[5] * length for length in (2, 9, 4, 7)]
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: order.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    sample(model, prompts, Sampling(2, 1.0), end_ids=NO_END, rows=1, seed=0)
    hook.remove()
    assert order == [8, 1, 1, 6, 1, 1, 3, 1, 1, 1, 1, 1]  # one that leaves a single token is a pass of width 1


def test_prompts_are_read_a_few_at_a_time(
    model: PreTrainedModel, prompts: list[list[int]], passes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample(model, prompts, HOT, end_ids=NO_END, rows=9, seed=SEED)
    assert max(rows for rows, width in passes if width > 1) == 6
    passes.clear()
    monkeypatch.setattr(stepping, "PREFILL_TOKENS", 24)
    assert sample(model, prompts, HOT, end_ids=NO_END, rows=9, seed=SEED) == expected
    assert max(rows * width for rows, width in passes if width > 1) <= 24


def test_looking_seldom_changes_nothing(
    model: PreTrainedModel, prompts: list[list[int]], end_ids: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card the host looks every few steps only; what was drawn after an end is thrown away."""
    expected = sample(model, prompts, HOT, end_ids=end_ids, rows=3, seed=SEED)
    monkeypatch.setattr("rlhf_tui.model.generation._LOOK", {"cpu": 5})
    assert sample(model, prompts, HOT, end_ids=end_ids, rows=3, seed=SEED) == expected


def test_a_card_is_not_made_to_wait_for_the_host_at_every_token() -> None:
    assert generation._look(torch.device("cpu")) == 1  # nothing waits there, and nothing is drawn in vain
    assert generation._look(torch.device("cuda")) >= 4


def test_the_cache_is_reserved_once(model: PreTrainedModel) -> None:
    slots = Slots(model, 2, 12)
    with torch.no_grad(), attending(model, slots):
        stepping.prefill(model, slots, [[3, 4, 5], [6]], [1, 0])
        places = [layer.keys.data_ptr() for layer in slots.layers]
        slots.live, slots.reach = 2, 4
        slots.lengths += torch.tensor([1, 3])
        stepping.forward(model, slots, torch.tensor([7, 8]))
    assert [layer.keys.data_ptr() for layer in slots.layers] == places
    assert {tuple(layer.keys.shape) for layer in slots.layers} == {(2, 2, 12, 8)}


def test_the_cache_is_gone_when_sampling_is_over(
    model: PreTrainedModel, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: without the help of the garbage collector."""
    made: list[weakref.ref[Slots]] = []

    def slots(*arguments: Any) -> Slots:
        one = Slots(*arguments)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(generation, "Slots", slots)
    gc.disable()
    try:
        sample(model, prompts, HOT, end_ids=NO_END, rows=4, seed=SEED)
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()


def test_the_attention_of_the_model_is_its_own_again(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    before = (model.config._attn_implementation, [set(vars(module)) for module in model.modules()])
    sample(model, prompts, HOT, end_ids=NO_END, rows=4, seed=SEED)
    assert (model.config._attn_implementation, [set(vars(module)) for module in model.modules()]) == before
    with pytest.raises(KeyError), attending(model, Slots(model, 1, 2)):
        raise KeyError
    assert model.config._attn_implementation == before[0]


# -- architectures -------------------------------------------------------------------------------

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=5))


def qwen2() -> PreTrainedModel:
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4, layer_types=kinds))


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=12))


def gemma2() -> PreTrainedModel:
    config = Gemma2Config(**SHAPE, head_dim=8, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=5)
    config._attn_implementation = "eager"
    return Gemma2ForCausalLM(config)


def gemma3() -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=4))


def gpt2() -> PreTrainedModel:
    """Learned positions notice what rotary ones (which know distances only) forgive."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5)
    )


@pytest.mark.parametrize("way", [in_slots, in_batches])
@pytest.mark.parametrize("make", [llama, mistral, qwen2, qwen3, gemma2, gemma3, gpt2])
def test_architectures(make: Callable[[], PreTrainedModel], prompts: list[list[int]], way: Sample) -> None:
    torch.manual_seed(2)
    model = make().eval()
    expected = [plain(model, prompt, (7, 8, 9), place) for place, prompt in enumerate(prompts)]
    assert way(model, prompts, HOT, end_ids=(7, 8, 9), rows=4, seed=SEED) == expected


def test_a_4_bit_base_is_sampled_in_slots(
    blocky_folder: Any, load: Callable[..., Base], prompts: list[list[int]]
) -> None:
    model = load(blocky_folder, quantisation="nf4").model
    expected = [plain(model, prompt, (7, 8, 9), place) for place, prompt in enumerate(prompts)]
    assert in_slots(model, prompts, HOT, end_ids=(7, 8, 9), rows=4, seed=SEED) == expected


def test_what_slots_do_not_know_is_sampled_in_batches() -> None:
    torch.manual_seed(3)
    config = MambaConfig(vocab_size=300, hidden_size=16, state_size=4, num_hidden_layers=2)
    assert not stepping.suits_slots(MambaForCausalLM(config).eval())


def test_an_attention_that_gives_other_numbers_is_not_trusted(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    model = llama().eval()
    own = stepping.forward
    monkeypatch.setattr(stepping, "forward", lambda *arguments: own(*arguments) + 0.01)
    assert not stepping.suits_slots(model)
    expected = [plain(model, prompt, NO_END, place) for place, prompt in enumerate(prompts)]
    assert sample(model, prompts, HOT, end_ids=NO_END, rows=4, seed=SEED) == expected


def test_running_out_of_memory_is_not_taken_for_a_strange_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(stepping, "prefill", full)
    with pytest.raises(torch.OutOfMemoryError):
        stepping.suits_slots(llama().eval())


# -- one draw ----------------------------------------------------------------------------------

LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -2.5])
CHI_SQUARE_999 = {4: 18.47, 9: 27.88}  # 99.9 % points by degrees of freedom
DRAWS = 20_000


def counts(sampling: Sampling, seed: int) -> torch.Tensor:
    tokens = draw(LOGITS.expand(DRAWS, -1), sampling, chances(seed, 0, DRAWS))
    return torch.bincount(tokens, minlength=len(LOGITS)).double()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_frequencies_are_those_of_the_softmax(temperature: float) -> None:
    expected = DRAWS * torch.softmax(LOGITS.double() / temperature, -1)
    statistic = float(((counts(Sampling(1, temperature), 17) - expected) ** 2 / expected).sum())
    assert statistic < CHI_SQUARE_999[9]


def test_frequencies_inside_the_nucleus_are_renormalised() -> None:
    probabilities = torch.softmax(LOGITS.double(), -1)
    top_p = float(probabilities[:5].sum()) - 1e-3  # the fifth token is the one that reaches it
    seen = counts(Sampling(1, 1.0, top_p), 18)
    assert (seen[5:] == 0).all()
    expected = DRAWS * probabilities[:5] / probabilities[:5].sum()
    statistic = float(((seen[:5] - expected) ** 2 / expected).sum())
    assert statistic < CHI_SQUARE_999[4]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=20),
    top_p=st.floats(0.01, 0.999),
    temperature=st.floats(0.3, 2.0),
    seed=st.integers(0, 10_000),
)
def test_top_p_never_leaves_the_nucleus(logits: list[float], top_p: float, temperature: float, seed: int) -> None:
    row = torch.tensor(logits)
    tokens = draw(row.expand(200, -1), Sampling(1, temperature, top_p), chances(seed, 0, 200))
    probabilities = torch.softmax(row.double() / temperature, -1)
    for token in set(tokens.tolist()):
        # whatever is at least as likely as a drawn token, and comes before it, falls short of top_p
        before = probabilities[probabilities > probabilities[token] + 1e-6].sum()
        assert before < top_p + 1e-5


def test_a_tiny_nucleus_is_the_best_token() -> None:
    shuffled = LOGITS[torch.randperm(10, generator=seeded(1))]
    tokens = draw(shuffled.expand(500, -1), Sampling(1, 2.0, 1e-6), chances(2, 0, 500))
    assert set(tokens.tolist()) == {int(shuffled.argmax())}


def test_rows_are_drawn_each_from_its_own_distribution() -> None:
    rows = torch.full((50, 60), -1e4)
    rows[torch.arange(50), torch.arange(50)] = 0.0
    assert draw(rows, Sampling(1, 1.0), chances(0, 0, 50)).tolist() == list(range(50))


def test_sixteen_bit_logits_are_drawn_in_fp32() -> None:
    """In bf16 a sum of thousandths stands still at a quarter, and the nucleus would never be full."""
    logits = torch.zeros(1000, dtype=torch.bfloat16)
    tokens = draw(logits.expand(2500, -1), Sampling(1, 1.0, 0.9), chances(4, 0, 2500))
    assert 800 < len(set(tokens.tolist())) < 880  # 844 expected of 900, 918 of 1000


# -- chances -------------------------------------------------------------------------------------


def test_every_completion_has_a_stream_of_its_own() -> None:
    streams = torch.stack([chances(seed, index, 64) for seed in (0, 1, -1, 2**63) for index in (0, 1, 2)])
    assert streams.dtype == torch.float64
    assert len({tuple(stream.tolist()) for stream in streams}) == 12
    assert float(streams.min()) >= 0.0
    assert float(streams.max()) < 1.0
    assert torch.equal(chances(5, 6, 10), chances(5, 6, 64)[:10])


def test_streams_are_uniform_across_completions_too() -> None:
    """The first number of 20,000 streams, in ten drawers."""
    first = torch.cat([chances(3, index, 1) for index in range(DRAWS)])
    seen = torch.bincount((first * 10).long(), minlength=10).double()
    assert float(((seen - DRAWS / 10) ** 2 / (DRAWS / 10)).sum()) < CHI_SQUARE_999[9]
