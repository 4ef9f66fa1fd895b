"""OpenRLHF reads TRL's explicit rows when it is told the keys (openrlhf/datasets/reward_dataset.py, August 2026)."""

from __future__ import annotations

from rlhf_tui.preferences.formats.writers.trl import explicit as row

__all__ = ["USE", "row"]

USE = (
    "--data.dataset {file} --data.prompt_key prompt --data.chosen_key chosen --data.rejected_key rejected "
    "--data.apply_chat_template  # openrlhf.cli.train_rm and openrlhf.cli.train_dpo. "
    "--model.margin_loss_enable makes train_rm use the 'margin' column."
)
