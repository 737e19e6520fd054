// A bare BOLT 8 and BOLT 1 peer over @node-dlc/noise: one connection, init, pings, and a JSON line about it.
//
//   node bolt8.mjs connect NODE_ID HOST PORT PINGS
//   node bolt8.mjs listen PORT PINGS         first prints {"node_id", "port"}; stays until the other end goes

import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { NoiseServer, NoiseSocket, NoiseState } = require("@node-dlc/noise");
const { getPublicKey } = require("@node-dlc/crypto");
const { Socket } = require("node:net");

const [INIT, PING, PONG] = [16, 18, 19];
const FEATURES = Buffer.from("a282", "hex"); // 1, 7, 9, 13, 15: data loss, queries, TLV onions, static_remotekey, payment_secret
const PONG_BYTES = 7;
const LIMIT_MS = 20_000;

const secret = randomBytes(32);
const node_id = getPublicKey(secret, true).toString("hex");
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function fail(why) {
  say({ error: String(why?.message ?? why) });
  process.exit(1);
}

const u16 = (value) => Buffer.from([value >> 8, value & 255]);
const message = (type, ...parts) => Buffer.concat([u16(type), ...parts]);

// The conversation, the same whoever called: init both ways, our pings answered, theirs answered by us.
function converse(socket, pings) {
  const result = { node_id, pongs: 0, pings_answered: 0, other_types: [] };
  const ping = () => socket.write(message(PING, u16(PONG_BYTES), u16(0)));
  socket.on("data", (data) => {
    const type = data.readUInt16BE(0);
    if (type === INIT) {
      result.peer = socket.rpk.toString("hex");
      result.init = data.toString("hex");
      ping();
    } else if (type === PONG) {
      if (data.length !== 4 + PONG_BYTES) fail(`pong of ${data.length} bytes`);
      result.pongs += 1;
      if (result.pongs < pings) return ping();
      if (result.pongs === pings) say(result);
      if (role === "connect") process.exit(0);
    } else if (type === PING) {
      const wanted = data.readUInt16BE(2);
      result.pings_answered += 1;
      socket.write(message(PONG, u16(wanted), Buffer.alloc(wanted)));
    } else result.other_types.push(type);
  });
  socket.on("error", fail);
  socket.on("close", () => (result.pongs < pings ? fail("the connection ended") : process.exit(0)));
  const greet = () => socket.write(message(INIT, u16(0), u16(FEATURES.length), FEATURES));
  socket.on("ready", greet);
}

const [role, ...args] = process.argv.slice(2);
setTimeout(() => fail("no answer in time"), LIMIT_MS);
if (role === "connect") {
  const [peer, host, port, pings] = args;
  const rpk = Buffer.from(peer, "hex");
  const tcp = new Socket();
  const socket = new NoiseSocket({ socket: tcp, noiseState: new NoiseState({ ls: secret, es: randomBytes(32) }), rpk });
  converse(socket, Number(pings));
  tcp.connect({ host, port: Number(port) });
} else {
  const [port, pings] = args;
  const server = new NoiseServer({ ls: secret }, (socket) => converse(socket, Number(pings)));
  server.listen({ host: "127.0.0.1", port: Number(port) }, () => say({ node_id, port: server.address().port }));
}
