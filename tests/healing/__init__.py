"""Conferences that lose callbacks, healed in virtual time by looks at Twilio's REST API: see `__main__`."""
