// The least that Express can do with a callback: nothing. No webhook written with Express answers faster.
import express from "express";

const app = express();
app.post("/webhooks/twilio", (request, response) => response.status(204).end());
app.listen(Number(process.env.PORT), "127.0.0.1");
