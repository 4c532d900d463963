"""Redis lives here: callbacks as they came, documents, logs, the index and the change feed.

It keeps and hands back. What an event means, HTTP and RQ are strangers to it.
"""
