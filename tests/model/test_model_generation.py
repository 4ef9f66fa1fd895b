"""Batched sampling against a loop that does nothing clever, and draws against the distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from rlhf_tui.model.base import Base
from rlhf_tui.model.generation import Completion, Sampling, draw, sample
from rlhf_tui.model.roles import Roles

NO_END = (-1,)
GREEDY = Sampling(max_new_tokens=14, temperature=1e-4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model(tiny_folder: Any, load: Callable[..., Base]) -> PreTrainedModel:
    return load(tiny_folder).model


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Nine prompts of 1 to 21 tokens, in no order."""
    generator = seeded(9)
    lengths = [3, 21, 7, 7, 1, 12, 2, 5, 16]
    return [torch.randint(3, 260, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def plain(model: PreTrainedModel, prompt: Sequence[int], end_ids: Sequence[int], most: int) -> Completion:
    """Greedy, one sequence, no cache, no padding."""
    ids: list[int] = []
    while len(ids) < most:
        logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] in end_ids:
            return Completion(tuple(ids), True)
    return Completion(tuple(ids), False)


@pytest.fixture(scope="module")
def endless(model: PreTrainedModel, prompts: list[list[int]]) -> list[Completion]:
    return [plain(model, prompt, NO_END, GREEDY.max_new_tokens) for prompt in prompts]


@pytest.fixture(scope="module")
def end_ids(endless: list[Completion]) -> tuple[int, int]:
    """Two ids at which some of the greedy answers end, at different lengths."""
    return endless[1].ids[3], endless[5].ids[8]


@pytest.fixture
def batch_sizes(model: PreTrainedModel) -> Iterator[list[int]]:
    """The number of rows in every forward pass."""
    seen: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9, 50])
def test_a_batch_gives_what_each_prompt_gives_alone_without_a_cache(
    model: PreTrainedModel,
    prompts: list[list[int]],
    endless: list[Completion],
    end_ids: tuple[int, int],
    batch_size: int,
    batch_sizes: list[int],
) -> None:
    expected = [plain(model, prompt, end_ids, GREEDY.max_new_tokens) for prompt in prompts]
    lengths = {len(completion.ids) for completion in expected}
    assert len(lengths) > 2  # rows end at different times
    assert {completion.ended for completion in expected} == {True, False}
    batch_sizes.clear()

    got = sample(model, prompts, GREEDY, end_ids=end_ids, batch_size=batch_size, generator=seeded())
    assert got == expected
    assert max(batch_sizes) == min(batch_size, len(prompts))
    if batch_size == 9:
        assert min(batch_sizes) < 9  # and ended rows have left the batch

    alone = [
        sample(model, [prompt], GREEDY, end_ids=end_ids, batch_size=4, generator=seeded())[0] for prompt in prompts
    ]
    assert alone == expected


def test_padding_does_not_count_as_a_position(prompts: list[list[int]]) -> None:
    """Learned positions notice what rotary ones (which know distances only) forgive."""
    torch.manual_seed(2)
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5)
    model = GPT2LMHeadModel(config).eval()
    expected = [plain(model, prompt, NO_END, 8) for prompt in prompts]
    got = sample(model, prompts, Sampling(8, 1e-4), end_ids=NO_END, batch_size=9, generator=seeded())
    assert got == expected


def test_without_an_end_everything_runs_to_the_limit(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion]
) -> None:
    got = sample(model, prompts, GREEDY, end_ids=NO_END, batch_size=4, generator=seeded())
    assert got == endless
    assert {len(completion.ids) for completion in got} == {GREEDY.max_new_tokens}
    assert not any(completion.ended for completion in got)


@pytest.mark.parametrize("most", [1, 2, 9])
def test_the_limit_is_respected(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion], most: int
) -> None:
    got = sample(model, prompts, Sampling(most, 1e-4), end_ids=NO_END, batch_size=9, generator=seeded())
    assert [completion.ids for completion in got] == [completion.ids[:most] for completion in endless]


@pytest.mark.parametrize("position", [0, 3, 13])
def test_it_stops_at_any_end_id_and_includes_it(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion], position: int
) -> None:
    whole = endless[1].ids
    end = whole[position]
    first = whole.index(end)
    for end_ids in ((end, 9999), (9999, end)):
        [got] = sample(model, [prompts[1]], GREEDY, end_ids=end_ids, batch_size=1, generator=seeded())
        assert got == Completion(whole[: first + 1], True)


