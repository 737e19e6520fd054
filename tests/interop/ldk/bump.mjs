// HTLC transactions of anchor channels carry no fee of their own: a coin of the chain's wallet goes in beside them.

import { must } from "./describe.mjs";
import { hex, unhex } from "./chain.mjs";

const FEE_SAT = 2_000n; // ample for a few HTLCs at the feerates of the tests
const SEQUENCE = 0xfffffffd;

const little = (value, size) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.subarray(0, size);
};
const sized = (bytes) => Buffer.concat([Buffer.from([bytes.length]), bytes]); // scripts here are shorter than 253 bytes

const input_of = (txid, vout, sequence) => Buffer.concat([txid, little(vout, 4), Buffer.from([0]), little(sequence, 4)]);
const output_of = (sat, script) => Buffer.concat([little(sat, 8), sized(script)]);
const list = (items) => Buffer.concat([Buffer.from([items.length]), ...items]);

function serialize(inputs, outputs, witnesses, lock_time) {
  const head = witnesses ? [little(2, 4), Buffer.from([0, 1])] : [little(2, 4)];
  return Buffer.concat([...head, list(inputs), list(outputs), ...(witnesses ?? []), little(lock_time, 4)]);
}

// The signed transaction, in hex, that resolves the HTLCs of a BumpTransactionEvent_HTLCResolution.
export async function resolve_htlcs({ htlc_descriptors, tx_lock_time }, rpc, signer_provider) {
  const coin = (await rpc.call("listunspent", 1)).find(({ amount }) => amount > 0.001);
  if (!coin) throw new Error("no coin to pay for the HTLC transactions");
  const { scriptPubKey } = await rpc.call("getaddressinfo", await rpc.call("getnewaddress"));
  const inputs = htlc_descriptors.map((descriptor) => {
    const { previous_txid, previous_vout, sequence } = descriptor.unsigned_tx_input();
    return input_of(previous_txid, previous_vout, sequence);
  });
  const outputs = htlc_descriptors.map((descriptor) => {
    const { value, script_pubkey } = descriptor.tx_output();
    return output_of(value, script_pubkey);
  });
  inputs.push(input_of(unhex(coin.txid).reverse(), coin.vout, SEQUENCE));
  outputs.push(output_of(BigInt(Math.round(coin.amount * 1e8)) - FEE_SAT, unhex(scriptPubKey)));

  const bare = serialize(inputs, outputs, null, tx_lock_time);
  const half = await rpc.call("signrawtransactionwithwallet", hex(bare));
  const { vin } = await rpc.call("decoderawtransaction", half.hex);
  const paid = list(vin[vin.length - 1].txinwitness.map((item) => sized(unhex(item))));
  const signed = htlc_descriptors.map((descriptor, index) => {
    const signer = descriptor.derive_channel_signer(signer_provider);
    const signature = must(signer.sign_holder_htlc_transaction(bare, index, descriptor), "sign an HTLC transaction");
    return Buffer.from(descriptor.tx_input_witness(signature, descriptor.witness_script()));
  });
  return hex(serialize(inputs, outputs, [...signed, paid], tx_lock_time));
}
