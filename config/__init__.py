"""What operators configure: settings, logs, the web server."""
