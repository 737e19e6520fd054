// A complete LDK node for tests, driven by JSON lines: {"id", "do", ...} on stdin, answers and events on stdout.
//
//   node peer.mjs '{"seed": "<64 hex>", "rpc": {"url", "user", "password"}, ...}'    (OPTIONS lists the rest)
//
// It ends when its stdin does. Nothing but JSON lines goes to stdout: LDK's banner and our notes go to stderr.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

console.log = console.error;
const ldk = await import("lightningdevkit");
const { NodeLDKNet } = await import("lightningdevkit-node-net");
const { BlockFeed, Rpc, hex, unhex } = await import("./chain.mjs");
const { resolve_htlcs } = await import("./bump.mjs");
const { describe_channel, describe_event, describe_graph, must, some } = await import("./describe.mjs");

const OPTIONS = {
  host: "127.0.0.1",
  port: 0,
  alias: "ldk",
  anchors: true, // offer and accept anchor channels
  announced: true, // of channels that we open; incoming ones may be either
  accept: true, // incoming channels
  accept_0conf: false,
  upfront_shutdown: true,
  minimum_depth: 1,
  to_self_delay: 144,
  fee_base_msat: 1000,
  fee_proportional_millionths: 0,
  cltv_expiry_delta: 72,
  htlc_minimum_msat: 1,
  max_accepted_htlcs: 50,
  reserve_millionths: 10_000,
  feerate_per_kw: 1000,
  poll_ms: 100,
  log_level: "Warn",
};
const MIN_FEERATE_PER_KW = 253; // one satoshi a virtual byte
const PUMP_MS = 10;
const TICK_MS = 10_000;
const CONNECT_MS = 15_000;

const options = { ...OPTIONS, ...JSON.parse(process.argv[2]) };
const url = await import.meta.resolve("lightningdevkit");
await ldk.initializeWasmFromBinary(readFileSync(new URL("liblightningjs.wasm", url)));

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const emit = (event, fields = {}) => say({ event, ...fields });
const rpc = new Rpc(options.rpc);
const later = []; // what a callback of LDK wants done: LDK must not be called from inside its own callbacks
const held = new Map(); // payment hash -> preimage, of claimable payments that wait for "claim" or "fail"
const routes = new Map(); // payment hash -> hand-made route
const published = new Set(); // ids of transactions that the chain has taken from us
const resolved = new Set(); // claims on HTLCs that we have made a transaction for
const onion_errors = []; // failure codes as LDK logged them: its events do not carry them
let hold = false;
let announced = false;

// ---- what LDK asks us for

