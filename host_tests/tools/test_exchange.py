"""The part of `push` that runs on the board, against power cuts at every write to flash."""

import json
import pathlib

from tools.board.push import EXCHANGE


def test_files_change_places_all_or_none_wherever_the_power_goes(micropython, tmp_path):
    code = tmp_path / "exchange.txt"
    code.write_text(EXCHANGE)
    program = pathlib.Path(__file__).with_name("exchange.py")
    # What was open when the power went complains above while it is collected.
    result = json.loads(micropython(program, code).stdout.splitlines()[-1])
    assert result["broken"] == []
    assert result["cuts"] > 60
