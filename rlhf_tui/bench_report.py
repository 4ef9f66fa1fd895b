"""What the bench found, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GIB = 2**30
_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def bench_text(result: Mapping[str, Any]) -> str:
    """The model and sizes, the machine's best, each kind of work beside it, and one update phase by phase."""
    return "\n\n".join([_head(result), _speeds(result), _update(result)])


def _head(result: Mapping[str, Any]) -> str:
    sizes, machine = result["sizes"], result["machine"]
    how = _FORMATS.get(result["dtype"], result["dtype"])
    stored = f"in {how}" if result["quantisation"] == "none" else f"stored as {result['quantisation']}, {how} products"
    threads = f" with {result['threads']} threads" if result["device"] == "cpu" else ""
    return "\n".join(
        [
            f"{result['model']}: {result['parameters'] / 1e6:,.1f} million parameters, {stored},",
            f"on {result['device_name']}{threads}.",
            f"One update: {sizes['rollout_size']} completions of {sizes['prompt_tokens']} + {sizes['new_tokens']} "
            f"tokens (none ends early),",
            f"{sizes['epochs']} x {sizes['minibatches']} minibatches; {sizes['sampling_rows']} rows in flight, "
            f"{sizes['micro_rows']} in a micro-batch.",
            f"At best: {_flops(machine['matmul'])} in matrix products, "
            f"{machine['bandwidth'] / 1e9:.1f} GB/s from memory.",
        ]
    )


def _speeds(result: Mapping[str, Any]) -> str:
    lines = [f"  {'':<24}{'tokens/s':>10}{'':>2}{'arithmetic':>14}   {'of the best':>11}   {'of its own':>10}"]
    for one in result["speeds"]:
        name = f"{one['phase']}  {one['role']}" if one["phase"] not in ("prefill", "decode") else one["phase"]
        if one["phase"] == "decode":
            name = f"decode, {one['rows']} rows"
        lines.append(
            f"  {name:<24}{one['tokens']:>10,.0f}{'':>2}{_flops(one['flops']):>14}   "
            f"{one['of_matmul']:>11.0%}   {one['of_own_matmul']:>10.0%}"
        )
    lines += [
        "  of the best: the fastest matrix product found here; of its own: the model's",
        "  linear layers alone, with as many rows. Needless arithmetic is not counted.",
    ]
    read = [one for one in result["speeds"] if one.get("of_bandwidth")]
    found = (result.get("sampling_weights") or {}).get("seconds")
    if found:
        then = "which it uses" if result["sampling_weights"]["chosen"] == "copy" else "which it does without"
        lines.append(
            f"  An update's sampling: {found['quantised']:.1f} s in 4 bits, {found['copy']:.1f} s with a copy, {then}."
        )
    lines += [f"  Decoding reads at least {one['of_bandwidth']:.0%} of what memory can give." for one in read]
    return "\n".join(lines)


def _update(result: Mapping[str, Any]) -> str:
    lines = [f"  {'one update':<24}{'seconds':>10}{'share':>10}{'peak GiB':>12}{'planned':>10}{'':>3}{'plan':>6}"]
    for one in result["phases"]:
        off = one["planned"] / one["peak"] - 1
        lines.append(
            f"  {one['phase']:<24}{one['seconds']:>10.1f}{one['share']:>10.0%}{one['peak'] / _GIB:>12.2f}"
            f"{one['planned'] / _GIB:>10.2f}{'':>3}{off:>+6.0%}"
        )
    lines.append(f"  {'in all':<24}{result['seconds']:>10.1f}")
    return "\n".join(lines)


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.1f} GFLOP/s"
