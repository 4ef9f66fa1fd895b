"""Files of prompts and of judgements: reading them whole or not at all, and writing them for others.

`prompts` reads prompts, `labels` is our own line for one judgement, `trl` the one TRL trains on,
`pairs` imports and exports either, `lines` reads JSON lines with errors that name the line.
"""

from rlhf_tui.preferences.formats.pairs import ImportReport, export_labels, import_labels
from rlhf_tui.preferences.formats.prompts import read_prompts

__all__ = ["ImportReport", "export_labels", "import_labels", "read_prompts"]
