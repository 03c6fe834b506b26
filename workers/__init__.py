"""Worker processes: how they are started, spoken to and replaced, and the workers that run environments.

Both sides of a kind of worker stand in one file, where what they say to each other can be read at once. Reward workers
alone are an exception: their parent must never load what runs generated code. Nothing here knows of rewards, learning
or language models.
"""
