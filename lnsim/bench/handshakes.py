"""BOLT 8 handshakes, as the backend runs them for whoever dials in."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from lnsim.bench.measure import Timed, compare, cpu_s
from lnsim.bench.plan import Plan
from node.crypto.keys import public_key
from node.peer.handshake import Initiator, Responder

PER_ROUND = 20


class Secrets(NamedTuple):
    """Of one handshake; nothing in it comes again, so no cache helps that would not help with real peers."""

    initiator: bytes
    initiator_ephemeral: bytes
    responder_ephemeral: bytes


def run(plan: Plan) -> dict[str, Any]:
    """Responder handshakes per second: act one in, act two out, act three in, keys out.

    The limit is what the curve alone costs a responder, as bare calls of libsecp256k1: three ECDHs, each with a point
    that came as 33 bytes, and the ephemeral key. (Of the ECDHs alone ours reaches 0.64.) HKDF, AEAD,
    the Noise state and all Python are ours to pay. Time is CPU time of the one thread.
    """
    node = secrets.token_bytes(32)
    node_id = public_key(node)
    result = compare(lambda: _ours(node, node_id), lambda: _limit(node), plan.seconds)
    return {"per_s": result.per_s, "limit_per_s": result.limit_per_s, "ratio": result.ratio}


def _draw() -> Sequence[Secrets]:
    return [Secrets(*(secrets.token_bytes(32) for _ in range(3))) for _ in range(PER_ROUND)]


def _ours(node: bytes, node_id: bytes) -> Timed:
    drawn = _draw()
    initiators = [Initiator(each.initiator, each.initiator_ephemeral, node_id) for each in drawn]
    acts_one = [initiator.act_one() for initiator in initiators]
    began_s = cpu_s()
    responders = [Responder(node, each.responder_ephemeral) for each in drawn]
    acts_two = [responder.act_one(act) for responder, act in zip(responders, acts_one, strict=True)]
    first_s = cpu_s() - began_s
    acts_three = [initiator.act_two(act) for initiator, act in zip(initiators, acts_two, strict=True)]
    began_s = cpu_s()
    for responder, act in zip(responders, acts_three, strict=True):
        responder.act_three(act)
    spent_s = first_s + cpu_s() - began_s
    assert all(responder.result for responder in responders)
    return Timed(PER_ROUND, spent_s)


def _limit(node: bytes) -> Timed:
    context, null = GLOBAL_CONTEXT.ctx, ffi.NULL
    key, point, out = (
        ffi.new("secp256k1_pubkey *"),
        ffi.new("secp256k1_pubkey *"),
        ffi.new("unsigned char[32]"),
    )
    parse, ecdh, create = (
        lib.secp256k1_ec_pubkey_parse,
        lib.secp256k1_ecdh,
        lib.secp256k1_ec_pubkey_create,
    )
    drawn = [
        (public_key(each.initiator_ephemeral), public_key(each.initiator), each.responder_ephemeral)
        for each in _draw()
    ]
    began_s = cpu_s()
    for ephemeral, static, own in drawn:
        create(context, key, own)
        for remote, secret in ((ephemeral, node), (ephemeral, own), (static, own)):
            parse(context, point, remote, 33)
            ecdh(context, out, point, secret, null, null)
    return Timed(PER_ROUND, cpu_s() - began_s)
