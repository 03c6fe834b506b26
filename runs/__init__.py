"""What surrounds the algorithm: a run's flags, its directory, its signals, and what can be read from it afterwards.

Nothing here decides how agents learn or which reward function stays. A file of a run is written whole or not at all,
and what a run has written is never lost: not to a kill, a full disk or a second process.

The loop uses

- `log`: `RunLog`, the run directory and the lines on the terminal; `summary`: a run's results,
- `champion`: the best policies so far; `checkpoint` and `resume`: everything needed to continue,
- `round_block`: a search round in a few lines; `terminal`: lines and progress on standard output,
- `forecast`, `dry_run`: what a run will cost; `interruption`, `exit_status`: signals, and how the process ends.

`arguments` is made of `flags`, `presets` and `resume_flags`. `lock` lets one process write to a directory, and
`wording` formats figures. The commands on runs use `command`, `output`, `reading` (of a run's files), `policy` and
`evaluation` (a saved policy in fresh episodes), `renderer` and `video`; `python -m runs.gallery` keeps functions that
solved a task for other runs.
"""
