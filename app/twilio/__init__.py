"""How Twilio says it: signatures, parameters, TwiML. No sockets, no Flask, and not what an event means."""
