"""People's judgements: prompts, candidates, who preferred which, and under which guideline.

One SQLite file a project (`store`). `queue` says what to judge next, `formats` reads and writes
files of others, `statistics` says what the judgements show, `snapshot` holds the pairs of a run still.
Nothing here needs a model.
"""
