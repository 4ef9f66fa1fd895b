"""How a report says its numbers: '71 % (64 to 77 %)'."""

from __future__ import annotations

from rlhf_tui.assessment.records import Interval
from rlhf_tui.preferences.intervals import Estimate, Rate

UNKNOWN = "unknown"


def percent(share: float) -> str:
    """'71 %'"""
    return f"{_whole(share)} %"


def share_of(rate: Rate) -> str:
    """'71 % (64 to 77 %)'"""
    return UNKNOWN if rate.share is None else with_ends(rate.share, rate.low, rate.high)


def share_and_n(rate: Rate) -> str:
    """'71 % (64 to 77 %) of 180'"""
    return f"{share_of(rate)} of {rate.n}" if rate.n else "none"


def estimated_share(estimate: Estimate) -> str:
    """'90 % (84 to 95 %)'"""
    if estimate.value is None:
        return UNKNOWN
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return with_ends(estimate.value, estimate.low, estimate.high)


def points(difference: Interval, decimals: int = 0) -> str:
    """'+8 points (+1 to +15)': a difference of two shares."""
    middle, low, high = (signed(100 * end, decimals) for end in difference)
    return f"{middle} points ({low} to {high})"


def coefficient(estimate: Estimate) -> str:
    """'+0.31 (+0.12 to +0.48)'"""
    if estimate.value is None:
        return UNKNOWN
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.2f}"
    return f"{estimate.value:+.2f} ({estimate.low:+.2f} to {estimate.high:+.2f})"


def with_ends(value: float, low: float, high: float) -> str:
    """'71 % (64 to 77 %)'"""
    return f"{percent(value)} ({_whole(low)} to {percent(high)})"


def _whole(share: float) -> str:
    return f"{100 * share:.0f}"


def signed(value: float, decimals: int = 0) -> str:
    """'+8', '-1.2', and '0' without a sign."""
    value = round(value, decimals) + 0.0  # no "-0"
    return f"{value:+.{decimals}f}" if value else f"{value:.{decimals}f}"
