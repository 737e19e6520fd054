"""What may happen to the onion service, as workloads. A target that is down is a frontend's `kill`."""

from typing import assert_never

from lnsim.run.context import Context
from lnsim.run.timing import repeat
from lnsim.scenario import workloads as wl
from lnsim.stage import onion_of


class OnionFault:
    """Runs one entry that disturbs tor, or what lntor has to it, once or again and again."""

    def __init__(self, context: Context, spec: wl.TorFault) -> None:
        self._context = context
        self._spec = spec

    async def run(self) -> None:
        spec, end_s = self._spec, self._context.stage.scenario.duration_s
        await repeat(self._context.clock, spec.start_s, spec.every_s, end_s, self._act)

    async def _act(self) -> None:
        spec, onion = self._spec, onion_of(self._context.stage)
        match spec:
            case wl.TorRestart():
                self._mark("restart tor")
                await onion.restart()
            case wl.TorKill():
                self._mark("kill tor", spec.for_s)
                await onion.kill(spec.for_s)
            case wl.TorControlCut():
                self._mark("control connection of lntor cut", spec.for_s)
                await onion.cut_control(spec.for_s)
            case wl.TorCircuits():
                self._mark("circuits of onion clients closed")
                await onion.close_circuits()
            case _:
                assert_never(spec)

    def _mark(self, text: str, for_s: float | None = None) -> None:
        now_s = self._context.clock.now_s()
        self._context.stage.recorder.mark("fault", text, None if for_s is None else now_s + for_s)
