"""What vs_trl.py measures on both sides: seconds by phase, tokens, memory, and whether the adapters learnt."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Data = Mapping[str, Any]


class Steps:
    """When each phase of each step ended, how much was sampled, and how many optimiser steps there were."""

    def __init__(self, plan: Data, data: Data) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self._limit, self._stop = plan["limit"], data["stop"]
        self.optimiser_steps = 0
        self.done: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._sampled: dict[str, float] = {}
        self._hook = register_optimizer_step_post_hook(lambda *_: self._stepped())
        self.before = peak_mb()
        self._began = time.perf_counter()

    def _stepped(self) -> None:
        self.optimiser_steps += 1

    def sampled(self, seconds: float, responses: Sequence[Sequence[int]]) -> None:
        """Sampling has ended and took so long."""
        lengths = [self._length(response) for response in responses]
        cut = [
            self._stop is None or self._stop not in response[:n] for response, n in zip(responses, lengths, strict=True)
        ]
        self._sampled = {
            "sampling": seconds,
            "tokens": sum(lengths),
            "share": statistics.mean(lengths) / self._limit,
            "cut": statistics.mean(cut),
        }

    def _length(self, response: Sequence[int]) -> int:
        """Tokens up to the first end token, and with it."""
        whole = list(response)
        return whole.index(self._stop) + 1 if self._stop in whole else len(whole)

    def learning(self) -> None:
        """The first forward pass with a gradient begins (later calls of a step count nothing)."""
        self._now.setdefault("learning", time.perf_counter())

    def ended(self, update_seconds: float | None = None) -> None:
        """A step is over; its update took so long, if that is not known from `learning`."""
        ended = time.perf_counter()
        step = ended - self._began
        update = update_seconds if update_seconds is not None else ended - self._now["learning"]
        self.done.append(
            {"step": step, "update": update, "scoring": step - update - self._sampled["sampling"]} | self._sampled
        )
        self._began, self._now = time.perf_counter(), {}

    def stop(self) -> dict[str, Any]:
        """All of it; the first step was for warming up."""
        self._hook.remove()
        return {
            "steps": self.done[1:],
            "warm_up": self.done[0],
            "optimiser_steps": self.optimiser_steps,
            "peak_mb": peak_mb(),
            "before_mb": self.before,
            "peak_gpu_mb": peak_gpu_mb(),
            "cpu_s": time.process_time(),
        }


def peak_mb() -> float:
    """Most memory that the process ever held."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours = sys.modules.get("rlhf_tui.training.memory")  # it sets the kernel's mark back, and keeps what that was
    return highest if ours is None else max(highest, ours.peak_of_process() / 2**20)


def peak_gpu_mb() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0


def moved(start: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, int]:
    """In how many LoRA matrices B something is, and how many LoRA weights there are."""
    second = [name for name in start if ".lora_B." in name]
    return {
        "lora_layers": len(second),
        "lora_layers_moved": sum(bool((now[name] != start[name]).any()) for name in second),
        "lora_weights": sum(one.numel() for name, one in start.items() if ".lora_" in name),
    }


@contextmanager
def patched(module: Any, name: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside, the function `name` of a module is what `made` makes of it."""
    own = getattr(module, name)
    setattr(module, name, made(own))
    try:
        yield
    finally:
        setattr(module, name, own)


def lora(plan: Data) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=plan["rank"], lora_alpha=plan["alpha"], lora_dropout=0.0, target_modules=LINEAR)
