"""Whether an update may be: the limits of BOLT 2, for what we send and for what the peer sends."""

from node.channel import views
from node.channel.model import SAT, Channel, Htlc, View
from node.channel.parameters import Policy
from node.errors import PeerFault, Refused

MAX_CLTV_EXPIRY = 500_000_000  # BOLT 2, update_add_htlc: from here on it would be a time
MAX_HTLCS = 483  # BOLT 2, open_channel: so that one commitment_signed fits into a message


def free_slots(ch: Channel) -> int:
    """How many HTLCs more the peer accepts now."""
    return max(0, min(ch.remote.max_accepted_htlcs, MAX_HTLCS) - ch.remote_view.offered_count)


def spendable_msat(ch: Channel, policy: Policy) -> int:
    """The largest HTLC that we could offer now, as far as balance, reserve and fees go."""
    if not free_slots(ch):
        return 0
    room = [ch.remote.max_htlc_value_in_flight_msat - ch.remote_view.offered_msat]
    for view, local in ((ch.local_view, True), (ch.remote_view, False)):
        # the HTLC itself, and then one more
        own_msat = _own_cost_msat(ch, view, policy, local=local, extra=2)
        room.append(view.local_msat - ch.remote.channel_reserve_sat * SAT - own_msat)
        if not ch.is_opener and _remote_room_msat(ch, view, local=local) < 0:
            return 0
    return max(0, min(room))


def _remote_room_msat(ch: Channel, view: View, *, local: bool) -> int:
    """What the peer, as opener, has left above its reserve once it pays for one HTLC more."""
    return view.remote_msat - ch.local.channel_reserve_sat * SAT - _cost_msat(ch, view, local=local, extra=1)


def receivable_msat(ch: Channel) -> int:
    """The largest HTLC that the peer could offer now, as far as we can tell."""
    view = ch.local_view
    cost_msat = 0 if ch.is_opener else _cost_msat(ch, view, local=True, extra=1)
    balance_msat = view.remote_msat - ch.local.channel_reserve_sat * SAT - cost_msat
    return max(0, min(balance_msat, ch.local.max_htlc_value_in_flight_msat - view.received_msat))


def check_offer(ch: Channel, htlc: Htlc, policy: Policy) -> View:
    """The peer's view with an HTLC of ours; Refused where BOLT 2 forbids to offer it."""
    _check_terms(ch, htlc, policy)
    remote_view = views.enter(ch.remote_view, htlc, views.dust(ch, local=False), offered=True)
    local_view = views.enter(ch.local_view, htlc, views.dust(ch, local=True), offered=True)
    if remote_view.offered_count > min(ch.remote.max_accepted_htlcs, MAX_HTLCS):
        raise Refused("the peer accepts no more HTLCs")
    if remote_view.offered_msat > ch.remote.max_htlc_value_in_flight_msat:
        raise Refused("more than the peer lets be in flight")
    for view, local in ((local_view, True), (remote_view, False)):
        _check_own_balance(ch, view, policy, local=local)
        own_view = ch.local_view if local else ch.remote_view
        if view.dust_msat > max(own_view.dust_msat, policy.max_dust_exposure_msat):
            raise Refused("too much would be lost in dust")
    return remote_view


def _check_terms(ch: Channel, htlc: Htlc, policy: Policy) -> None:
    if htlc.amount_msat < max(1, ch.remote.htlc_minimum_msat):
        raise Refused("below the least that the peer accepts")
    if not ch.height < htlc.cltv_expiry <= min(ch.height + policy.max_expiry_blocks, MAX_CLTV_EXPIRY - 1):
        raise Refused(f"expiry {htlc.cltv_expiry} at height {ch.height}")


def _check_own_balance(ch: Channel, view: View, policy: Policy, *, local: bool) -> None:
    reserve_msat = ch.remote.channel_reserve_sat * SAT
    if view.local_msat - reserve_msat < _own_cost_msat(ch, view, policy, local=local, extra=1):
        raise Refused("not enough balance above reserve and fees")
    if not ch.is_opener:
        their_reserve_msat = ch.local.channel_reserve_sat * SAT
        # BOLT 2, update_add_htlc: the opener must be able to pay for the HTLC's weight
        if view.remote_msat - their_reserve_msat < _cost_msat(ch, view, local=local):
            raise Refused("the peer could not pay the fee of one HTLC more")


