"""In and out: tables of runs that people have, and mixtures as the trainers they use read them.

sheets       a table from a CSV, TSV, Parquet or JSON lines file, or a data frame, with every cell's address
columns      which columns are weights and which are metrics
directions   which metrics are better when higher
swarm        the runs, joined by id
results      what runs measured, in the files of evaluators and trainers
fit          from the runs to the answer, as ``mixwright fit`` and `mixwright.fit` give it
text         the answer in a terminal

Nothing here needs the service, a database or torch.
"""
