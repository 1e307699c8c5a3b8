"""An application runs on the fake boards of board/."""

from host_tests.board.conftest import fake, gateway
