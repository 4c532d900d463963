"""RQ lives here: the worker process, what wakes it, and what it does when woken."""