const logger = ldk.Logger.new_impl({
  log(record) {
    const text = record.get_args();
    const failure = /Onion Error\[from ([0-9a-f]{66}): ([^(]*)\(0x([0-9a-f]+)\)/i.exec(text);
    if (failure) onion_errors.push({ from: failure[1], name: failure[2], code: parseInt(failure[3], 16) });
    if (record.get_level() >= ldk.Level[`LDKLevel_${options.log_level}`]) console.error(text);
  },
});

const fees = ldk.FeeEstimator.new_impl({
  get_est_sat_per_1000_weight(target) {
    const name = ldk.ConfirmationTarget[target];
    if (/MinAllowed|ChannelCloseMinimum/.test(name)) return MIN_FEERATE_PER_KW;
    return name.endsWith("MaximumFeeEstimate") ? Math.max(options.feerate_per_kw, 50_000) : options.feerate_per_kw;
  },
});

const broadcaster = ldk.BroadcasterInterface.new_impl({
  broadcast_transactions(txs) {
    const raw = txs.map(hex);
    later.push(() => Promise.all(raw.map(broadcast)));
  },
});

// Whether the chain took it. LDK repeats itself, bitcoind takes what it has already: the event comes once.
async function broadcast(tx) {
  try {
    const txid = await rpc.call("sendrawtransaction", tx);
    if (!published.has(txid)) emit("broadcast", { txid, tx });
    published.add(txid);
    return true;
  } catch (why) {
    emit("broadcast_failed", { why: why.message, tx });
    return false;
  }
}

const { LDKChannelMonitorUpdateStatus_Completed: Completed } = ldk.ChannelMonitorUpdateStatus;
const persist = ldk.Persist.new_impl({
  persist_new_channel: () => Completed,
  update_persisted_channel: () => Completed,
  archive_persisted_channel() {},
});

// ---- the node

const now_s = Math.floor(Date.now() / 1000);
const keys = ldk.KeysManager.constructor_new(unhex(options.seed), BigInt(now_s), 0);
const graph = ldk.NetworkGraph.constructor_new(ldk.Network.LDKNetwork_Regtest, logger);
const scorer = ldk.ProbabilisticScorer.constructor_new(ldk.ProbabilisticScoringDecayParameters.constructor_default(), graph, logger);
const scores = ldk.MultiThreadedLockableScore.constructor_new(scorer.as_Score());
const score_params = ldk.ProbabilisticScoringFeeParameters.constructor_default();
const finder = ldk.DefaultRouter.constructor_new(graph, logger, keys.as_EntropySource(), scores.as_LockableScore(), score_params).as_Router();
const router = ldk.Router.new_impl({
  find_route: (payer, params, hops, inflight) => finder.find_route(payer, params, hops, inflight),
  find_route_with_id(payer, params, hops, inflight, hash, id) {
    const paths = routes.get(hex(hash));
    if (!paths) return finder.find_route_with_id(payer, params, hops, inflight, hash, id);
    return ldk.Result_RouteLightningErrorZ.constructor_ok(ldk.Route.constructor_new(paths.map(path_of), params));
  },
  create_blinded_payment_paths: (...args) => finder.create_blinded_payment_paths(...args),
});
const message_router = ldk.DefaultMessageRouter.constructor_new(graph, keys.as_EntropySource()).as_MessageRouter();
const monitor = ldk.ChainMonitor.constructor_new(ldk.Option_FilterZ.constructor_none(), broadcaster, logger, fees, persist);

const config = user_config(options);
const feed = new BlockFeed(rpc, connect_block, disconnect_block);
const start = await feed.start();
const best = ldk.BestBlock.constructor_new(unhex(start.hash).reverse(), start.height);
const manager = ldk.ChannelManager.constructor_new(fees, monitor.as_Watch(), broadcaster, router, message_router, logger,
  keys.as_EntropySource(), keys.as_NodeSigner(), keys.as_SignerProvider(), config,
  ldk.ChainParameters.constructor_new(ldk.Network.LDKNetwork_Regtest, best), now_s);
const listeners = [monitor.as_Listen(), manager.as_Listen()];
const ignore = ldk.IgnoringMessageHandler.constructor_new();
const onions = ldk.OnionMessenger.constructor_new(keys.as_EntropySource(), keys.as_NodeSigner(), logger, manager.as_NodeIdLookUp(),
  message_router, manager.as_OffersMessageHandler(), ignore.as_AsyncPaymentsMessageHandler(), ignore.as_DNSResolverMessageHandler(),
  ignore.as_CustomOnionMessageHandler());
const gossip = ldk.P2PGossipSync.constructor_new(graph, ldk.Option_UtxoLookupZ.constructor_none(), logger);
const peers = ldk.PeerManager.constructor_new(manager.as_ChannelMessageHandler(), gossip.as_RoutingMessageHandler(),
  onions.as_OnionMessageHandler(), ignore.as_CustomMessageHandler(), now_s, randomBytes(32), logger, keys.as_NodeSigner());
const net = new NodeLDKNet(peers);
await net.bind_listener(options.host, options.port);
const port = net.servers[0].address().port;
const node_id = hex(manager.get_our_node_id());

function user_config({ anchors, announced, minimum_depth, to_self_delay, ...o }) {
  const handshake = ldk.ChannelHandshakeConfig.constructor_default();
  handshake.set_negotiate_anchors_zero_fee_htlc_tx(anchors);
  handshake.set_announce_for_forwarding(announced);
  handshake.set_minimum_depth(minimum_depth);
  handshake.set_our_to_self_delay(to_self_delay);
  handshake.set_our_htlc_minimum_msat(BigInt(o.htlc_minimum_msat));
  handshake.set_our_max_accepted_htlcs(o.max_accepted_htlcs);
  handshake.set_max_inbound_htlc_value_in_flight_percent_of_channel(100);
  handshake.set_commit_upfront_shutdown_pubkey(o.upfront_shutdown);
  handshake.set_their_channel_reserve_proportional_millionths(o.reserve_millionths);
  const limits = ldk.ChannelHandshakeLimits.constructor_default();
  limits.set_force_announced_channel_preference(false);
  const channel = ldk.ChannelConfig.constructor_default();
  channel.set_forwarding_fee_base_msat(o.fee_base_msat);
  channel.set_forwarding_fee_proportional_millionths(o.fee_proportional_millionths);
  channel.set_cltv_expiry_delta(o.cltv_expiry_delta);
  const user = ldk.UserConfig.constructor_default();
  user.set_channel_handshake_config(handshake);
  user.set_channel_handshake_limits(limits);
  user.set_channel_config(channel);
  user.set_accept_forwards_to_priv_channels(true);
  user.set_manually_accept_inbound_channels(true); // without it LDK refuses anchors
  return user;
}

// ---- blocks

function connect_block(raw, height) {
  listeners.forEach((listener) => listener.block_connected(raw, height));
  emit("block", { height });
}

function disconnect_block(header, height) {
  listeners.forEach((listener) => listener.block_disconnected(header, height));
}

// Others drop the announcement of a node of which they know no channel: it goes out once our own graph knows one.
function announce_in_time() {
  const view = graph.read_only();
  const known = view.list_nodes().some((id) => hex(id.as_slice()) === node_id);
  view.free(); // it locks the graph, which the announcement changes
  if (known) announce();
}

function announce() {
  announced = true;
  const alias = new Uint8Array(32);
  alias.set(Buffer.from(options.alias).subarray(0, 32));
  peers.broadcast_node_announcement(new Uint8Array([1, 2, 3]), alias, [NodeLDKNet.v4_addr_from_ip(options.host, port)]);
}

// ---- events

const handler = ldk.EventHandler.new_impl({
  handle_event(event) {
    const line = describe_event(event);
    if (event instanceof ldk.Event_PaymentPathFailed) line.failure = onion_errors.shift() ?? null;
    later.push(() => react(event.clone()));
    if (line) say(line);
    return ldk.Result_NoneReplayEventZ.constructor_ok();
  },
});

async function react(event) {
  if (event instanceof ldk.Event_FundingGenerationReady) return fund(event);
  if (event instanceof ldk.Event_OpenChannelRequest) return answer_open(event);
  if (event instanceof ldk.Event_PendingHTLCsForwardable) return manager.process_pending_htlc_forwards();
  if (event instanceof ldk.Event_PaymentClaimable) {
    const preimage = some(event.purpose.preimage());
    if (!hold) return manager.claim_funds(preimage);
    held.set(hex(event.payment_hash), preimage);
  }
  if (event instanceof ldk.Event_SpendableOutputs) return sweep(event.outputs);
  if (event instanceof ldk.Event_BumpTransaction) return bump(event.bump_transaction);
}

async function bump(wanted) {
  // The commitment pays its own way at our chain's feerates, so it needs no child to be mined.
  if (wanted instanceof ldk.BumpTransactionEvent_ChannelClose) return broadcast(hex(wanted.commitment_tx));
  const claim = hex(wanted.claim_id);
  if (resolved.has(claim)) return; // LDK asks again with every few blocks, to raise the fee
  resolved.add(claim);
  const tx = await resolve_htlcs(wanted, rpc, keys.as_SignerProvider()).catch((why) => emit("trouble", { why: why.message }));
  if (!tx || !(await broadcast(tx))) resolved.delete(claim); // the next asking tries another coin
}

async function fund({ temporary_channel_id, counterparty_node_id, channel_value_satoshis, output_script }) {
  const tx = await rpc.fund(output_script, Number(channel_value_satoshis), Math.ceil(options.feerate_per_kw / 250));
  must(manager.funding_transaction_generated(temporary_channel_id, counterparty_node_id, unhex(tx)), "fund");
}

function answer_open({ temporary_channel_id, counterparty_node_id }) {
  if (!options.accept) return manager.force_close_without_broadcasting_txn(temporary_channel_id, counterparty_node_id, "no channels here");
  const accept = options.accept_0conf ? "accept_inbound_channel_from_trusted_peer_0conf" : "accept_inbound_channel";
  must(manager[accept](temporary_channel_id, counterparty_node_id, 0n), "accept");
}

async function sweep(outputs) {
  const { scriptPubKey } = await rpc.call("getaddressinfo", await rpc.call("getnewaddress"));
  const tx = keys.as_OutputSpender().spend_spendable_outputs(outputs, [], unhex(scriptPubKey), options.feerate_per_kw, ldk.Option_u32Z.constructor_none());
  if (tx.is_ok()) await broadcast(hex(tx.res));
}

// ---- commands

const channel_id_of = (text) => ldk.ChannelId.constructor_new(unhex(text));
const u64 = (value) => (value === undefined || value === null ? ldk.Option_u64Z.constructor_none() : ldk.Option_u64Z.constructor_some(BigInt(value)));
const u16 = (value) => (value === undefined ? ldk.Option_u16Z.constructor_none() : ldk.Option_u16Z.constructor_some(value));
const connected = (peer) => peers.list_peers().some((p) => hex(p.get_counterparty_node_id()) === peer);
const attempts = (count) => ldk.Retry.constructor_attempts(count);

function path_of(hops) {
  const features = [ldk.NodeFeatures.constructor_empty(), ldk.ChannelFeatures.constructor_empty()];
  const route_hops = hops.map((hop) => ldk.RouteHop.constructor_new(unhex(hop.node_id), features[0], BigInt(hop.short_channel_id),
    features[1], BigInt(hop.fee_msat), hop.cltv_expiry_delta, true));
  return ldk.Path.constructor_new(route_hops, null);
}

async function until(condition, ms, what) {
  const deadline = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, PUMP_MS));
  }
}

