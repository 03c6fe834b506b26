"""Tasks: what is to be done, in which environment, and what happened there.

This package knows about simulators, and nothing about learning, the checks of reward functions, or language models: it
must never import torch or any other package of the project. Others use

- `task`: a `Task` with its `Variable`s and `Input`s; `entry.build` makes one from an entry, checked,
- `environment`: `TaskEnvironment`, `EnvironmentFailed`, `record_probe`, `start_remarks`, `scripted_expert`,
- `episode`: `Order`, `Episode`, `Score`; `measures`: what to report about a task's states,
- `success.success_measure`: how far from success a state is, as code,
- `task_file.load_task_file`: a user's own entries; `names`: what tasks are called.

`simulator` (any environment in one form) and `human_reward`, `tidy_source` (MetaWorld's rewards as plain functions)
serve these.
"""