def test_an_end_inside_the_prompt_ends_nothing(
    model: PreTrainedModel, prompts: list[list[int]], endless: list[Completion]
) -> None:
    end = next(token for token in prompts[1] if token not in endless[1].ids)
    [got] = sample(model, [prompts[1]], GREEDY, end_ids=[end], batch_size=1, generator=seeded())
    assert got == endless[1]


def test_the_same_seed_gives_the_same_ids_and_another_seed_others(
    model: PreTrainedModel, prompts: list[list[int]]
) -> None:
    hot = Sampling(max_new_tokens=8, temperature=1.0)

    def run(seed: int) -> list[Completion]:
        torch.rand(3)  # the global generator has no say
        return sample(model, prompts, hot, end_ids=(2,), batch_size=4, generator=seeded(seed))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_equal_prompts_in_one_batch_get_different_answers(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    hot = Sampling(max_new_tokens=8, temperature=1.0)
    got = sample(model, [prompts[0]] * 6, hot, end_ids=NO_END, batch_size=6, generator=seeded(3))
    assert len({completion.ids for completion in got}) > 1


def test_progress_is_told_and_ends_with_everything(
    model: PreTrainedModel, prompts: list[list[int]], end_ids: tuple[int, int]
) -> None:
    told: list[int] = []
    sample(model, prompts, GREEDY, end_ids=end_ids, batch_size=4, generator=seeded(), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == len(prompts)
    assert len(set(told)) > 3


def test_no_prompts_give_no_completions(model: PreTrainedModel) -> None:
    assert sample(model, [], GREEDY, end_ids=(2,), batch_size=4, generator=seeded()) == []


def test_sampling_leaves_no_graph_and_answers_as_the_active_role(
    tiny_base: Base, make_roles: Callable[..., Roles], prompts: list[list[int]]
) -> None:
    roles = make_roles(tiny_base, "policy")
    with roles.acting("policy"):
        tuned = sample(tiny_base.model, prompts, GREEDY, end_ids=NO_END, batch_size=4, generator=seeded())
        expected = [plain(tiny_base.model, prompt, NO_END, GREEDY.max_new_tokens) for prompt in prompts]
    with roles.reference():
        untuned = sample(tiny_base.model, prompts, GREEDY, end_ids=NO_END, batch_size=4, generator=seeded())
    assert tuned == expected
    assert tuned != untuned


# -- one draw ----------------------------------------------------------------------------------

LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -2.5])
CHI_SQUARE_999 = {4: 18.47, 9: 27.88}  # 99.9 % points by degrees of freedom
DRAWS = 20_000


def counts(sampling: Sampling, seed: int) -> torch.Tensor:
    tokens = draw(LOGITS.expand(DRAWS, -1), sampling, seeded(seed))
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
    tokens = draw(row.expand(200, -1), Sampling(1, temperature, top_p), seeded(seed))
    probabilities = torch.softmax(row.double() / temperature, -1)
    for token in set(tokens.tolist()):
        # whatever is at least as likely as a drawn token, and comes before it, falls short of top_p
        before = probabilities[probabilities > probabilities[token] + 1e-6].sum()
        assert before < top_p + 1e-5


def test_a_tiny_nucleus_is_the_best_token() -> None:
    shuffled = LOGITS[torch.randperm(10, generator=seeded(1))]
    tokens = draw(shuffled.expand(500, -1), Sampling(1, 2.0, 1e-6), seeded(2))
    assert set(tokens.tolist()) == {int(shuffled.argmax())}


def test_rows_are_drawn_each_from_its_own_distribution() -> None:
    rows = torch.full((50, 60), -1e4)
    rows[torch.arange(50), torch.arange(50)] = 0.0
    assert draw(rows, Sampling(1, 1.0), seeded()).tolist() == list(range(50))


def test_sixteen_bit_logits_are_drawn_in_fp32() -> None:
    """In bf16 a sum of thousandths stands still at a quarter, and the nucleus would never be full."""
    logits = torch.zeros(1000, dtype=torch.bfloat16)
    tokens = draw(logits.expand(2500, -1), Sampling(1, 1.0, 0.9), seeded(4))
    assert 800 < len(set(tokens.tolist())) < 880  # 844 expected of 900, 918 of 1000
