"""`make bench`: one run, one table, peers side by side. Medians and ratios of one run."""
