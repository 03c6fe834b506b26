"""Who writes reward functions, and how candidates are found: prompts, models, checked answers."""
