"""firmware/main.py on the unix port: exit codes 0, 1 and 2, one line for a bad profile, JSON lines."""

import json
import os
import socket
import stat

import pytest

from tools.dev.peers.node import PROFILE
from tools.devgateway import RunningGateway

SECRET = "a secret that nobody may see"


@pytest.fixture
def sensor(micropython, tmp_path, root):
    """Write a profile and its secrets, run main.py: `sensor({key: value}, "3")`."""

    def run(
        changes=None, *readings, secrets='{"psk": "%s"}' % SECRET, mode=0o600, text=None, **options
    ):
        values = {**PROFILE, "log": "json", "interval_ms": 10, **(changes or {})}
        path = tmp_path / "profile.json"
        text = json.dumps(values) if text is None else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if secrets is not None:
            (tmp_path / "secrets.json").write_text(secrets)
            (tmp_path / "secrets.json").chmod(mode)
        arguments = options.pop("arguments", [path, *readings])
        options.setdefault("timeout", 60)
        done = micropython(root / "firmware/main.py", *arguments, check=False, **options)
        assert SECRET not in done.stdout + done.stderr
        return done

    return run


def refused(done, line):
    """Exit code 2 and just this line."""
    assert (done.returncode, done.stderr, done.stdout) == (2, line + "\n", "")


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


# 2: the profile

TEXT = "text without quotes or blanks around it, 0x and pairs of hex digits, or 0s and base64"
PSK_OR_PAD = 'expected {"psk": "text or 0xhex"} or {"psk_pad": "0x" + 64 digits}'


def test_a_profile_that_cannot_be_read_is_named(sensor, tmp_path):
    path = tmp_path / "none.json"
    refused(sensor(arguments=[path]), f"profile: cannot read {path}")
    refused(sensor(arguments=[tmp_path]), f"profile: cannot read {tmp_path}")


# MicroPython's own reader lets some commas and values be missing; what it gives is then checked.
@pytest.mark.parametrize("text", ["", "{", "not JSON", "\x00\x01", "{'id': 1}"])
def test_what_is_not_json_is_named(sensor, tmp_path, text):
    refused(sensor(text=text), f"profile: {tmp_path}/profile.json is not JSON")


def test_octets_that_are_no_text_are_not_json(sensor, tmp_path):
    refused(sensor(text=b'{"id": "\xff\xfe"}'), f"profile: {tmp_path}/profile.json is not JSON")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"gateway": 17},
            "profile: gateway: expected a host or address, or a list of them, got 17",
        ),
        ({"gatway": "x"}, "profile: gatway: unknown key"),
        ({"port": "500"}, 'profile: port: expected a whole number from 1 to 65535, got "500"'),
        ({"esp": [["x"]]}, 'profile: esp: expected proposals like ["aes128ccm8"], got [["x"]]'),
        (
            {"server": "server.example.org"},
            'profile: server: expected an IPv4 or IPv6 address, got "server.example.org"',
        ),
    ],
)
def test_a_bad_value_is_one_line(sensor, changes, line):
    refused(sensor(changes), line)


def test_what_is_no_object_is_one_line(sensor):
    line = "profile: expected one JSON object with keys like gateway and id"
    for text in ("[]", "null", "17", '"text"'):
        refused(sensor(text=text), line)


def test_secrets_must_be_there_and_closed_to_others(sensor, tmp_path):
    path = tmp_path / "secrets.json"
    refused(sensor(secrets=None), f"secrets: cannot read {path}")
    for mode in (0o644, 0o640, 0o604, 0o660, 0o610, 0o601):
        refused(sensor(mode=mode), f"secrets: {path} is open to others: chmod 600 it")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o601


def test_secrets_lie_beside_the_profile_or_where_it_says(sensor, tmp_path):
    refused(sensor({"secrets": "elsewhere"}), f"secrets: cannot read {tmp_path}/elsewhere")
    refused(sensor({"secrets": "/none/psk"}), "secrets: cannot read /none/psk")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"psk": 17}', f"psk: expected {TEXT}"),
        ('{"psk": ""}', f"psk: expected {TEXT}"),
        ("[]", PSK_OR_PAD),
        ("null", PSK_OR_PAD),
        ('{"psk": "%s", "psk_pad": "0x00"}' % SECRET, "psk_pad: expected 0x and 64 digits"),
        ('{"psk_pad": "%s"}' % SECRET, "psk_pad: expected 0x and 64 digits"),
        (
            '{"secret": "%s"}' % SECRET,
            "a key is unknown; known are ppk, psk, psk_pad, seed, wifi_key",
        ),
    ],
)
def test_bad_secrets_are_one_line_that_does_not_repeat_them(sensor, text, line):
    refused(sensor(secrets=text), f"secrets: {line}")


