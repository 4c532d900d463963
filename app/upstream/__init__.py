"""Twilio's REST API lives here: the only code that calls it."""
