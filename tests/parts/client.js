// A client of enclave-signer: node client.js SOCKET MESSAGE-IN-HEX [ADDRESS]
// It signs with the key of that address, or without one with an Ed25519 key that it makes.
// Frames: length, 4 bytes big-endian, then one CBOR item. Only what the calls here need is encoded and decoded.
"use strict";
const net = require("net");

function head(major, value) {
  if (value < 24) return Buffer.from([(major << 5) | value]);
  if (value < 256) return Buffer.from([(major << 5) | 24, value]);
  const bytes = Buffer.alloc(3);
  bytes[0] = (major << 5) | 25;
  bytes.writeUInt16BE(value, 1);
  return bytes;
}

function encode(value) {
  if (typeof value === "number") return head(0, value);
  if (Buffer.isBuffer(value)) return Buffer.concat([head(2, value.length), value]);
  if (typeof value === "string") {
    const bytes = Buffer.from(value, "utf8");
    return Buffer.concat([head(3, bytes.length), bytes]);
  }
  const entries = Object.entries(value);
  return Buffer.concat([head(5, entries.length), ...entries.flatMap(([name, item]) => [encode(name), encode(item)])]);
}

function decode(bytes) {
  let at = 0;
  function item() {
    const major = bytes[at] >> 5;
    let value = bytes[at++] & 31;
    if (major === 7) {
      if (value !== 22) throw new Error("only null is a simple value here");
      return null;
    }
    if (value === 24) value = bytes[at++];
    else if (value === 25) { value = bytes.readUInt16BE(at); at += 2; }
    else if (value > 23) throw new Error("longer than any answer to these calls");
    if (major === 0) return value;
    if (major === 2) { at += value; return bytes.subarray(at - value, at); }
    if (major === 3) { at += value; return bytes.toString("utf8", at - value, at); }
    if (major === 4) return Buffer.from(Array.from({ length: value }, item));
    const map = {};
    for (let left = value; left > 0; left--) { const name = item(); map[name] = item(); }
    return map;
  }
  const value = item();
  if (at !== bytes.length) throw new Error("bytes after the item");
  return value;
}

class Client {
  constructor(path) {
    this.received = Buffer.alloc(0);
    this.waiting = [];
    this.socket = net.createConnection(path);
    this.socket.on("data", (data) => { this.received = Buffer.concat([this.received, data]); this.take(); });
    this.socket.on("error", (error) => this.fail(error));
    this.socket.on("close", () => this.fail(new Error("the enclave has closed the connection")));
  }

  fail(error) {
    for (const { reject } of this.waiting.splice(0)) reject(error);
  }

  take() {
    while (this.received.length >= 4) {
      const end = 4 + this.received.readUInt32BE(0);
      if (this.received.length < end) return;
      const reply = decode(this.received.subarray(4, end));
      this.received = this.received.subarray(end);
      const { resolve, reject } = this.waiting.shift();
      if ("Err" in reply) reject(new Error(reply.Err.message));
      else resolve(reply.Ok);
    }
  }

  call(name, argument) {
    const body = encode({ [name]: argument });
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length, 0);
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.socket.write(Buffer.concat([length, body]));
    });
  }
}

async function open(client, address) {
  if (address !== undefined) return client.call("UseKey", address);
  const [, opened] = await Promise.all([client.call("Initialize", {}), client.call("GenerateAndImport", "Ed25519")]);
  return opened;
}

async function main([path, message, address]) {
  const client = new Client(path);
  try {
    const { public_key, handle } = await open(client, address);
    const signature = await client.call("Sign", { handle, message: Buffer.from(message, "hex"), version: 255 });
    const [type] = Object.keys(public_key);
    console.log(type, public_key[type].toString("hex"), signature[type].toString("hex"));
  } finally {
    client.socket.destroy();
  }
}

main(process.argv.slice(2)).catch((error) => { console.error(error.message); process.exitCode = 1; });
