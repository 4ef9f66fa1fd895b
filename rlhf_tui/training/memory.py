"""What the process and the card hold, by phase."""

from __future__ import annotations

import resource

import psutil
import torch

from rlhf_tui.runs.events import Memory


def measure(phase: str, device: torch.device) -> Memory:
    """Memory now and at its peak since the process began (card: since the last measurement), in bytes."""
    rss = psutil.Process().memory_info().rss
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type != "cuda":
        return Memory(phase, rss, max(rss, peak_rss))
    now, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return Memory(phase, rss, max(rss, peak_rss), now, peak)
