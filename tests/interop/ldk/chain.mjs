// The chain as the LDK peer needs it: bitcoind's JSON-RPC, blocks in order, and a wallet that funds.

export const hex = (bytes) => Buffer.from(bytes).toString("hex");
export const unhex = (text) => new Uint8Array(Buffer.from(text, "hex"));

export class Rpc {
  constructor({ url, user, password }) {
    this.url = url;
    this.authorization = "Basic " + Buffer.from(`${user}:${password}`).toString("base64");
  }

  async call(method, ...params) {
    const answer = await fetch(this.url, {
      method: "POST",
      headers: { authorization: this.authorization, "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "1.0", id: 1, method, params }),
    });
    const { result, error } = await answer.json();
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  // A signed transaction that pays `sat` to `script`, from the chain's own wallet; not broadcast.
  async fund(script, sat, feerate_sat_per_vb) {
    const bare = await this.call("createrawtransaction", [], [{ [address_of(script)]: sat / 1e8 }]);
    const { hex: funded } = await this.call("fundrawtransaction", bare, { fee_rate: feerate_sat_per_vb });
    return (await this.call("signrawtransactionwithwallet", funded)).hex;
  }
}

// Follows the best chain by polling and hands every block, in order, to the listeners; undoes what a reorg removed.
export class BlockFeed {
  constructor(rpc, on_connect, on_disconnect) {
    Object.assign(this, { rpc, on_connect, on_disconnect });
    this.chain = []; // {hash, height, raw, previous} of the blocks that the listeners know
  }

  async start() {
    this.chain = [await this.block(await this.rpc.call("getbestblockhash"))];
    this.tip.height = await this.height(this.tip.hash);
    return this.tip;
  }

  get tip() {
    return this.chain[this.chain.length - 1];
  }

  async height(hash) {
    return (await this.rpc.call("getblockheader", hash, true)).height;
  }

  async block(hash) {
    const raw = unhex(await this.rpc.call("getblock", hash, 0));
    return { hash, raw, previous: hex(raw.slice(4, 36).reverse()) };
  }

  async poll() {
    const best = await this.rpc.call("getbestblockhash");
    if (best === this.tip.hash) return false;
    const fresh = [];
    let hash = best;
    while (!this.chain.some((known) => known.hash === hash)) {
      fresh.unshift(await this.block(hash));
      hash = fresh[0].previous;
    }
    while (this.tip.hash !== hash) {
      const gone = this.chain.pop();
      this.on_disconnect(gone.raw.subarray(0, 80), gone.height);
    }
    for (const next of fresh) {
      next.height = this.tip.height + 1;
      this.chain.push(next);
      this.on_connect(next.raw, next.height);
    }
    return true;
  }
}

const BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

function polymod(values) {
  let sum = 1;
  for (const value of values) {
    const top = sum >>> 25;
    sum = ((sum & 0x1ffffff) << 5) ^ value;
    [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3].forEach((g, i) => {
      if ((top >>> i) & 1) sum ^= g;
    });
  }
  return sum;
}

// BIP 173: the regtest address of a version 0 witness program.
export function address_of(script) {
  if (script[0] !== 0) throw new Error(`no address for script ${hex(script)}`);
  const data = [0];
  let bits = 0;
  let held = 0;
  for (const byte of script.subarray(2)) {
    held = ((held << 8) | byte) & 0xfff;
    for (bits += 8; bits >= 5; bits -= 5) data.push((held >>> (bits - 5)) & 31);
  }
  if (bits) data.push((held << (5 - bits)) & 31);
  const prefix = [..."bcrt"].map((c) => c.charCodeAt(0));
  const expanded = [...prefix.map((c) => c >> 5), 0, ...prefix.map((c) => c & 31)];
  const check = polymod([...expanded, ...data, 0, 0, 0, 0, 0, 0]) ^ 1;
  for (let i = 0; i < 6; i++) data.push((check >>> (5 * (5 - i))) & 31);
  return "bcrt1" + data.map((d) => BECH32[d]).join("");
}
