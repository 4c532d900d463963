// Where Redis is: REDIS_URL, as Offhook and the Python peer are told it.
import { Redis } from "ioredis";

const { REDIS_URL } = process.env;
const SOCKET = "unix://"; // ioredis takes the path of a socket, but not such a URL

export function connect(options = {}) {
  const where = REDIS_URL.startsWith(SOCKET) ? decodeURIComponent(REDIS_URL.slice(SOCKET.length)) : REDIS_URL;
  return new Redis(where, options);
}
