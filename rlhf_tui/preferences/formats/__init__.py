"""Files of prompts and of judgements: read whole or not at all, and written for others.

`import_labels` and `preview` take any format that `detect` knows by its keys (`readers` has one reader each),
from files by `lines` and `tables` and from the hub by `hub`; `read_prompts` takes prompts. `export_labels` and
`export_all` write what other trainers read as it is (`writers`), each with a manifest. `conventions` holds what
both sides must know.
"""

from rlhf_tui.preferences.formats.exporting import ExportReport, export_all, export_labels
from rlhf_tui.preferences.formats.importing import ImportReport, Preview, import_labels, preview
from rlhf_tui.preferences.formats.prompts import read_prompts

__all__ = [
    "ExportReport",
    "ImportReport",
    "Preview",
    "export_all",
    "export_labels",
    "import_labels",
    "preview",
    "read_prompts",
]
