"""A telephone company in a box: makes up conferences and sends the signed callbacks that Twilio would send.

It is a stranger to the rest of the house: it imports nothing of it and meets it only over HTTP, as Twilio
does.
"""
