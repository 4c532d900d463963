"""The fault lab: `python -m tests.chaos` starts private Offhooks, does real harm to them, and says what they keep."""
