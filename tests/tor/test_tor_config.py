"""Configurations that are wrong, one by one; keys, option lines and torrc lines that are right."""

import shutil
import subprocess

import msgspec
import pytest
import yaml
from onion import require_tor

from tor import keyfile, plan
from tor.config import Config, Service, documented_defaults, load
from tor.errors import Refused
from tor.torrc import hashed_password, torrc


def loaded(tmp_path, text):
    path = tmp_path / "tor.yaml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("targets: [{address: '127.0.0.1'}]", "targets[0].address"),
        ("targets: [{address: '127.0.0.1:0'}]", "HOST:PORT"),
        ("targets: [{address: '127.0.0.1:70000'}]", "HOST:PORT"),
        ("targets: [{address: '::1:9735'}]", "brackets"),
        ("targets: [{address: 'frontend.example:9735'}]", "no IP address"),
        ("targets: [{address: 'unix:relative'}]", "absolute path"),
        ("targets: [{address: 'unix:/a b'}]", "absolute path"),
        ("targets: [{address: '1.2.3.4:5\\nHiddenServiceDir /x'}]", "HOST:PORT"),
        ("targets: [{address: '1.2.3.4:5'}, {address: '1.2.3.4:5'}]", "there twice"),
        ("targets: [{address: '1.2.3.4:5', weight: 0}]", "targets[0].weight"),
        ("targets: [{address: '1.2.3.4:5', health: 'https://x/'}]", "http://HOST:PORT/PATH"),
        ("targets: []", "targets"),
        ("service: {mode: magic}", "service.mode"),
        ("service: {mode: ephemeral}", "service.key_file"),
        ("service: {key_file: /k}", "service.key_file"),
        ("service: {mode: ephemeral, key_file: /k, export_circuit_id: true}", "service.export_circuit_id"),
        ("service: {mode: ephemeral, key_file: /k, num_introduction_points: 4}", "num_introduction_points"),
        ("service: {num_introduction_points: 21}", "num_introduction_points"),
        ("service: {authorized_clients: {alice: short}}", "authorized_clients"),
        ("service: {authorized_clients: {../../x: " + "a" * 52 + "}}", "authorized_clients"),
        ("service: {directory: '/a\"b'}", "service.directory"),
        ("control: {adress: x}", "unknown field"),
        ("control: {address: nowhere}", "control.address"),
        ("control: {password: a, password_file: b}", "keep one"),
        ("backend: {authority: /a}", "backend.api: is missing"),
        ("backend: {password_file: /p}", "backend.api: is missing"),
        ("backend: {api: nowhere, password_file: /p}", "backend.api"),
        ("backend: {api: 'unix:relative'}", "backend.api"),
        ("backend: {api: '127.0.0.1:1'}", "backend.password_file: is missing"),
        (
            "backend: {api: '10.0.0.2:1', password_file: /p}",
            "backend.authority: is missing: the password would go",
        ),
        ("backend: {api: ['127.0.0.1:1', 'b.example:1'], password_file: /p}", "to b.example:1 in clear"),
        ("backend: {api: ['127.0.0.1:1', 5], password_file: /p}", "backend.api"),
        ("backend: {api: [" + "'[::1]:1'," * 9 + "], password_file: /p}", "more than 8"),
        ("targets: [", "is not YAML"),
        ("just text", "mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_field(tmp_path, text, says):
    with pytest.raises(Refused) as refused:
        loaded(tmp_path, text)
    assert str(tmp_path / "tor.yaml") in str(refused.value)
    assert says in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Refused, match="No such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("section", "apis"),
    [
        ("{}", ()),
        ("{api: 'unix:/run/lnnode/api.sock'}", ("unix:/run/lnnode/api.sock",)),
        ("{api: '127.0.0.1:9741', password_file: /p}", ("127.0.0.1:9741",)),
        ("{api: ['[::1]:1', 'localhost:2'], password_file: /p}", ("[::1]:1", "localhost:2")),
        (
            "{api: ['b.example:1', '10.0.0.3:2'], password_file: /p, authority: /a}",
            ("b.example:1", "10.0.0.3:2"),
        ),
    ],
)
def test_where_the_backend_is(tmp_path, section, apis):
    assert loaded(tmp_path, f"backend: {section}").backend.apis == apis


