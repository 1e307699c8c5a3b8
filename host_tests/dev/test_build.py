"""What is built for boards: for each architecture, as files, as ROMFS, for mip, frozen."""

import contextlib
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import urllib.request

import pytest
from minipsec.config import profile as store
from mpremote import mip

from tools.dev.lab.virtual_board import VirtualBoard
from host_tests.board.conftest import BOARDS, ROOT
from tools.dev import build
from tools.common import mpy

# .mpy header, third octet >> 2 (py/persistentcode.h)
ARCHITECTURES = {"armv6m": 4, "xtensawin": 10, "rv32imc": 11, "x64": 2}
NATIVE = {"crypto/octets_viper", "kex/keccak", "kex/mlkem", "kex/x25519_thumb"}
FACTS = build.boards()
HERE = {**FACTS["RPI_PICO_W"], "arch": mpy.HERE}

needs_native = pytest.mark.skipif(not mpy.HERE, reason="mpy-cross knows no code for this PC")


def modules(arch="armv6m"):
    """What a chip gets: x25519_thumb has ARM's instructions in it."""
    found = set(mpy.modules())
    return found if arch.startswith("arm") else found - {"kex/x25519_thumb"}


def below(directory, suffix):
    """{a module's name: its file} of what lies in a board's lib/."""
    package = directory / "lib/minipsec"
    return {
        str(path.relative_to(package).with_suffix("")): path
        for path in package.rglob("*" + suffix)
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """{board: (folder, manifest)} of every board."""
    made = {}
    for name, facts in FACTS.items():
        directory = tmp_path_factory.mktemp(name) / "dist"
        made[name] = directory, build.dist(name, facts, directory)
    return made


def test_five_boards_are_known():
    assert BOARDS == sorted(FACTS) == [
        "ESP32_GENERIC", "ESP32_GENERIC_C3", "ESP32_GENERIC_S3", "RPI_PICO_W", "W5500_EVB_PICO",
    ]  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
def test_a_boards_facts_are_whole(name):
    facts = FACTS[name]
    assert facts.keys() == FACTS["RPI_PICO_W"].keys()
    assert facts["board"] == name
    assert facts["arch"] in ARCHITECTURES
    assert facts["port"] in ("rp2", "esp32")
    assert facts["network"]["kind"] in ("wifi", "ethernet")
    assert facts["clock"]["epoch"] == {"rp2": 1970, "esp32": 2000}[facts["port"]]
    # A clock that starts anew carries no sequence number.
    assert facts["sleep"] == ("clock" if facts["clock"]["survives_deep_sleep"] else "mark")
    assert (ROOT / "boards" / name / "README.md").read_text().count("\n") > 30


def test_no_two_boards_look_the_same_to_a_program():
    assert len({facts["machine"] for facts in FACTS.values()}) == len(BOARDS)


def test_each_readme_names_its_sources_and_its_steps():
    for name in BOARDS:
        text = (ROOT / "boards" / name / "README.md").read_text()
        assert f"make dist BOARD={name}" in text
        assert "Source" in text or "source" in text
        flash = FACTS[name]["flash"]
        if flash["how"] == "uf2":
            assert "BOOTSEL" in text
        else:
            offset = "0" if flash["offset"] == "0x0" else flash["offset"]
            assert f"write-flash {offset} {name}-" in text


@pytest.mark.parametrize("name", BOARDS)
def test_the_example_profile_is_one_that_the_firmware_takes(name, dist):
    directory, _ = dist[name]
    profile = json.loads((directory / "profile.example.json").read_text())
    checked = store.check_profile(profile)
    most = FACTS[name]["watchdog"]["max_ms"]
    assert not most or checked["watchdog_ms"] <= most
    assert not list(directory.glob("*secret*"))


@pytest.mark.parametrize("name", BOARDS)
def test_native_code_is_for_the_boards_own_chip_and_the_rest_for_all(name, dist):
    directory, _ = dist[name]
    found = {name: path.read_bytes() for name, path in below(directory, ".mpy").items()}
    assert set(found) == modules(FACTS[name]["arch"])
    for module, octets in found.items():
        assert octets[:2] == b"M\6", module
        architecture = octets[2] >> 2
        assert architecture == (ARCHITECTURES[FACTS[name]["arch"]] if module in NATIVE else 0)


@pytest.mark.parametrize("name", BOARDS)
def test_the_manifest_has_every_file_with_its_sum(name, dist):
    directory, manifest = dist[name]
    assert json.loads((directory / "manifest.json").read_text()) == manifest
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == there - {"manifest.json"}
    for path, entry in manifest["files"].items():
        octets = (directory / path).read_bytes()
        assert entry == {"octets": len(octets), "sha256": hashlib.sha256(octets).hexdigest()}
    on_board = manifest["on_board"]
    assert {"main.py", "sensor.py"} < set(on_board["files"]) < there
    assert on_board["octets"] == sum(manifest["files"][p]["octets"] for p in on_board["files"])


def test_the_same_sources_make_the_same_octets(dist, tmp_path):
    name = "ESP32_GENERIC_C3"
    assert build.dist(name, FACTS[name], tmp_path / "again") == dist[name][1]


def test_a_second_build_leaves_nothing_of_the_first(tmp_path):
    directory = tmp_path / "dist"
    build.dist("RPI_PICO_W", FACTS["RPI_PICO_W"], directory)
    (directory / "lib/minipsec/gone.mpy").write_bytes(b"M")
    build.dist("RPI_PICO_W", FACTS["RPI_PICO_W"], directory)
    assert not (directory / "lib/minipsec/gone.mpy").exists()


def self_test(micropython, *path, before=""):
    program = (
        f"import sys\nsys.path[:] = {[*map(str, path), '.frozen']!r}\n{before}\n"
        "from minipsec import selftest\nprint(selftest.__file__)\nselftest.run()"
    )
    done = micropython(program)
    assert "selftest passed" in done.stdout, done.stdout
    return done.stdout.splitlines()[0]


@needs_native
def test_what_a_board_gets_runs_from_its_place(micropython, tmp_path):
    build.compile_for("HERE", HERE, tmp_path / "board")
    assert self_test(micropython, tmp_path / "board/lib").endswith("minipsec/selftest.mpy")


@needs_native
def test_a_romfs_image_is_mounted_and_runs(micropython, tmp_path):
    build.compile_for("HERE", HERE, tmp_path / "board")
    image = tmp_path / "minipsec.romfs"
    assert build.make_romfs(tmp_path / "board", image) == image.stat().st_size
    mount = (
        "import vfs\n"
        f"vfs.mount(vfs.VfsRom(open({str(image)!r}, 'rb').read()), '/rom')\n"
        "import os\n"
        "assert os.listdir('/rom') == ['lib'], os.listdir('/rom')"
    )
    assert self_test(micropython, "/rom/lib", before=mount) == "/rom/lib/minipsec/selftest.mpy"


class Device:
    """What mpremote's mip wants of a board, in a folder of this PC."""

    def __init__(self, directory):
        self._directory = directory

    def _path(self, path):
        return self._directory / path.lstrip("/")

    def fs_exists(self, path):
        return self._path(path).exists()

    def fs_mkdir(self, path):
        self._path(path).mkdir()

    def fs_writefile(self, path, octets, progress_callback=None):
        self._path(path).write_bytes(octets)


def install(package, device, monkeypatch, version=None):
    monkeypatch.setattr(mip, "show_progress_bar", None)
    mip._install_package(device, package, "https://nowhere.invalid", "/lib", version, True)


def test_package_json_is_what_the_sources_are_now():
    committed = json.loads((ROOT / "package.json").read_text())
    assert committed == build.sources_for_mip(), "run `make package`"
    assert committed["version"] in (ROOT / "firmware/minipsec/__init__.py").read_text()


@pytest.mark.parametrize("package", ["./package.json", "package.json"])
def test_mip_installs_this_repository(package, micropython, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    install(package, Device(tmp_path), monkeypatch)
    assert set(below(tmp_path, ".py")) == modules()
    self_test(micropython, tmp_path / "lib")


@needs_native
def test_mip_installs_what_was_built(micropython, tmp_path, monkeypatch):
    build.dist("RPI_PICO_W", HERE, tmp_path / "dist")
    (tmp_path / "board").mkdir()
    monkeypatch.chdir(tmp_path)
    install("./dist/package.json", Device(tmp_path / "board"), monkeypatch)
    place = self_test(micropython, tmp_path / "board/lib")
    assert place.endswith("lib/minipsec/selftest.mpy")


@needs_native
@pytest.mark.parametrize("what", ["sources", "built"])
def test_mpremote_itself_installs_it_on_a_virtual_board(what, tmp_path):
    where = ROOT
    if what == "built":
        where = tmp_path / "dist"
        build.dist("RPI_PICO_W", HERE, where)
    with VirtualBoard(tmp_path / "board") as board:

        def mpremote(*words):
            return subprocess.run(
                [sys.executable, "-m", "mpremote", "connect", board.port, *words],
                check=True,
                cwd=where,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            ).stdout

        assert mpremote("mip", "install", "./package.json").rstrip().endswith("Done")
        said = mpremote("exec", "from minipsec import selftest\nselftest.run()")
        assert "selftest passed" in said, said


@pytest.mark.parametrize(("version", "branch"), [(None, "HEAD"), ("v0.1.0", "v0.1.0")])
def test_mip_installs_from_github(version, branch, micropython, tmp_path, monkeypatch):
    asked = []

    def answer(url):
        asked.append(url)
        prefix = f"https://raw.githubusercontent.com/owner/minipsec/{branch}/"
        assert url.startswith(prefix)
        return io.BytesIO((ROOT / url.removeprefix(prefix)).read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    install("github:owner/minipsec", Device(tmp_path), monkeypatch, version)
    assert len(asked) == len(modules()) + 1
    self_test(micropython, tmp_path / "lib")


class Manifest:
    """MicroPython's manifest functions, as far as ours call them."""

    def __init__(self, port_dir, board_dir):
        self._variables = {"$(PORT_DIR)": str(port_dir), "$(BOARD_DIR)": str(board_dir)}
        self.frozen = {}
        self.included = []

    def execute(self, path):
        here = path.parent

        def resolve(text):
            for name, value in self._variables.items():
                text = text.replace(name, value)
            return (here / text).resolve()

        def include(text):
            assert resolve(text).is_file(), text
            self.included.append(resolve(text))

        def package(name, files=None, base_path=".", opt=None):
            base = resolve(base_path)
            for file in sorted((base / name).rglob("*")):
                inside = str(file.relative_to(base / name))
                if file.suffix == ".py" and (files is None or inside in files):
                    self.frozen[str(file.relative_to(base))] = opt

        with contextlib.chdir(here):  # as MicroPython's tools/manifestfile.py does
            exec(path.read_text(), {"include": include, "package": package})


@pytest.mark.parametrize("name", BOARDS)
def test_a_boards_manifest_freezes_the_stack_beside_the_stock_modules(name, tmp_path):
    stock = tmp_path / "boards" / name
    stock.mkdir(parents=True)
    (tmp_path / "boards/manifest.py").write_text("")
    (stock / "manifest.py").write_text("")
    manifest = Manifest(tmp_path, stock)
    manifest.execute(ROOT / "boards" / name / "manifest.py")
    assert len(manifest.included) == 1
    expected = modules(FACTS[name]["arch"])
    assert set(manifest.frozen) == {f"minipsec/{module}.py" for module in expected}
    assert set(manifest.frozen.values()) == {3}  # as mpy-cross -O3


def test_an_error_in_native_code_is_named_and_ends_with_1(tmp_path, monkeypatch, capsys):
    """An integer of more than 30 bits is an object on a 32-bit board, and no word in viper."""
    bad = tmp_path / "wide.py"
    bad.write_text(
        "import micropython\n"
        "@micropython.viper\n"
        "def f(x: uint) -> uint:\n"
        "    return x & 0xFFFFFFFF\n"
    )
    real = mpy.sources()
    monkeypatch.setattr(mpy, "sources", lambda: {**real, "wide": bad})
    monkeypatch.setattr(mpy, "in_package", lambda path: path.stem not in ("main", "sensor"))
    for name in ("RPI_PICO_W", "ESP32_GENERIC", "ESP32_GENERIC_C3"):
        code = build.main(["mpy", name, "--out", str(tmp_path / "build")])
        said = capsys.readouterr()
        assert code == 1
        assert "wide.py" in said.err and said.err.count("build:") == 1


def test_an_unknown_board_is_one_line_and_exit_2(capsys, tmp_path):
    assert build.main(["dist", "PICO", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("build: BOARD=PICO: expected one of ESP32_GENERIC, ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", ["mpy", "romfs", "dist"])
def test_each_command_says_what_it_made_and_where(what, capsys, tmp_path):
    assert build.main([what, "W5500_EVB_PICO", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("build: W5500_EVB_PICO: ") and str(tmp_path) in said
    assert said.count("\n") == 1


def test_make_has_the_targets():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("mpy", "romfs", "dist", "package"):
        assert f"  make {target} " in done.stdout


def test_mip_wants_no_path_out_of_the_package():
    for target, place in build.sources_for_mip()["urls"]:
        for path in (target, place):
            assert not pathlib.PurePosixPath(path).is_absolute() and ".." not in path
