"""From messages to token ids and back, through the model's chat template.

Ids come from the template in one step (rendering to text and tokenising that would put two
BOS tokens in front), and masks are made from lengths, never from `token == pad`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from rlhf_tui.errors import UsageError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class MessageLike(Protocol):
    """Anything with a role ('system', 'user', 'assistant') and a content."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Chat:
    """A tokenizer, its chat template, the system prompt, and the ids that end a turn."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    system_prompt: str
    end_ids: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that turns a conversation into ids: template, system prompt, end of turn, vocabulary.

        A score means something only where text is put to the model as it was in training.
        """
        sample = self.tokenizer("The quick brown fox, 1234!\n\tΔ", add_special_tokens=False)["input_ids"]
        parts = [self.template, self.system_prompt, list(self.end_ids), len(self.tokenizer), list(sample)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def prompt_ids(self, messages: Sequence[MessageLike], *, system_prompt: str | None = None) -> list[int]:
        """Token ids of a conversation up to where the assistant's answer begins.

        `system_prompt` replaces the setting for this call. A conversation that brings its own
        system message keeps it.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        system = self.system_prompt if system_prompt is None else system_prompt
        if system and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": system})
        ids = self.tokenizer.apply_chat_template(
            turns, chat_template=self.template, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        return [int(token) for token in ids]

    def completion_ids(self, text: str, *, ended: bool) -> list[int]:
        """Token ids of an answer that exists as text; with the end-of-turn token when it `ended` by itself.

        For texts that were never sampled here, or of which only the text was kept. What is sampled
        in a rollout keeps its own ids and never comes through here.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [*ids, self.end_ids[0]] if ended else ids

    def text(self, ids: Sequence[int]) -> str:
        """The readable answer: without the end-of-turn token and other special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def chat_for(
    tokenizer: PreTrainedTokenizerBase, *, end_ids: Sequence[int], template: str = "", system_prompt: str = ""
) -> Chat:
    """The chat format of a tokenizer.

    `template` is empty (the tokenizer's own), 'chatml', or the path of a Jinja file. Raises
    UsageError when there is no template, when it does not render, or when no token ends a turn.
    """
    source = _template(tokenizer, template)
    if not end_ids:
        raise UsageError(
            "This model has no end-of-turn token.",
            why="Neither its generation settings nor its tokenizer name an EOS token.",
            todo="Use an instruction-tuned model, or add eos_token_id to its generation_config.json.",
        )
    chat = Chat(tokenizer, source, system_prompt, tuple(dict.fromkeys(int(token) for token in end_ids)))
    _try_out(chat)
    return chat


def _template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    if template == "chatml":
        return CHATML
    if template:
        path = Path(template).expanduser()
        if not path.is_file():
            raise UsageError(
                f"There is no chat template file {template!r}.",
                todo="Set model.chat_template to a Jinja file or to 'chatml'.",
            )
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path} cannot be read.", why=str(error), todo="Set model.chat_template to a Jinja file."
            ) from None
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        raise UsageError(
            "This model has no chat template.",
            why="It is probably a base model, which continues text and does not answer.",
            todo="Use an instruction-tuned model, or set model.chat_template to a Jinja file or to 'chatml'.",
        )
    return str(own)


def _try_out(chat: Chat) -> None:
    @dataclass(frozen=True)
    class Probe:
        role: str
        content: str

    try:
        ids = chat.prompt_ids([Probe("user", "Hello.")])
    except Exception as error:
        raise UsageError(
            "The chat template does not work.",
            why=str(error),
            todo="Correct the template, or set model.chat_template to 'chatml'; some templates take no system prompt.",
        ) from None
    bos = chat.tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise UsageError(
            "The chat template puts two BOS tokens before the prompt.",
            todo="Remove the BOS token from the template named by model.chat_template.",
        )
