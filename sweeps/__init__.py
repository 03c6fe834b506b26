"""Many runs as one: planned from a file of a few lines, kept going until all are done, and summed up in one table.

A sweep starts each run as a user would, as a process of its own with its own run directory, and knows only what the
run's files say. It must never do what a run does, read a model's key, or start again what is done; and its own state is
in files as well, so that it can be stopped, killed and started again at any moment.

`sweep.py` uses

- `plan`: which runs there are, `Sweep`; `estimate`: what they will cost,
- `local`: runs as processes on this machine, `Machine`; `cluster`: on the nodes of a Ray cluster, `Cluster`,
- `limits`: what all of them may send to a language model,
- `progress`: how far each run is; `board`: the same as a table, live or in lines, and the results at the end.

The sweeps that come with LaRes are the YAML files beside these modules.
"""
