"""PPO learns: games whose optimum is known exactly, on tiny models, with a judge in the place of the reward model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlhf_tui.model.base import Base
from rlhf_tui.model.roles import Roles
from rlhf_tui.settings import AdapterSettings, PpoSettings
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.ppo import Ppo, TrainPrompt
from rlhf_tui.training.rollout import Judge, Scoring

AS_GIVEN = Scoring(0.0, 1.0)  # the judge's scores are rewards as they are


def learner(base: Base, prompts: Sequence[tuple[int, ...]], judge: Judge, rank: int, **settings: Any) -> Ppo:
    """PPO with a fresh policy and a value that begins at 0; the judge is all that rewards."""
    roles = Roles(base, AdapterSettings(rank=rank, alpha=2 * rank), seed=3)
    roles.add("policy")
    roles.add("value")
    known = PpoSettings(
        temperature=1.0,
        missing_eos_penalty=0.0,
        value_start="base",
        critic_warmup_updates=0,
        warmup_updates=1,
        micro_batch_tokens=4096,
        **settings,
    )
    given = [TrainPrompt(str(ids), ids) for ids in prompts]
    return Ppo(roles, given, known, AS_GIVEN, seed=11, emit=lambda event: None, judge=judge)


def small_llama(base: Base, vocabulary: int, width: int, end_ids: tuple[int, ...]) -> Base:
    """`base` with a two-layer Llama of random weights in it, which ends at `end_ids`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        initializer_range=0.15,  # wide enough apart that one token can be made nearly certain
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    model.eval()
    return replace(base, model=model, chat=replace(base.chat, end_ids=end_ids))


# -- a bandit: one prompt, answers of one token ------------------------------------------------------

ARMS, PROMPT = 24, (5, 17, 9)
PAYOFFS = torch.tensor([(arm * 7 % ARMS) / (ARMS - 1) for arm in range(ARMS)], dtype=torch.float64)  # 0 to 1, no order


def pays(sequences: Sequence[Tokens]) -> list[float]:
    return [float(PAYOFFS[one.response[0]]) for one in sequences]


