// LDK's objects as plain JSON: what the driver on the other side of the pipe reads.

import * as ldk from "lightningdevkit";
import { hex } from "./chain.mjs";

export const some = (option) => option?.some ?? null;
const number = (option) => (some(option) === null ? null : Number(some(option)));
const bytes = (option) => (some(option) === null ? null : hex(some(option)));

// The value of a result, or an error that carries everything the binding knows about the failure.
export function must(result, what) {
  if (result.is_ok()) return result.res;
  throw new Error(`${what}: ${describe_error(result.err)}`);
}

export function describe_error(err) {
  if (err === undefined || err === null || typeof err !== "object") return String(err);
  if (typeof err.get_err === "function") return err.get_err();
  const fields = ["err", "reason", "feerate", "error"].filter((name) => err[name] !== undefined);
  return [err.constructor.name, ...fields.map((name) => err[name])].join(" ");
}

export function describe_channel(channel) {
  const type = channel.get_channel_type();
  const funding = channel.get_funding_txo();
  return {
    channel_id: hex(channel.get_channel_id().get_a()),
    peer: hex(channel.get_counterparty().get_node_id()),
    short_channel_id: scid(channel.get_short_channel_id()),
    inbound_scid_alias: scid(channel.get_inbound_scid_alias()),
    outbound_scid_alias: scid(channel.get_outbound_scid_alias()),
    funding_txid: funding ? hex(funding.get_txid().reverse()) : null,
    funding_output_index: funding ? funding.get_index() : null,
    capacity_sat: Number(channel.get_channel_value_satoshis()),
    outbound_msat: Number(channel.get_outbound_capacity_msat()),
    inbound_msat: Number(channel.get_inbound_capacity_msat()),
    feerate_per_kw: number(channel.get_feerate_sat_per_1000_weight()),
    confirmations: number(channel.get_confirmations()),
    opener: !!channel.get_is_outbound(),
    announced: !!channel.get_is_announced(),
    ready: !!channel.get_is_channel_ready(),
    usable: !!channel.get_is_usable(),
    channel_type: type ? describe_type(type) : null,
    pending_inbound: channel.get_pending_inbound_htlcs().length,
    pending_outbound: channel.get_pending_outbound_htlcs().length,
  };
}

const scid = (option) => (some(option) === null ? null : String(some(option)));

const describe_type = (type) =>
  type.supports_anchors_zero_fee_htlc_tx() ? "anchors" : type.supports_static_remote_key() ? "static_remotekey" : "other";

export function describe_graph(graph) {
  const view = graph.read_only();
  const channels = view.list_channels().map((short_channel_id) => {
    const info = view.channel(short_channel_id);
    return {
      short_channel_id: String(short_channel_id),
      nodes: [info.get_node_one(), info.get_node_two()].map((id) => hex(id.as_slice())),
      one_to_two: describe_direction(info.get_one_to_two()),
      two_to_one: describe_direction(info.get_two_to_one()),
    };
  });
  const nodes = view.list_nodes().map((id) => ({ node_id: hex(id.as_slice()), ...describe_node(view.node(id)) }));
  view.free();
  return { channels, nodes };
}

function describe_direction(update) {
  if (!update) return null;
  const fees = update.get_fees();
  return {
    enabled: !!update.get_enabled(),
    last_update: update.get_last_update(),
    cltv_expiry_delta: update.get_cltv_expiry_delta(),
    fee_base_msat: fees.get_base_msat(),
    fee_proportional_millionths: fees.get_proportional_millionths(),
    htlc_minimum_msat: Number(update.get_htlc_minimum_msat()),
    htlc_maximum_msat: Number(update.get_htlc_maximum_msat()),
  };
}

function describe_node(node) {
  const info = some(node.get_announcement_info());
  if (!info) return { announced: false };
  const alias = Buffer.from(info.alias().get_a()).toString().replace(/\0+$/, "");
  return { announced: true, alias, addresses: info.addresses().map((address) => address.to_str()) };
}

const path_hops = (path) =>
  path.get_hops().map((hop) => ({
    node_id: hex(hop.get_pubkey()),
    short_channel_id: String(hop.get_short_channel_id()),
    fee_msat: Number(hop.get_fee_msat()),
    cltv_expiry_delta: hop.get_cltv_expiry_delta(),
  }));