@pytest.mark.item("E3")
def test_a_byte_order_mark_is_no_part_of_a_file(sensor, tmp_path):
    """Both files have one, and so the sensor goes on to the next thing that is wrong."""
    profile = {"gateway": "127.0.0.1", "gateway_id": "g", "id": "s", "server": "10.0.0.1"}
    text = json.dumps({**profile, "keylog": str(tmp_path / "none")})
    done = sensor(text=text.encode("utf-8-sig"), secrets='\ufeff{"psk": "%s"}' % SECRET)
    refused(done, f"profile: keylog: cannot read {tmp_path}/none")
    text = json.dumps(profile)
    done = sensor(text=text.encode("utf-8-sig"), secrets='\ufeff{"psk": 7}')
    refused(done, f"secrets: psk: expected {TEXT}")


@pytest.mark.item("E3")
def test_utf_16_is_named(sensor, tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        text = ("\ufeff" + json.dumps({"gateway": "g"})).encode(encoding)
        line = f"profile: {tmp_path}/profile.json is UTF-16: save it as UTF-8"
        refused(sensor(text=text), line)


def test_secrets_that_are_not_json_are_not_repeated(sensor, tmp_path):
    refused(sensor(secrets=SECRET), f"secrets: {tmp_path}/secrets.json is not JSON")


def test_a_key_log_that_is_missing_or_open_is_refused_before_anything_is_sent(sensor, tmp_path):
    path = tmp_path / "keys"
    done = sensor({"keylog": str(path)})
    refused(done, f"profile: keylog: cannot read {path}")
    path.touch(0o644)
    refused(
        sensor({"keylog": str(path)}),
        f"profile: keylog: {path} is open to others: chmod 600 it",
    )


def test_a_count_of_readings_is_a_count(sensor):
    for word in ("-1", "ten", "1.5", "", "0x10", "1e3"):
        line = f"readings: expected a count, 0 for no end, got {word}"
        refused(sensor(None, word), line)


def test_too_many_words_are_answered_with_the_usage(sensor):
    refused(sensor(None, "1", "2"), "usage: main.py [PROFILE.json [READINGS]]")


# 1: a typed error


def test_silence_is_a_typed_error_in_time(sensor):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        here = {"gateway": "127.0.0.1", "port": silent.getsockname()[1]}
        done = sensor({**here, "retransmit_ms": 400, "retransmit_tries": 2}, 1)
        sent = []
        silent.setblocking(False)
        while True:
            try:
                sent.append(silent.recv(2048))
            except BlockingIOError:
                break
    assert done.returncode == 1 and done.stderr == ""
    assert len(sent) == 2 and sent[0] == sent[1]
    lines = events(done)
    (error,) = [line for line in lines if line["event"] == "error"]
    assert (error["error"], error["notify"]) == ("LinkDown", None)
    assert error["text"] and "firewall" in error["check"]
    assert lines[-1]["event"] == "stats" and lines[-1]["drops"] == {}
    states = [line["state"] for line in lines if line["event"] == "state"]
    assert states[0] == "IKE_SA_INIT" and states[-1] == "DOWN"


def test_garbage_instead_of_answers_is_counted_in_the_last_line(sensor):
    import threading

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rude:
        rude.bind(("127.0.0.1", 0))
        rude.settimeout(20)

        def answer():
            request, source = rude.recvfrom(2048)
            for octets in (
                b"",
                b"\xff",
                b"garbage",
                request,
                bytes(4) + request,
                request[:16] + b"\x21\x30" + request[18:],
                request[:8] + bytes(8) + b"\0\x20\x22\x20" + bytes(4) + b"\0\0\0\x1c",
            ):
                rude.sendto(octets, source)

        thread = threading.Thread(target=answer)
        thread.start()
        here = {"gateway": "127.0.0.1", "port": rude.getsockname()[1]}
        done = sensor({**here, "retransmit_ms": 200, "retransmit_tries": 1}, 1)
        thread.join()
    assert done.returncode == 1 and done.stderr == ""
    drops = events(done)[-1]["drops"]
    assert drops["REFLECTED"] == 2 and drops["BAD_VERSION"] == 1 and drops["BAD_INIT"] == 1
    assert drops["KEEPALIVE"] == 1 and drops["UNEXPECTED_ESP"] >= 1


def at(gateway, **changes):
    return {
        "gateway": "127.0.0.1",
        "port": gateway.port,
        "natt_port": gateway.natt_port,
        **changes,
    }


def test_a_refusal_names_its_notify_and_what_to_check(sensor):
    with RunningGateway({"any": "another secret"}) as gateway:
        done = sensor(at(gateway), 1)
        assert done.returncode == 1 and done.stderr == ""
        (error,) = [line for line in events(done) if line["event"] == "error"]
        assert error["error"] == "AuthenticationFailed"
        assert error["notify"] == "AUTHENTICATION_FAILED"
        assert "secret" in error["check"]


# 0: all readings out


def test_all_readings_out_is_a_success_told_in_json(sensor):
    with RunningGateway({"any": SECRET}) as gateway:
        done = sensor(at(gateway), 3)
        readings = [gateway.reading() for _ in range(3)]
    assert done.returncode == 0 and done.stderr == ""
    lines = events(done)
    kinds = [line["event"] for line in lines]
    assert kinds.count("up") == 1 and kinds.count("sent") == 3 and kinds[-1] == "stats"
    assert "error" not in kinds
    (agreed,) = [line for line in lines if line["event"] == "agreed"]
    assert agreed == {
        "event": "agreed",
        "ike": "aes128ccm16-prfsha256-x25519",
        "esp": "aes128ccm8",
    }
    (up,) = [line for line in lines if line["event"] == "up"]
    assert len(up["spi_i"]) == len(up["spi_r"]) == 16
    assert len(up["spi_in"]) == len(up["spi_out"]) == 8
    assert up["inner"].startswith("10.9.0.") and up["gateway"] == "127.0.0.1"
    sent = [line for line in lines if line["event"] == "sent"]
    assert [line["data"] for line in sent] == [reading["text"] for reading in readings]
    assert [line["n"] for line in sent] == [1, 2, 3]
    assert sorted({line["sn"] for line in sent}) == [line["sn"] for line in sent]
    assert kinds.count("reply") == 3
    stats = lines[-1]
    assert (stats["sent"], stats["received"], stats["drops"]) == (3, 3, {})


def test_log_off_prints_nothing_and_log_text_is_for_people(sensor):
    with RunningGateway({"any": SECRET}) as gateway:
        done = sensor(at(gateway, log="off"), 1)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        done = sensor(at(gateway, log="text"), 1)
        assert done.returncode == 0 and done.stderr == ""
        assert not any(line.startswith("{") for line in done.stdout.splitlines())
        assert "up " in done.stdout and "aes128ccm16-prfsha256-x25519" in done.stdout


def test_without_a_count_the_profile_says_how_many(sensor):
    with RunningGateway({"any": SECRET}) as gateway:
        done = sensor(at(gateway, readings=2))
        assert done.returncode == 0
        assert [line["event"] for line in events(done)].count("sent") == 2


def test_a_key_log_is_written_when_it_is_asked_for(sensor, tmp_path):
    path = tmp_path / "keys"
    path.touch(0o600)
    with RunningGateway({"any": SECRET}) as gateway:
        done = sensor(at(gateway, keylog=str(path)), 1)
    assert done.returncode == 0
    (line,) = path.read_text().splitlines()
    (up,) = [entry for entry in events(done) if entry["event"] == "up"]
    assert line.startswith(f"{up['spi_i']},{up['spi_r']},")
    assert '"AES-CCM-128 with 16 octet ICV [RFC5282]"' in line
    keys = line.split(",")[2:4]
    assert all(len(key) == 38 and key not in done.stdout for key in keys)
