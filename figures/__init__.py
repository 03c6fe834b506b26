"""What runs look like: statistics over seeds, figures for a paper, and the report of a run as a page.

It reads what `runs.reading` returns and never changes a run's files. Names, code and answers in it are untrusted text:
a page shows them as text, never as markup or as a script.

The commands use `curves` and `drawing` (success against env steps), `files` (writes pictures and tables), `report` and
`comparison` (pages of one run, and of several), and `film` (the chosen policy's video for a page).
"""