function describe_failure(failure) {
  if (failure instanceof ldk.PathFailure_InitialSend) return { initial_send: describe_error(failure.err) };
  const update = some(failure.network_update);
  if (update instanceof ldk.NetworkUpdate_ChannelFailure)
    return { channel: String(update.short_channel_id), permanent: !!update.is_permanent };
  if (update instanceof ldk.NetworkUpdate_NodeFailure)
    return { node: hex(update.node_id), permanent: !!update.is_permanent };
  return {};
}

const reason_of = (reason) => {
  const name = reason.constructor.name.replace("ClosureReason_", "");
  return { reason: name, detail: reason.to_str() };
};

// One entry for each of LDK's events that a test can wait for; the name is the event's own in snake case.
const EVENTS = {
  FundingTxBroadcastSafe: () => null,
  ChannelPending: (e) => ({ channel_id: id(e), temporary_channel_id: hex(e.former_temporary_channel_id.get_a()),
    peer: hex(e.counterparty_node_id), funding_txid: hex(e.funding_txo.get_txid().reverse()), funding_output_index: e.funding_txo.get_index() }),
  ChannelReady: (e) => ({ channel_id: id(e), peer: hex(e.counterparty_node_id), channel_type: describe_type(e.channel_type) }),
  ChannelClosed: (e) => ({ channel_id: id(e), peer: hex(e.counterparty_node_id), ...reason_of(e.reason),
    last_local_balance_msat: number(e.last_local_balance_msat) }),
  OpenChannelRequest: (e) => ({ temporary_channel_id: hex(e.temporary_channel_id.get_a()), peer: hex(e.counterparty_node_id),
    funding_sat: Number(e.funding_satoshis), channel_type: describe_type(e.channel_type), announced: !!e.is_announced }),
  PaymentClaimable: (e) => ({ payment_hash: hex(e.payment_hash), amount_msat: Number(e.amount_msat),
    claim_deadline: number(e.claim_deadline), keysend: e.purpose instanceof ldk.PaymentPurpose_SpontaneousPayment }),
  PaymentClaimed: (e) => ({ payment_hash: hex(e.payment_hash), amount_msat: Number(e.amount_msat), parts: e.htlcs.length }),
  PaymentSent: (e) => ({ payment_id: bytes(e.payment_id), payment_hash: hex(e.payment_hash),
    preimage: hex(e.payment_preimage), fee_msat: number(e.fee_paid_msat) }),
  PaymentFailed: (e) => ({ payment_id: hex(e.payment_id), payment_hash: bytes(e.payment_hash),
    reason: some(e.reason) === null ? null : ldk.PaymentFailureReason[some(e.reason)].replace("LDKPaymentFailureReason_", "") }),
  PaymentPathSuccessful: (e) => ({ payment_id: hex(e.payment_id), hops: path_hops(e.path) }),
  PaymentPathFailed: (e) => ({ payment_id: bytes(e.payment_id), payment_hash: hex(e.payment_hash),
    permanent: !!e.payment_failed_permanently, short_channel_id: scid(e.short_channel_id), ...describe_failure(e.failure), hops: path_hops(e.path) }),
  PaymentForwarded: (e) => ({ from: hex(e.prev_channel_id.get_a()), to: hex(e.next_channel_id.get_a()),
    fee_msat: number(e.total_fee_earned_msat), outbound_msat: number(e.outbound_amount_forwarded_msat), onchain: !!e.claim_from_onchain_tx }),
  HTLCHandlingFailed: (e) => ({ channel_id: hex(e.prev_channel_id.get_a()), destination: e.failed_next_destination.constructor.name.replace("HTLCDestination_", "") }),
  SpendableOutputs: (e) => ({ outputs: e.outputs.length }),
  InvoiceReceived: (e) => ({ payment_id: hex(e.payment_id) }),
  DiscardFunding: (e) => ({ channel_id: id(e) }),
  BumpTransaction: (e) => ({ what: e.bump_transaction.constructor.name.replace("BumpTransactionEvent_", "") }),
};

const id = (event) => hex(event.channel_id.get_a());

// {event: name, ...} of an LDK event, or null when no test could care.
export function describe_event(event) {
  const name = event.constructor.name.replace("Event_", "");
  const fields = EVENTS[name]?.(event);
  return fields ? { event: name.replace(/(?<=[a-z])([A-Z])/g, "_$1").replace("HTLCH", "htlc_h").toLowerCase(), ...fields } : null;
}
