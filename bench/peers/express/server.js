// What one would write first in Node: Express, the SDK's webhook middleware, and a BullMQ job for each callback.
// WEB_CONCURRENCY server processes share the port.
import cluster from "node:cluster";
import { Queue } from "bullmq";
import express from "express";
import twilio from "twilio";
import { connect } from "./redis.js";

const { PORT, WEB_CONCURRENCY = "1" } = process.env;

function serve() {
  const queue = new Queue("callbacks", {
    connection: connect(),
    defaultJobOptions: { removeOnComplete: true },
  });
  const app = express();
  app.set("trust proxy", "loopback"); // the proxy that ends TLS says that it was https
  app.post("/webhooks/twilio", express.urlencoded({ extended: false }), twilio.webhook(), async (request, response) => {
    await queue.add("apply", request.body);
    response.status(204).end();
  });
  app.listen(Number(PORT), "127.0.0.1");
}

if (cluster.isPrimary && WEB_CONCURRENCY !== "1") {
  for (let each = 0; each < Number(WEB_CONCURRENCY); each += 1) cluster.fork();
  process.once("SIGTERM", () => Object.values(cluster.workers).forEach((each) => each.process.kill()));
} else {
  serve();
}
