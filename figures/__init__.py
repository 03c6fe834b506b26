"""What runs look like: statistics over seeds, figures for a paper, and the report of a run as a page.

It reads what `runs.reading` hands out and never writes into a run's files. Names, code and answers in it are text of
others: a page shows them as text, and never as markup or as a program.

The commands use `curves` and `drawing` (success against env steps), `files` (pictures and tables, written), `report`
and `comparison` (pages of one run, and of several), and `film` (the chosen policy's video for a page).
"""
