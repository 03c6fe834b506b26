"""What surrounds the algorithm: a run's flags, its directory, its signals, and what can be read from it afterwards.

Nothing here decides how agents learn or which reward function stays. A file of a run is written whole or not at all,
and what a run has written is never lost: not by a kill, not by a full disk, not by a second process.

The loop uses

- `log`: `RunLog`, the run directory and the lines on the terminal; `summary`: what a run came to,
- `champion`: the best policies so far; `checkpoint` and `resume`: all that going on needs,
- `round_block`, `terminal`: a search round in lines, and how lines that warn begin,
- `forecast`, `dry_run`: what a run will cost; `interruption`, `exit_status`: signals, and how the process ends.

`arguments` is made of `flags`, `presets` and `resume_flags`. `lock` says who writes into a directory, and `wording` how
figures are said. The commands on runs use `command`, `output`, `reading` (a run's files as figures), `policy` and
`evaluation` (a saved policy in fresh episodes), `renderer` and `video`; `python -m runs.gallery` keeps functions that
solved a task for other runs.
"""
