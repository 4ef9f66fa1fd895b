"""Messages to ids through the chat template: exactly what was rendered, nothing doubled, nothing lost."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.model.chat import CHATML, Chat, chat_for


@dataclass(frozen=True)
class Message:
    role: str
    content: str


USER = Message("user", "why is the sky blue")
START, END = "<|im_start|>", "<|im_end|>"


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def tokenizer(loaded: Any) -> Any:
    return copy.deepcopy(loaded)


@pytest.fixture
def chat(tokenizer: Any) -> Chat:
    return chat_for(tokenizer, end_ids=[tokenizer.eos_token_id])


def by_hand(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_ids_are_those_of_the_text_rendered_by_hand(chat: Chat, tokenizer: Any) -> None:
    expected = f"{START}user\nwhy is the sky blue{END}\n{START}assistant\n"
    assert chat.prompt_ids([USER]) == by_hand(tokenizer, expected)
    conversation = [USER, Message("assistant", "it is not"), Message("user", "yes it is")]
    expected = (
        f"{START}user\nwhy is the sky blue{END}\n{START}assistant\nit is not{END}\n"
        f"{START}user\nyes it is{END}\n{START}assistant\n"
    )
    assert chat.prompt_ids(conversation) == by_hand(tokenizer, expected)


def test_special_tokens_of_the_template_are_single_ids(chat: Chat, tokenizer: Any) -> None:
    ids = chat.prompt_ids([USER])
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    assert ids.count(start) == 2
    assert ids.count(end) == 1
    assert all(type(token) is int for token in ids)


def test_the_system_prompt_of_the_settings_comes_first(tokenizer: Any) -> None:
    chat = chat_for(tokenizer, end_ids=[2], system_prompt="a plain answer")
    expected = f"{START}system\na plain answer{END}\n{START}user\nwhy is the sky blue{END}\n{START}assistant\n"
    assert chat.prompt_ids([USER]) == by_hand(tokenizer, expected)


def test_the_system_prompt_of_a_call_replaces_it_for_this_call(tokenizer: Any) -> None:
    chat = chat_for(tokenizer, end_ids=[2], system_prompt="a plain answer")
    before = chat.prompt_ids([USER])
    expected = f"{START}system\nwater{END}\n{START}user\nwhy is the sky blue{END}\n{START}assistant\n"
    assert chat.prompt_ids([USER], system_prompt="water") == by_hand(tokenizer, expected)
    none = f"{START}user\nwhy is the sky blue{END}\n{START}assistant\n"
    assert chat.prompt_ids([USER], system_prompt="") == by_hand(tokenizer, none)
    assert chat.prompt_ids([USER]) == before


def test_a_conversation_keeps_its_own_system_message(tokenizer: Any) -> None:
    chat = chat_for(tokenizer, end_ids=[2], system_prompt="a plain answer")
    own = [Message("system", "ice"), USER]
    expected = f"{START}system\nice{END}\n{START}user\nwhy is the sky blue{END}\n{START}assistant\n"
    assert chat.prompt_ids(own) == by_hand(tokenizer, expected)
    assert chat.prompt_ids(own, system_prompt="water") == by_hand(tokenizer, expected)


# -- BOS ---------------------------------------------------------------------------------------

WITH_BOS = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


def test_a_template_that_writes_bos_gives_exactly_one(tokenizer: Any) -> None:
    """The tokenizer would put another in front of a text; ids from the template have one."""
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.add_bos_token = True
    chat = chat_for(_bos_adding(tokenizer), end_ids=[2], template="")
    ids = chat.prompt_ids([USER])
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def _bos_adding(tokenizer: Any) -> Any:
    """The tokenizer as many models ship it: it puts BOS before every text, and its template does, too."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = WITH_BOS
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


def test_completions_get_no_bos(tokenizer: Any) -> None:
    tokenizer.bos_token = "<|endoftext|>"
    chat = chat_for(_bos_adding(tokenizer), end_ids=[2])
    assert tokenizer.bos_token_id not in chat.completion_ids("hello yes", ended=True)


def test_a_template_that_doubles_bos_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ bos_token }}" + WITH_BOS
    with pytest.raises(UsageError, match="two BOS") as caught:
        chat_for(tokenizer, end_ids=[2])
    assert "model.chat_template" in caught.value.todo


# -- which template ----------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_template_the_setting_is_named(tokenizer: Any, nothing: str | None) -> None:
    tokenizer.chat_template = nothing
    with pytest.raises(UsageError, match="no chat template") as caught:
        chat_for(tokenizer, end_ids=[2])
    assert "model.chat_template" in caught.value.todo
    assert "'chatml'" in caught.value.todo


