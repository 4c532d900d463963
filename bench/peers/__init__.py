"""What Offhook is measured beside. Each is written to be fair to what it stands for, and runs with the same servers."""
