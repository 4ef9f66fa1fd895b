"""`python -m rlhf_tui` is `rlhf-tui`."""

from rlhf_tui.cli import main

main()
