"""The examples of firmware/docs/sensor.md do what they say."""

import json
import re

import pytest

from host_tests.board.conftest import BOARDS, ROOT

TEXT = (ROOT / "firmware/docs/sensor.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.S)

PARTS = """
import sys
from host_tests.board.fake import Facade
machine = sys.modules["machine"]
machine.Pin = lambda number: number
machine.ADC = lambda channel: Facade(None, read_u16=lambda: 14071)
class DS:
    def __init__(self, bus):
        self.converted = 0
    def scan(self):
        return [b"rom"]
    def convert_temp(self):
        self.converted += 1
    def read_temp(self, rom):
        assert self.converted and rom == b"rom"
        return 21.5
sys.modules["onewire"] = Facade(None, OneWire=lambda pin: pin)
sys.modules["ds18x20"] = Facade(None, DS18X20=DS)
sys.modules["esp32"] = Facade(None, mcu_temperature=lambda: 41, raw_temperature=lambda: 106)
"""


@pytest.mark.parametrize(
    ("number", "expected"), [(0, {"t": 21.5}), (1, {"t": 25.5}), (2, {"t": 41}), (3, {"t": 41.1})]
)
def test_each_example_of_a_sample_runs(fake, number, expected):
    program = (
        PARTS
        + "\n".join(f"exec({line!r})" for line in [EXAMPLES[number]])
        + "\nfor n in (1, 2):\n"
        "    print(json.dumps({'event': 'sample', 'text': sample(n).decode()}))"
    )
    events, _ = fake("RPI_PICO_W").run(program)
    assert [json.loads(event["text"]) for event in events] == [expected] * 2


def test_there_is_an_example_for_each_chip():
    assert len(EXAMPLES) == 4
    for name in ("Pico W", "W5500-EVB-Pico", "ESP32-S3", "ESP32-C3", "ESP32, which"):
        assert name in TEXT
    assert len(BOARDS) == 5


def test_its_constants_and_hooks_are_those_of_sensor_py():
    source = (ROOT / "firmware/sensor.py").read_text()
    for name in re.findall(r"`([A-Z_]{3,})", TEXT):
        assert re.search(rf"^{name} = ", source, re.M), name
    for name in ("sample", "command"):
        assert f"def {name}(" in source and f"`{name}(" in TEXT
