"""Validation of gossip by a frontend, before anything reaches the backend."""

import random
from itertools import cycle
from typing import Any, NamedTuple

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from lnsim.bench.measure import Timed, compare, timed
from lnsim.bench.plan import Plan
from lnsim.graph_generator import REGTEST, TIMESTAMP, generate, message_of
from node.crypto.hashes import hash256
from node.gossip import raw as gossip
from node.gossip.graph import ChannelAdded, Graph
from node.gossip.validation import Verdict, check

SEED = 1
PER_ROUND = 200  # messages; about twice as many signatures


class Candidate(NamedTuple):
    """A message, and a graph to which it is news: nothing may be answered from what is known."""

    graph: Graph
    raw: bytes


class Signature(NamedTuple):
    """What one raw verification takes."""

    point: bytes
    digest: bytes
    signature: bytes


def run(plan: Plan) -> dict[str, Any]:
    """Messages per second through `check`: the mix of a whole graph, in random order, signatures all good.

    The limit is libsecp256k1 on the same signatures, key and signature given as bytes (so: two parses and one
    verification each) and the digest known. Ours hashes, reads fields, asks the graph, and keeps the parsed keys of
    nodes, which sign again and again; that is how it can come close. (Of verifications alone, everything parsed
    beforehand, ours reaches 0.87.) Time is CPU time of the one thread.
    """
    candidates = _candidates(plan.signed_channels)
    rounds = [candidates[at : at + PER_ROUND] for at in range(0, len(candidates), PER_ROUND)]
    signatures = [[s for c in round_ for s in _signatures(c)] for round_ in rounds]
    # both go over the same messages, one round after the other
    ours, limit = cycle(rounds), cycle(list(zip(rounds, signatures, strict=True)))

    def check_round() -> Timed:
        round_ = next(ours)
        return timed(len(round_), lambda: _check(round_))

    def verify_round() -> Timed:
        round_, raw = next(limit)
        return timed(len(round_), lambda: _verify(raw))

    result = compare(check_round, verify_round, plan.seconds)
    return {"messages_per_s": result.per_s, "limit_per_s": result.limit_per_s, "ratio": result.ratio}


def _candidates(channels: int) -> list[Candidate]:
    deltas = list(generate(SEED, channels, max(2, channels // 3)))
    nothing, announced = Graph(REGTEST), Graph(REGTEST)
    for delta in deltas:
        if isinstance(delta, ChannelAdded):
            announced.apply(delta)
    candidates = [
        Candidate(nothing if isinstance(delta, ChannelAdded) else announced, message_of(delta))
        for delta in deltas
    ]
    random.Random(SEED).shuffle(candidates)
    return candidates


def _signatures(candidate: Candidate) -> list[Signature]:
    raw = candidate.raw
    match int.from_bytes(raw[:2], "big"):
        case gossip.CHANNEL_ANNOUNCEMENT:
            digest = hash256(raw[gossip.SIGNATURES_END :])
            points = gossip.channel_fields(raw)[2:]
            return [
                Signature(point, digest, raw[at : at + 64])
                for point, at in zip(points, (2, 66, 130, 194), strict=True)
            ]
        case gossip.CHANNEL_UPDATE:
            channel = candidate.graph.channels[int.from_bytes(gossip.update_channel(raw), "big")]
            point = channel.node_id(gossip.update_direction(raw))
        case _:
            point = gossip.node_id(raw)
    return [Signature(point, hash256(raw[gossip.SIGNATURE_END :]), raw[2 : gossip.SIGNATURE_END])]


def _check(candidates: list[Candidate]) -> None:
    for graph, raw in candidates:
        verdict = check(graph, raw, TIMESTAMP)
        assert verdict is Verdict.ACCEPTED, verdict


def _verify(signatures: list[Signature]) -> None:
    context = GLOBAL_CONTEXT.ctx
    key, parsed = ffi.new("secp256k1_pubkey *"), ffi.new("secp256k1_ecdsa_signature *")
    parse_key, parse = lib.secp256k1_ec_pubkey_parse, lib.secp256k1_ecdsa_signature_parse_compact
    verify = lib.secp256k1_ecdsa_verify
    for point, digest, signature in signatures:
        parse_key(context, key, point, 33)
        parse(context, parsed, signature)
        assert verify(context, parsed, digest, key)
