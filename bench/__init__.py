"""Measures Offhook beside what one would write instead, on this machine. `python -m bench`."""
