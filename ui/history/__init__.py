"""The history page: what is found, what is marked, and what is done with it."""
