"""500 answers in one sitting through a real terminal: about five minutes, so it is not part of the test suite.

    python tests/bench/label_500.py

Prints the memory of the app process after a third of the answers and how much it grew until the end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["RLHF_TUI_TEST_ANSWERS"] = "500"
    test = Path(__file__).parents[1] / "test_terminal_labelling.py"
    sys.exit(pytest.main([str(test), "-s", "-o", "timeout=1800"]))
