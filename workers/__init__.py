"""Worker processes: how they are started, spoken to and replaced, and the workers that run environments.

Both sides of a kind of worker stand in one file, where what they say to each other can be read at once. Reward workers
alone are an exception: their parent must never load what runs generated code. Nothing here knows of rewards, learning
or language models, and nothing that is imported here may load torch.

Others use

- `simulator.Simulator`: sound episodes on demand, by `collectors.Collectors` in many processes,
- `pool.WorkerPool`, `process`: the base of every kind of worker; `shared_table.SharedTable`: columns in shared memory,
- `randomness`: a seed for each use of the run's; `machine`: what this machine has; `packages`: what must be installed.
"""
