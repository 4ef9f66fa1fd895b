"""The Textual app: a reader of the project folder that can also start and steer runs.

Everything that decides what is on screen is free of Textual (`state`, `overview`, `labelling`, `series`,
`plot`, `keys`, `words`) and is tested without a terminal; `screens` and `widgets` only show it.
Nothing here imports torch: the model lives in the worker process of a run.
"""
