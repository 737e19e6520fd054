"""The units of deploy/systemd, run on a host as systemd would: its command, its environment, its restart when asked."""

import json
import os
import signal
import sys
from pathlib import Path

from hosts import Host, end

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
LNNODE = Path(sys.executable).with_name("lnnode")


class Unit:
    """`lnnode-backend` or an instance of `lnnode-frontend@`. `etc` stands for /etc/lnnode; `options` are added."""

    def __init__(self, host: Host, name: str, etc: Path, *options: str) -> None:
        kind, _, instance = name.partition("@")
        path = UNITS / f"{kind}{'@' if instance else ''}.service"
        text = path.read_text().replace("%H", host.name).replace("%i", instance)
        self.host, self.name, self.log = host, name, etc / f"{name}.log"
        self.process = None
        settings = [line.partition("=")[::2] for line in text.splitlines() if not line.startswith("#")]
        (command,) = (value for key, value in settings if key == "ExecStart")
        self._argv = [self._placed(word, etc) for word in command.split()] + list(options)
        self.environment = dict(
            value.split("=", 1) for key, value in settings if key == "Environment"
        ) | self._from_file(settings, etc)
        self._seen = 0

    def _placed(self, text: str, etc: Path) -> str:
        return text.replace("/opt/lnnode/bin/lnnode", str(LNNODE)).replace("/etc/lnnode", str(etc))

    def _from_file(self, settings, etc: Path) -> dict[str, str]:
        (name,) = (value.removeprefix("-") for key, value in settings if key == "EnvironmentFile")
        path = Path(self._placed(name, etc))
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.split("=", 1) for line in lines if line)

    def start(self) -> "Unit":
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        self.process = self.host.popen(*self._argv, log=self.log, env={**os.environ, **self.environment})
        return self

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its status."""
        return end(self.process)

    @property
    def ready(self) -> dict | None:
        """What it announced last since its start; raises with its log's end where it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.host.name}: {self.name} ended: {self.said()[-2000:]}")
        lines = [line for line in self.said().splitlines() if line.startswith('{"ready"')]
        return json.loads(lines[-1]) if lines else None

    def said(self) -> str:
        """Its log since it was started last."""
        with self.log.open("rb") as file:
            file.seek(self._seen)
            return file.read().decode()