function pay(invoice, amount_msat, params_changes, tries) {
  const open = amount_msat !== undefined && some(invoice.amount_milli_satoshis()) === null;
  const params = must(open ? ldk.UtilMethods.constructor_payment_parameters_from_variable_amount_invoice(invoice, BigInt(amount_msat))
    : ldk.UtilMethods.constructor_payment_parameters_from_invoice(invoice), "pay");
  const route_params = params.get_c();
  params_changes(route_params);
  const hash = params.get_a();
  must(manager.send_payment(hash, params.get_b(), hash, route_params, attempts(tries)), "pay");
  return { payment_hash: hex(hash), payment_id: hex(hash) };
}

const commands = {
  info: () => ({ node_id, port, height: feed.tip.height, peers: peers.list_peers().map((p) => hex(p.get_counterparty_node_id())) }),
  set({ hold: keep, ...changes }) {
    if (keep !== undefined) hold = keep;
    Object.assign(options, changes);
    return {};
  },
  async connect({ peer, host, port }) {
    if (connected(peer)) return {};
    await net.connect_peer(host, port, unhex(peer)).catch(() => {
      throw new Error(`connect: ${host}:${port} refuses`);
    });
    await until(() => connected(peer), CONNECT_MS, `connect to ${peer}`);
    return {};
  },
  async disconnect({ peer }) {
    peers.disconnect_by_node_id(unhex(peer));
    await until(() => !connected(peer), CONNECT_MS, `disconnect from ${peer}`);
    return {};
  },
  open({ peer, sat, push_msat = 0, ...changes }) {
    const override = user_config({ ...options, ...changes });
    const id = must(manager.create_channel(unhex(peer), BigInt(sat), BigInt(push_msat), 0n, null, override), "open");
    return { temporary_channel_id: hex(id.get_a()) };
  },
  channels: () => ({ channels: manager.list_channels().map(describe_channel) }),
  invoice({ amount_msat, description = "", expiry_s = 3600, min_final_cltv_expiry_delta, payment_hash }) {
    const text = ldk.Bolt11InvoiceDescription.constructor_direct(must(ldk.Description.constructor_new(description), "description"));
    const hash = payment_hash ? ldk.Option_ThirtyTwoBytesZ.constructor_some(unhex(payment_hash)) : ldk.Option_ThirtyTwoBytesZ.constructor_none();
    const invoice = must(manager.create_bolt11_invoice(u64(amount_msat), text, ldk.Option_u32Z.constructor_some(expiry_s),
      u16(min_final_cltv_expiry_delta), hash), "invoice");
    return { bolt11: invoice.to_str(), payment_hash: hex(invoice.payment_hash()) };
  },
  pay({ bolt11, amount_msat, max_fee_msat, max_paths = 10, retries = 3 }) {
    const invoice = must(ldk.Bolt11Invoice.constructor_from_str(bolt11), "invoice");
    return pay(invoice, amount_msat, (params) => {
      const payment = params.get_payment_params();
      payment.set_max_path_count(max_paths);
      params.set_payment_params(payment);
      if (max_fee_msat !== undefined) params.set_max_total_routing_fee_msat(u64(max_fee_msat));
    }, retries);
  },
  // paths: [[{node_id, short_channel_id, fee_msat, cltv_expiry_delta}, ...], ...] as BOLT 4 counts them: a hop's fee and
  // delta are those of the channel after it, the last hop's are the amount and the final delta.
  pay_route({ bolt11, paths }) {
    const invoice = must(ldk.Bolt11Invoice.constructor_from_str(bolt11), "invoice");
    routes.set(hex(invoice.payment_hash()), paths);
    const amount_msat = paths.reduce((sum, hops) => sum + hops[hops.length - 1].fee_msat, 0);
    return pay(invoice, amount_msat, (params) => params.set_final_value_msat(BigInt(amount_msat)), 0);
  },
  keysend({ peer, amount_msat, final_cltv_expiry_delta = 42, retries = 3 }) {
    const preimage = new Uint8Array(randomBytes(32));
    const hash = new Uint8Array(createHash("sha256").update(preimage).digest());
    const payment = ldk.PaymentParameters.constructor_for_keysend(unhex(peer), final_cltv_expiry_delta, false);
    const params = ldk.RouteParameters.constructor_from_payment_params_and_value(payment, BigInt(amount_msat));
    must(manager.send_spontaneous_payment(ldk.Option_ThirtyTwoBytesZ.constructor_some(preimage),
      ldk.RecipientOnionFields.constructor_spontaneous_empty(), hash, params, attempts(retries)), "keysend");
    return { payment_hash: hex(hash), payment_id: hex(hash) };
  },
  claim({ payment_hash, preimage }) {
    const known = preimage ? unhex(preimage) : held.get(payment_hash);
    if (!known) throw new Error(`claim: no preimage of ${payment_hash}`);
    manager.claim_funds(known);
    held.delete(payment_hash);
    return {};
  },
  fail({ payment_hash }) {
    manager.fail_htlc_backwards(unhex(payment_hash));
    held.delete(payment_hash);
    return {};
  },
  close({ channel_id, peer }) {
    must(manager.close_channel(channel_id_of(channel_id), unhex(peer)), "close");
    return {};
  },
  force_close({ channel_id, peer }) {
    must(manager.force_close_broadcasting_latest_txn(channel_id_of(channel_id), unhex(peer), "asked to"), "force close");
    return {};
  },
  graph: () => describe_graph(graph),
  announce: () => (announce(), {}),
  tick: () => (manager.timer_tick_occurred(), {}), // re-reads the feerate, expires half-arrived payments, and the like
  async sync() {
    await poll();
    return { height: feed.tip.height };
  },
};