@torch.no_grad()
def choices(ppo: Ppo) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all arms, under the policy and under the base. → (arms,) each, in fp64"""
    ids = torch.tensor([PROMPT])
    with ppo.roles.acting("policy"):
        policy = ppo.roles.base.model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
    with ppo.roles.reference():
        reference = ppo.roles.base.model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
    return policy, reference


def bandit(base: Base, *, updates: int, beta: float) -> tuple[Tensor, Tensor]:
    """What the policy chooses after so many updates at this price of a nat, and what the base chooses."""
    ppo = learner(
        small_llama(base, ARMS, 64, (2,)),
        [PROMPT],
        pays,
        rank=4,
        updates=updates,
        rollout_size=128,
        max_new_tokens=1,
        minibatches=1,
        epochs=4,
        kl_coefficient=beta,
        policy_learning_rate=1e-2,
        value_learning_rate=1e-2,
        target_kl=0.0,
    )
    for _ in range(updates):
        ppo.update()
    return choices(ppo)


def test_after_16_updates_a_bandit_is_played_at_95_percent_of_the_best_arm(tiny_base: Base) -> None:
    policy, reference = bandit(tiny_base, updates=16, beta=0.0)
    assert float(reference.exp() @ PAYOFFS) < 0.6
    assert float(policy.exp() @ PAYOFFS) >= 0.95 * float(PAYOFFS.max())


def test_with_a_price_on_kl_a_bandit_comes_to_the_boltzmann_distribution(tiny_base: Base) -> None:
    """The best policy under E[r] - β·KL is p_ref·exp(r/β)/Z, worth β·log Z; any other is worth β·KL(π ‖ best) less."""
    beta = 0.25
    policy, reference = bandit(tiny_base, updates=24, beta=beta)
    best = (reference + PAYOFFS / beta).log_softmax(-1)

    def worth(logprobs: Tensor) -> float:
        return float(logprobs.exp() @ (PAYOFFS - beta * (logprobs - reference)))

    optimum = beta * float((reference + PAYOFFS / beta).logsumexp(-1))
    assert worth(best) == pytest.approx(optimum, rel=1e-9)
    apart = float(policy.exp() @ (policy - best))
    assert worth(policy) == pytest.approx(optimum - beta * apart, rel=1e-9)
    moved, far = (float(one.exp() @ (one - reference)) for one in (policy, best))
    assert (worth(policy) - worth(reference)) / (optimum - worth(reference)) >= 0.95
    # and it stops there: it leaves the base about as far as the best policy does, not further
    assert moved == pytest.approx(far, rel=0.2)


# -- random walks (CarperAI's trlx, examples/randomwalks) --------------------------------------------

NODES, LONGEST, GOAL = 21, 10, 0


@dataclass(frozen=True)
class Graph:
    """A directed graph in which every node leads to the goal."""

    edges: tuple[frozenset[int], ...]
    shortest: tuple[int, ...]
    """Nodes on the shortest path from each node to the goal, both ends counted."""

    def walk(self, order: random.Random) -> list[int]:
        """A walk without a plan from anywhere, until it meets the goal or is `LONGEST` nodes long."""
        nodes = [order.randrange(1, NODES)]
        while nodes[-1] != GOAL and len(nodes) < LONGEST:
            nodes.append(order.choice(sorted(self.edges[nodes[-1]])))
        return nodes

    def optimality(self, nodes: Sequence[int]) -> float:
        """1 for a shortest path to the goal, 0 for one of `LONGEST` nodes or that leaves the graph or never arrives."""
        for place, (here, there) in enumerate(pairwise(nodes)):
            if there not in self.edges[here]:
                return 0.0
            if there == GOAL:
                return (LONGEST - place - 2) / (LONGEST - self.shortest[nodes[0]])
        return 0.0


def some_graph(seed: int) -> Graph:
    """Each edge exists with probability 0.1; drawn again until every node leads to the goal within `LONGEST` nodes."""
    order = random.Random(seed)
    while True:
        edges = tuple(
            frozenset(j for j in range(NODES) if j != i and order.random() < 0.1 and i != GOAL) for i in range(NODES)
        )
        shortest = [1] + [LONGEST] * (NODES - 1)
        for _ in range(NODES):
            for node in range(1, NODES):
                shortest[node] = min([shortest[node], *(1 + shortest[following] for following in edges[node])])
        if all(length < LONGEST for length in shortest):
            return Graph(edges, tuple(shortest))


def walker(graph: Graph, base: Base) -> Base:
    """`base` with a small Llama in it that has learnt from 1000 walks without a plan; a token is a node."""
    order = random.Random(7)
    walks = [graph.walk(order) for _ in range(1000)]
    ids = torch.tensor([walk + [GOAL] * (LONGEST - len(walk)) for walk in walks])
    counts = torch.tensor([[place < len(walk) for place in range(1, LONGEST)] for walk in walks])
    targets = torch.where(counts, ids[:, 1:], -100)
    learnt = small_llama(base, NODES, 64, (GOAL,))
    model = learnt.model.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(10):
        for batch in torch.randperm(len(ids)).split(100):  # type: ignore[no-untyped-call]
            logits = model(input_ids=ids[batch, :-1]).logits
            loss = cross_entropy(logits.flatten(0, 1), targets[batch].flatten())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.requires_grad_(False)
    return learnt


def test_random_walks_become_shortest_paths_within_24_updates(tiny_base: Base) -> None:
    graph = some_graph(1002)
    rounds: list[float] = []

    def judge(sequences: Sequence[Tokens]) -> list[float]:
        scores = [graph.optimality((*one.prompt, *one.response)) for one in sequences]
        rounds.append(sum(scores) / len(scores))
        return scores

    ppo = learner(
        walker(graph, tiny_base),
        [(node,) for node in range(1, NODES)],
        judge,
        rank=16,
        updates=24,
        rollout_size=128,
        max_new_tokens=LONGEST - 1,
        minibatches=2,
        epochs=4,
        kl_coefficient=0.0,
        policy_learning_rate=4e-3,
        value_learning_rate=4e-3,
        target_kl=0.0,
    )
    for _ in range(ppo.settings.updates):
        ppo.update()
    assert rounds[0] < 0.6  # it can walk, and has no plan
    assert sum(rounds[-5:]) / 5 >= 0.95
