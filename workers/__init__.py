"""Worker processes: how they are started, spoken to and replaced, and the workers that run environments.

Both sides of a kind of worker are in one file, where their protocol can be read in one place. Reward workers are the
only exception: their parent must never load what runs generated code. Nothing here knows about rewards, learning or
language models, and nothing that is imported here may load torch.

Others use

- `simulator.Simulator`: sound episodes on demand, by `collectors.Collectors` in many processes,
- `pool.WorkerPool`, `process`: the base of every kind of worker; `shared_table.SharedTable`: columns in shared memory,
- `randomness`: a seed for each use of the run's seed; `machine`: what this machine has; `packages`: what must be
  installed.
"""