def test_every_default_is_documented_and_valid():
    text = documented_defaults()
    assert msgspec.convert(yaml.safe_load(text), Config) == Config()
    assert "# \n" not in text


def test_what_a_directory_of_ours_is_told_leaves_the_others_in_place():
    service = Service(directory="/var/lib/tor/ours", max_streams=5, export_circuit_id=True)
    ours = plan.service_block(service, plan.port_lines(9735, [("10.0.0.1:1", 2), ("unix:/run/x", 1)]))
    first = [("HiddenServiceDir", "/a"), ("HiddenServicePort", "80")]
    stale = [("HiddenServiceDir", "/var/lib/tor/ours/"), ("HiddenServicePort", "9735 gone:1")]
    last = [("HiddenServiceDir", "/b"), ("HiddenServicePort", "81"), ("HiddenServiceMaxStreams", "3")]
    assert plan.merged([*first, *stale, *last], service.directory, ours) == [*first, *last, *ours]
    assert ours == [
        ("HiddenServiceDir", "/var/lib/tor/ours"),
        ("HiddenServicePort", "9735 10.0.0.1:1"),
        ("HiddenServicePort", "9735 10.0.0.1:1"),
        ("HiddenServicePort", "9735 unix:/run/x"),
        ("HiddenServiceMaxStreams", "5"),
        ("HiddenServiceExportCircuitID", "haproxy"),
    ]
    assert plan.ports_of(ours, "/var/lib/tor/ours/") == (
        "9735 10.0.0.1:1",
        "9735 10.0.0.1:1",
        "9735 unix:/run/x",
    )
    assert plan.ports_of(first, service.directory) is None


def test_add_onion_says_it_all():
    service = Service(
        mode="ephemeral",
        key_file="/k",
        max_streams=4,
        pow_defenses_enabled=True,
        authorized_clients={"a": "b" * 52},
    )
    assert plan.add_onion(service, "KEY", ["9735 10.0.0.1:1", "9735 unix:/x"]) == (
        "ADD_ONION ED25519-V3:KEY Flags=V3Auth MaxStreams=4 PoWDefensesEnabled=1 "
        f"Port=9735,10.0.0.1:1 Port=9735,unix:/x ClientAuthV3={'B' * 52}"
    )


def test_a_key_is_kept_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"
    assert keyfile.read_key(path) is None
    key = keyfile.new_key()
    keyfile.write_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfile.read_key(path) == key
    assert [each.name for each in tmp_path.iterdir()] == ["key"]
    path.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        keyfile.read_key(path)


def test_a_public_key_without_its_secret_one(tmp_path):
    (tmp_path / keyfile.PUBLIC_FILE).write_bytes(bytes(64))
    with pytest.raises(Refused, match="no secret one"):
        keyfile.check_directory(tmp_path)


def test_the_lines_for_single_hop_say_what_they_cost(tmp_path):
    config = loaded(tmp_path, "service: {single_hop_mode: true}\ntargets: [{address: 'unix:/srv/f.sock'}]")
    text = torrc(config, with_service=True)
    assert "NOT ANONYMOUS" in text
    assert "HiddenServicePort 9735 unix:/srv/f.sock" in text
    assert "/srv/f.sock rw," in text


@pytest.mark.tor
def test_tor_accepts_the_lines_that_are_printed(tmp_path):
    require_tor()
    config = loaded(
        tmp_path,
        f"control: {{address: '127.0.0.1:9', password: sesame}}\nservice: {{directory: {tmp_path}/onion}}",
    )
    lines = torrc(config, with_service=True)
    (tmp_path / "torrc").write_text(f"DataDirectory {tmp_path}/data\nSocksPort 0\n{lines}")
    (tmp_path / "empty").touch()
    command = [shutil.which("tor"), "--defaults-torrc", tmp_path / "empty", "-f", tmp_path / "torrc"]
    done = subprocess.run([*command, "--verify-config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "HashedControlPassword 16:" in lines
    assert hashed_password("sesame") != hashed_password("sesame")
