"""The AWS Elastic Beanstalk bundle of a frontend: this release, and how to start it from environment properties.

For the platform "Python 3.13 on Amazon Linux 2023" and a network load balancer. Every setting of `lnnode frontend` is an
environment property (LNNODE_BACKEND=host:port and so on); a property FILE_NAME, base64, becomes the file secrets/name.
"""

import zipfile
from importlib import metadata
from pathlib import Path

from node.errors import Refused

DISTRIBUTION = "lnsim"
PACKAGE = Path(__file__).parents[1]
EXECUTABLE, PLAIN = 0o755, 0o644
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same release makes the same bundle, byte for byte

PROCFILE = "web: ./run.sh\n"

RUN = r"""#!/bin/bash
# Starts a frontend: its name is its instance's address, told by the instance metadata service, version 2.
set -euo pipefail
umask 077
metadata="${METADATA:-http://169.254.169.254}"
token=$(curl -fsS --retry 3 -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token")
address=$(curl -fsS --retry 3 -m 5 -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/local-ipv4")

mkdir -p secrets
for name in ${!FILE_@}; do
    file=${name#FILE_}
    printf %s "${!name}" | base64 -d > "secrets/${file,,}"
    unset "$name"
done

export LNNODE_ID="${LNNODE_ID:-$address}"
export LNNODE_LISTEN="${LNNODE_LISTEN:-0.0.0.0:9735}"
export LNNODE_ADMIN="${LNNODE_ADMIN:-0.0.0.0:9740}"
export LNNODE_DRAIN_S="${LNNODE_DRAIN_S:-30}"
exec "${PYTHON:-python3}" -c 'from node.cli import main; main()' frontend
"""

SETTINGS = """option_settings:
  aws:elasticbeanstalk:environment:
    LoadBalancerType: network
  aws:elasticbeanstalk:environment:proxy:
    ProxyServer: none
  # The port is open only while the frontend is ready, so that a TCP check says as much as /readyz.
  aws:elasticbeanstalk:environment:process:default:
    Port: 9735
    Protocol: TCP
  aws:elbv2:listener:default:
    ListenerEnabled: false
  aws:elbv2:listener:9735:
    ListenerEnabled: true
    Protocol: TCP
    DefaultProcess: default
  aws:ec2:instances:
    InstanceTypes: t4g.small
  aws:autoscaling:launchconfiguration:
    DisableIMDSv1: true
  aws:elasticbeanstalk:command:
    DeploymentPolicy: Rolling
"""


def bundle(target: Path) -> list[str]:
    """Write it; the names of its members. Raises Refused where it can't be written."""
    members = {
        "Procfile": (PROCFILE, PLAIN),
        "run.sh": (RUN, EXECUTABLE),
        "requirements.txt": (_requirements(), PLAIN),
        ".ebextensions/frontend.config": (SETTINGS, PLAIN),
    }
    for path in sorted(PACKAGE.rglob("*.py")):
        members[f"node/{path.relative_to(PACKAGE).as_posix()}"] = (path.read_text(), PLAIN)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, (text, mode) in members.items():
                info = zipfile.ZipInfo(name, EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (0o100000 | mode) << 16
                archive.writestr(info, text)
    except OSError as error:
        raise Refused(f"{target}: {error.strerror}; name a file that can be written") from error
    return list(members)


def _requirements() -> str:
    """The base: an extra's requirement names it in its marker."""
    wanted = metadata.requires(DISTRIBUTION) or []
    return "".join(f"{each}\n" for each in wanted if "extra ==" not in each)