// ---- the loop

const providers = [manager.as_EventsProvider(), monitor.as_EventsProvider()];

function pump() {
  providers.forEach((provider) => provider.process_pending_events(handler));
  for (const action of later.splice(0)) Promise.resolve().then(action).catch((why) => emit("trouble", { why: why.message }));
  peers.process_events();
}

let polling = null;
function poll() {
  polling ??= feed.poll().finally(() => (polling = null));
  return polling;
}

async function run({ id, do: name, ...args }) {
  try {
    if (!commands[name]) throw new Error(`no command ${name}`);
    say({ id, result: await commands[name](args) });
  } catch (why) {
    say({ id, error: why?.message ?? String(why) });
  }
}

const known_peers = new Set();
function watch() {
  if (!announced) announce_in_time();
  const present = new Set(peers.list_peers().map((p) => hex(p.get_counterparty_node_id())));
  for (const peer of present) if (!known_peers.has(peer)) known_peers.add(peer), emit("peer_connected", { peer });
  for (const peer of known_peers) if (!present.has(peer)) known_peers.delete(peer), emit("peer_disconnected", { peer });
}

setInterval(pump, PUMP_MS);
setInterval(watch, 5 * PUMP_MS);
setInterval(() => poll().catch((why) => console.error(`chain: ${why.message}`)), options.poll_ms);
setInterval(() => manager.timer_tick_occurred(), TICK_MS);
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => run(JSON.parse(line)));
lines.on("close", () => {
  net.stop();
  process.exit(0);
});
emit("started", { node_id, port, height: feed.tip.height });
