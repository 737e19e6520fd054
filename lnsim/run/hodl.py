"""Receivers that hold HTLCs, and slots that fill up with them."""

import asyncio
import hashlib
from typing import Any

from lnsim.api_client import CallFailed
from lnsim.run.context import Context
from lnsim.scenario.workloads import Hodl

INVOICE_EXPIRY_S = 3_600
RETRY_S = 0.5
TIMEOUT_MARGIN_S = 60.0  # of the payer's patience, beyond the time that is held


class Holding:
    """Keeps `in_flight` held payments going, each with its own holder."""

    def __init__(self, context: Context, spec: Hodl, number: int) -> None:
        self._context = context
        self._recorder = context.stage.recorder
        self._spec = spec
        self._draw = context.draw(number, "who holds")
        self._payers, self._payees = context.names(spec.payers), context.names(spec.payees)
        for figure in ("settled", "failed", "unknown"):
            self._recorder.count(f"hodl.{figure}", 0)  # told also where there is none

    async def run(self) -> None:
        context, spec = self._context, self._spec
        await context.clock.until(spec.start_s)
        self._recorder.mark("info", f"{spec.in_flight} payments held", context.end_s(spec))
        async with asyncio.TaskGroup() as group:
            for number in range(spec.in_flight):
                group.create_task(self._one_after_the_other(spec.hold_s * number / spec.in_flight))

    async def _one_after_the_other(self, wait_s: float) -> None:
        context = self._context
        await asyncio.sleep(wait_s)
        while context.clock.now_s() < context.end_s(self._spec):
            if not await self._hold():
                await asyncio.sleep(RETRY_S)

    async def _hold(self) -> bool:
        """One payment from offer to end; False where a node was away or refused."""
        draw, ledger = self._draw, self._context.ledger
        payer = draw.choice(self._payers)
        payee = draw.choice([name for name in self._payees if name != payer] or self._payees)
        preimage, amount_msat = draw.randbytes(32), draw.randint(*self._spec.amount_msat)
        payment_hash, claims = hashlib.sha256(preimage).hexdigest(), draw.random() >= self._spec.fail
        self._recorder.count("hodl.attempted")
        try:
            made = await self._context.node(payee).call(
                "invoice",
                amount_msat=amount_msat,
                description="held",
                expiry_s=INVOICE_EXPIRY_S,
                hold=True,
                payment_hash=payment_hash,
            )
            self._context.background.begin(
                self._release(payee, payment_hash, preimage.hex() if claims else ""), "release"
            )
            result = await self._pay(payer, made["bolt11"])
        except CallFailed:
            ledger.unknown(payer)
            self._recorder.count("hodl.unknown")
            return False
        if result["status"] == "settled":
            self._recorder.count("hodl.settled")
            ledger.settled(payer, payee, amount_msat, int(result["fee_msat"] or 0), payment_hash)
        else:
            self._recorder.count("hodl.failed")
            self._recorder.count(f"failures.hodl: {result.get('reason')}")
            ledger.failed(payer, payment_hash)
        return True

    async def _pay(self, payer: str, bolt11: str) -> dict[str, Any]:
        timeout_s = self._spec.hold_s + TIMEOUT_MARGIN_S
        result: dict[str, Any] = await self._context.node(payer).call(
            "pay", bolt11=bolt11, timeout_s=timeout_s
        )
        return result

    async def _release(self, payee: str, payment_hash: str, preimage: str) -> None:
        """Claim or fail after the time to hold; once nothing came, a cancelled invoice lets nothing come any more."""
        await asyncio.sleep(self._spec.hold_s)
        node = self._context.node(payee)
        while True:
            try:
                if preimage:
                    await node.call("settle", preimage=preimage)
                else:
                    await node.call("cancel", payment_hash=payment_hash)
            except CallFailed as error:
                if preimage and "not held" in str(error):
                    preimage = ""  # nothing came: the payer failed
                    continue
                await asyncio.sleep(RETRY_S)  # away: ask again
            else:
                return
