"""Sampling beside `model.generate`: the same starter model, prompts, rows and lengths, in one process, in turn.

    python tests/bench/decode.py [--rows 16] [--prompt 60] [--new 64] [--threads 2] [--repeats 3] [--quick]

Both sample purely (temperature 1, no top-k, no top-p) from random prompts of equal length and always to the limit: the
case that suits `generate` best, with nothing to pad, to refill or to share. Without adapters, and with a policy adapter
(r = 16 on all linear layers) that does something. Medians of the repeats, after a warm-up of the same shape. The rate
of decoding is that of all tokens after the first: their number over the time of the whole less the time of one token.
One token needs no layout of the weights in blocks, so that the time for this counts against our decoding. `whole`
counts everything. The last workload is what `generate` suits least: answers that end (at every 24th token of the
vocabulary) and four samples of each of 3/4 of the prompts, so three times as many completions as rows. Once each.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 16), ("prompt", 60), ("new", 64), ("threads", 2), ("repeats", 3)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--quick", action="store_true", help="4 new tokens, once: does it run?")
    wanted = options.parse_args()
    if wanted.quick:
        wanted.new, wanted.repeats = 4, 1
    os.environ["OMP_NUM_THREADS"] = str(wanted.threads)
    print(json.dumps(measured(wanted), indent=2))


def measured(wanted: argparse.Namespace) -> dict[str, Any]:
    import torch

    from rlhf_tui.model.base import load_base
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.settings import AdapterSettings, ModelSettings

    torch.set_num_threads(wanted.threads)
    base = load_base(ModelSettings(device="cpu", quantisation="none"), lambda text: None)
    bench = Bench(base.model, wanted)
    found: dict[str, Any] = {"settings": vars(wanted), "torch": torch.__version__, "no adapters": bench.fixed()}
    roles = Roles(base, AdapterSettings(rank=16, alpha=32), seed=0)
    roles.add("policy")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in roles.parameters("policy"):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    with roles.acting("policy"):
        found["policy adapter"] = bench.fixed()
        found["policy adapter, ends, shared prompts"] = bench.ragged()
    return found


class Bench:
    """Prompts, and both ways of sampling from them."""

    def __init__(self, model: Any, wanted: argparse.Namespace) -> None:
        import torch

        self.model, self.wanted = model, wanted
        self.size = model.config.get_text_config().vocab_size
        generator = torch.Generator().manual_seed(0)
        shape = (wanted.rows, wanted.prompt)
        self.prompts: list[list[int]] = torch.randint(100, self.size, shape, generator=generator).tolist()

    def theirs(self, prompts: Sequence[Sequence[int]], new: int, ends: Sequence[int] = ()) -> int:
        """Tokens made by model.generate, `rows` prompts at a time."""
        import torch

        made = 0
        for start in range(0, len(prompts), self.wanted.rows):
            ids = torch.tensor(list(prompts[start : start + self.wanted.rows]))
            with torch.no_grad():
                out = self.model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                    top_p=1.0, max_new_tokens=new, eos_token_id=list(ends) or None, pad_token_id=0,
                    min_new_tokens=None if ends else new,
                )  # fmt: skip
            for row in out[:, ids.shape[1] :].tolist():
                stops = [place for place, token in enumerate(row) if token in ends]
                made += stops[0] + 1 if stops else len(row)
        return made

    def ours(self, prompts: Sequence[Sequence[int]], new: int, ends: Sequence[int] = ()) -> int:
        from rlhf_tui.model.generation import Sampling, sample

        wanted = Sampling(new, 1.0)
        done = sample(self.model, prompts, wanted, end_ids=ends or (-1,), rows=self.wanted.rows, seed=0)
        return sum(len(one.ids) for one in done)

    def fixed(self) -> dict[str, Any]:
        """Every row runs to the limit."""
        tokens, found = self.wanted.rows * self.wanted.new, {}
        for name, way in (("generate", self.theirs), ("ours", self.ours)):
            way(self.prompts, self.wanted.new)
            first = median(lambda way=way: way(self.prompts, 1), self.wanted.repeats)
            whole = median(lambda way=way: way(self.prompts, self.wanted.new), self.wanted.repeats)
            found[name] = {
                "first_token_s": round(first, 3),
                "whole_s": round(whole, 3),
                "decode_tokens_per_s": round((tokens - self.wanted.rows) / (whole - first), 1),
                "whole_tokens_per_s": round(tokens / whole, 1),
            }
        return found | ratios(found["generate"], found["ours"], ("decode_tokens_per_s", "whole_tokens_per_s"))

    def ragged(self) -> dict[str, Any]:
        """Answers of many lengths: every 24th token ends one; four samples of each prompt."""
        ends = list(range(0, self.size, 24))
        prompts = [prompt for prompt in self.prompts[: max(1, self.wanted.rows * 3 // 4)] for _ in range(4)]
        found = {}
        for name, way in (("generate", self.theirs), ("ours", self.ours)):
            began = time.perf_counter()
            tokens = way(prompts, self.wanted.new, ends)
            passed = time.perf_counter() - began
            found[name] = {
                "seconds": round(passed, 2),
                "tokens": tokens,
                "mean_length": round(tokens / len(prompts), 1),
                "whole_tokens_per_s": round(tokens / passed, 1),
            }
        return found | ratios(found["generate"], found["ours"], ("whole_tokens_per_s",))


def ratios(theirs: dict[str, float], ours: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    return {f"{name} ratio": round(ours[name] / theirs[name], 2) for name in names}


def median(work: Callable[[], object], repeats: int) -> float:
    """Seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