def _own_cost_msat(ch: Channel, view: View, policy: Policy, *, local: bool, extra: int) -> int:
    """What we, as opener, keep for fees: those of more HTLCs than there are, at a multiple of the rate."""
    if not ch.is_opener:
        return 0
    return _cost_msat(ch, view, local=local, extra=extra, factor=policy.fee_spike_factor)


def _cost_msat(ch: Channel, view: View, *, local: bool, extra: int = 0, factor: int = 1) -> int:
    rate = factor * views.next_feerate(ch, local=local)
    return views.cost_msat(ch, rate, view.untrimmed_count + extra)


def check_received(ch: Channel, htlc: Htlc, view: View) -> None:
    """PeerFault where the peer must not have offered this HTLC; `view` is ours with it."""
    if htlc.id != ch.next_received_id:
        raise PeerFault(f"HTLC {htlc.id} where {ch.next_received_id} is next")
    if htlc.amount_msat < max(1, ch.local.htlc_minimum_msat):
        raise PeerFault(f"an HTLC of {htlc.amount_msat} msat")
    if htlc.cltv_expiry >= MAX_CLTV_EXPIRY:
        raise PeerFault(f"cltv_expiry {htlc.cltv_expiry}")
    if view.received_count > ch.local.max_accepted_htlcs:
        raise PeerFault("more HTLCs than we accept")
    if view.received_msat > ch.local.max_htlc_value_in_flight_msat:
        raise PeerFault("more in flight than we accept")
    cost_msat = 0 if ch.is_opener else _cost_msat(ch, view, local=True)
    if view.remote_msat - ch.local.channel_reserve_sat * SAT < cost_msat:
        raise PeerFault("the peer cannot afford this HTLC above its reserve")


def exceeds_dust(ch: Channel, htlc: Htlc, local_view: View, policy: Policy) -> bool:
    """Whether a received HTLC takes what we could lose in dust beyond the limit; it is then to be failed."""
    remote_dust = views.dust(ch, local=False)
    remote_view = views.enter(ch.remote_view, htlc, remote_dust, offered=False)
    return local_view.dust_msat > max(
        ch.local_view.dust_msat, policy.max_dust_exposure_msat
    ) or remote_view.dust_msat > max(ch.remote_view.dust_msat, policy.max_dust_exposure_msat)


def affords_feerate(ch: Channel, feerate_per_kw: int, policy: Policy) -> bool:
    """Whether we, as opener, can pay this rate on both commitments, and no HTLC trimmed by it hurts."""
    rising = feerate_per_kw > views.next_feerate(ch, local=False)
    for local in (True, False):
        view = views.recounted(ch, feerate_per_kw, local=local)
        cost_msat = views.cost_msat(ch, feerate_per_kw, view.untrimmed_count)
        if view.local_msat - ch.remote.channel_reserve_sat * SAT < cost_msat:
            return False
        if rising and _dust_grows_beyond(ch, view, policy, local=local):
            return False
    return True


def check_received_feerate(ch: Channel, feerate_per_kw: int, policy: Policy) -> None:
    """PeerFault where the opener must not have asked for this fee rate."""
    if ch.is_opener:
        raise PeerFault("update_fee from the one who does not pay it")
    if not policy.min_feerate_per_kw <= feerate_per_kw <= policy.max_feerate_per_kw:
        raise PeerFault(f"fee rate {feerate_per_kw} is unreasonable")
    view = views.recounted(ch, feerate_per_kw, local=True)
    rising = feerate_per_kw > views.next_feerate(ch, local=True)
    # who is below the reserve already, as after a large push, may still lower the rate
    reserve_msat = ch.local.channel_reserve_sat * SAT if rising else 0
    if view.remote_msat - reserve_msat < views.cost_msat(ch, feerate_per_kw, view.untrimmed_count):
        raise PeerFault(f"the peer cannot afford fee rate {feerate_per_kw}")
    if rising:
        # what we offered and the opener had not heard of cannot be held against it
        known = views.ACKNOWLEDGED
        remote_view = views.recounted(ch, feerate_per_kw, local=False, states=known)
        if _dust_grows_beyond(ch, view, policy, local=True) or _dust_grows_beyond(
            ch, remote_view, policy, local=False
        ):
            raise PeerFault(f"fee rate {feerate_per_kw} turns too much into dust")


def _dust_grows_beyond(ch: Channel, view: View, policy: Policy, *, local: bool) -> bool:
    own_view = ch.local_view if local else ch.remote_view
    return view.dust_msat > max(own_view.dust_msat, policy.max_dust_exposure_msat)
