"""What bitcoind publishes, with its byte orders and counters."""

import pytest
import zmq

from lnsim.chain.zmq_publisher import ZmqPublisher

WAIT_MS = 50
TOPICS = (b"hashblock", b"rawblock", b"hashtx", b"rawtx", b"sequence")


@pytest.fixture
def subscribed(bench):
    publisher = ZmqPublisher("127.0.0.1", 0)
    bench.chain.subscribe(publisher.receive)
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(publisher.address)
    while not socket.poll(WAIT_MS):  # a subscription takes effect some time after connect
        bench.mine()
    yield socket
    socket.close(linger=0)
    context.term()
    publisher.close()


def read(socket, until):
    """Everything up to the first message of a topic with a body."""
    messages = []
    while not messages or messages[-1][:2] != list(until):
        assert socket.poll(5_000)
        messages.append(socket.recv_multipart())
    return messages


def test_a_transaction_and_its_block(bench, subscribed):
    read(subscribed, (b"rawblock", bench.chain.tip.raw))
    tx = bench.simple(1000)
    bench.chain.submit(tx.raw)
    sequence = bench.chain.mempool.sequence.to_bytes(8, "little")
    got = read(subscribed, (b"sequence", tx.txid[::-1] + b"A" + sequence))
    assert [m[:2] for m in got[:2]] == [[b"hashtx", tx.txid[::-1]], [b"rawtx", tx.raw]]

    (block_hash,) = bench.mine()
    got = read(subscribed, (b"rawblock", bench.chain.tip.raw))
    assert [m[0] for m in got] == [b"hashtx", b"rawtx"] * 2 + [b"sequence", b"hashblock", b"rawblock"]
    assert got[3][1] == tx.raw
    assert got[4][1] == block_hash[::-1] + b"C"
    assert got[5][1] == block_hash[::-1]

    bench.chain.invalidate(block_hash)
    got = read(subscribed, (b"rawblock", bench.chain.tip.raw))
    assert [block_hash[::-1] + b"D"] in [m[1:2] for m in got if m[0] == b"sequence"]


def test_counters_show_what_was_lost(bench, subscribed):
    read(subscribed, (b"rawblock", bench.chain.tip.raw))
    bench.mine(2)
    got = read(subscribed, (b"rawblock", bench.chain.tip.raw))
    for topic in TOPICS:
        counters = [int.from_bytes(m[2], "little") for m in got if m[0] == topic]
        assert counters == list(range(counters[0], counters[0] + len(counters)))
