"""What the service is. The files in this folder are its core, which knows no I/O; each folder is one technology."""
