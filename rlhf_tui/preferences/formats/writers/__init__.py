"""Writing judgements for others: for each trainer, leaderboard or table one pure function from a pair to a row.

`shapes` is what they share, `sources` says what the rows of a format are made of, `registry` lists the formats
by name, `files` puts rows into a file. A module named after a tool knows that tool and nothing else.
"""