def test_chatml_by_name(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    chat = chat_for(tokenizer, end_ids=[2], template="chatml")
    assert chat.template == CHATML
    assert chat.prompt_ids([USER]) == by_hand(tokenizer, f"{START}user\nwhy is the sky blue{END}\n{START}assistant\n")


def test_a_template_file_goes_before_the_tokenizers_own(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% for message in messages %}{{ message['role'] }}: {{ message['content'] }} – {% endfor %}")
    chat = chat_for(tokenizer, end_ids=[2], template=str(path))
    assert chat.prompt_ids([USER]) == by_hand(tokenizer, "user: why is the sky blue – ")


def test_a_template_file_that_is_not_there_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.jinja") as caught:
        chat_for(tokenizer, end_ids=[2], template=str(tmp_path / "nothing.jinja"))
    assert "model.chat_template" in caught.value.todo


@pytest.mark.parametrize(
    "broken",
    [
        "{% for message in messages %}{{ message['content'] }}",  # never closed
        "{{ raise_exception('no user messages here') }}",
        "{{ messages[0]['content']['text']['deeper'] }}",
        "{{ unknown_function(messages) }}",
    ],
)
def test_a_broken_template_is_a_usage_error(tokenizer: Any, tmp_path: Path, broken: str) -> None:
    path = tmp_path / "broken.jinja"
    path.write_text(broken)
    with pytest.raises(UsageError, match="does not work") as caught:
        chat_for(tokenizer, end_ids=[2], template=str(path))
    assert caught.value.why
    assert "model.chat_template" in caught.value.todo


def test_a_template_file_that_is_no_text_is_a_user_error(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "image.jinja"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(UserError, match="image"):
        chat_for(tokenizer, end_ids=[2], template=str(path))


def test_a_system_prompt_that_the_template_refuses_is_a_usage_error(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    chat_for(tokenizer, end_ids=[2])
    with pytest.raises(UsageError) as caught:
        chat_for(tokenizer, end_ids=[2], system_prompt="a plain answer")
    assert "System role not supported" in caught.value.why


def test_of_several_named_templates_the_default_is_taken(tokenizer: Any) -> None:
    tokenizer.chat_template = {"tool_use": "{{ 1 / 0 }}", "default": CHATML}
    assert chat_for(tokenizer, end_ids=[2]).template == CHATML


def test_several_named_templates_without_a_default_are_a_usage_error(tokenizer: Any) -> None:
    tokenizer.chat_template = {"tool_use": CHATML, "rag": CHATML}
    with pytest.raises(UsageError) as caught:
        chat_for(tokenizer, end_ids=[2])
    assert "model.chat_template" in caught.value.todo


def test_no_end_token_is_a_usage_error(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="end-of-turn"):
        chat_for(tokenizer, end_ids=[])


def test_end_ids_keep_their_order_and_lose_their_doubles(tokenizer: Any) -> None:
    assert chat_for(tokenizer, end_ids=[2, 0, 2, 7, 0]).end_ids == (2, 0, 7)


# -- completions -------------------------------------------------------------------------------


def test_a_completion_has_an_end_only_when_it_ended(chat: Chat, tokenizer: Any) -> None:
    plain = by_hand(tokenizer, "ice melts when it is warm")
    assert chat.completion_ids("ice melts when it is warm", ended=False) == plain
    assert chat.completion_ids("ice melts when it is warm", ended=True) == [*plain, tokenizer.eos_token_id]
    assert chat.completion_ids("", ended=True) == [tokenizer.eos_token_id]
    assert chat.completion_ids("", ended=False) == []


def test_the_first_end_id_is_the_one_that_is_written(tokenizer: Any) -> None:
    assert chat_for(tokenizer, end_ids=[0, 2]).completion_ids("hello", ended=True)[-1] == 0


@pytest.mark.parametrize("text", ["hello", "  two  spaces", "naïve – “quoted” 😀", f"a {END} inside", "\n"])
def test_prompt_and_completion_lengths_add_up(chat: Chat, tokenizer: Any, text: str) -> None:
    """Prompt ids + completion ids are the ids of the whole text, whatever the texts hold."""
    prompt = chat.prompt_ids([Message("user", text)])
    response = chat.completion_ids(text, ended=True)
    whole = by_hand(tokenizer, f"{START}user\n{text}{END}\n{START}assistant\n{text}{END}")
    assert len(prompt) + len(response) >= len(whole) - 1  # a seam may keep two tokens from becoming one
    assert tokenizer.decode([*prompt, *response]) == tokenizer.decode(whole)


def test_text_leaves_out_special_tokens_and_the_space_around(chat: Chat) -> None:
    ids = chat.completion_ids("  ice melts \n", ended=True)
    assert chat.text(ids) == "ice melts"
    assert chat.text(chat.completion_ids("naïve 😀", ended=False)) == "naïve 😀"
    assert chat.text([]) == ""
