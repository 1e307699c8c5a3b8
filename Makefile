# `make` lists the targets: every line `name: ## text` is one, every line `#### text` a heading.
# Variables reach the tools as environment or flags; see each target.

PYTHON ?= python3
PY := .venv/bin/python
export PYTHONDONTWRITEBYTECODE := 1

# $(call flag,name,NAME) is --name=value when the variable NAME is given.
flag = $(if $($(2)),--$(1)='$(subst ','\'',$($(2)))')
# $(call known,target,NAMES) refuses variables on make's command line that nothing would heed.
known = $(foreach name,$(filter-out PYTHON $(2),$(foreach word,$(MAKEOVERRIDES),$(firstword $(subst =, ,$(word))))),$(error $(1): no variable $(name); it has $(2)))

.DEFAULT_GOAL := help
.PHONY: help venv demo fresh clean test conformance lint types coverage mutants fuzz soak histories fleet size footprint bench bench-compare bench-esp bench-loss bench-storm bench-idle bench-silence bench-heap bench-asm mpy romfs dist package docs

help:
	@sed -nE 's/^([a-z][a-z-]*):.*## (.*)/  make \1|\2/p; s/^#### (.*)/\1:/p' $(MAKEFILE_LIST) | \
	  awk -F'|' 'NF > 1 { printf "%-20s %s\n", $$1, $$2; next } { print "\n" $$0 }'

#### Start

venv: ## .venv with what everything here needs; every other target begins with it
	@$(PYTHON) tools/dev/setup/venv.py

demo: venv ## a sensor sends readings to a gateway (READINGS=n; GATEWAY=strongswan, SLEEP=1, or PQ=1 LOSS=percent FRAGMENT_SIZE=octets)
	@$(call known,demo,READINGS GATEWAY SLEEP PQ LOSS FRAGMENT_SIZE)
	@$(if $(filter strongswan,$(GATEWAY)),$(PY) tools/dev/setup/gateway.py --require)
	@$(PY) -m tools.dev.demo $(call flag,readings,READINGS) $(call flag,gateway,GATEWAY) \
	  $(call flag,pq,PQ) $(call flag,sleep,SLEEP) $(call flag,loss,LOSS) $(call flag,fragment-size,FRAGMENT_SIZE)

fresh: ## the demo and a share of the tests in new Debian roots, as root: 5 minutes (SUITE=trixie)
	@$(PYTHON) tools/dev/fresh.py $(call flag,suite,SUITE) $(call flag,args,ARGS)

clean: ## remove .venv, caches and everything built
	rm -rf .venv build .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

#### Check

test: venv ## all tests, a quarter hour; as root with strongSwan in namespaces (ARGS='-k name -x')
	@$(PY) tools/dev/setup/interpreter.py
	@$(PY) tools/dev/setup/gateway.py
	@$(PY) tools/dev/setup/node.py
	@$(PY) -m pytest $(ARGS)

conformance: venv ## a line for each id of the checklists, and the tests that prove it (JSON=file)
	@$(PY) tools/dev/setup/gateway.py
	@$(PY) -m tools.dev.conformance $(call flag,json,JSON)

lint: venv ## style and format of every Python file
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: venv ## pyright, firmware/ against MicroPython's stubs: nothing beyond what was looked at
	@$(PY) -m tools.dev.health types

coverage: venv ## branches of the core that its tests take under CPython; less than 95 % fails
	@$(PY) -m tools.dev.health coverage

mutants: venv ## small changes to ESP, AES-CCM, IKE and the handshake: do tests notice? (MODULE=ike/wire; hours)
	@$(PY) -m tools.dev.mutants $(call flag,module,MODULE)

fuzz: venv ## any octets into the core, guided by coverage: five minutes (SECONDS=n)
	@$(PY) -m tools.dev.fuzz $(call flag,seconds,SECONDS)

soak: venv ## a day of trouble on a clock that leaps, a million readings: minutes (HOURS=n READINGS=n)
	@$(PY) -m tools.dev.soak $(call flag,hours,HOURS) $(call flag,readings,READINGS) $(call flag,seed,SEED)

histories: venv ## random lives of a sensor that sleeps: no sequence number comes twice (N=1000000)
	@PYTHONPATH=firmware:tools/dev/shims $(PY) -m host_tests.esp.histories $(N)

fleet: venv ## 2000 devices told to strongSwan, 400 tunnels at once (FLEET=devices,tunnels,readings,processes)
	@$(PY) tools/dev/setup/gateway.py --require
	@FLEET="$${FLEET:-2000,400,5,4}" $(PY) -m pytest -q host_tests/tools/test_fleet.py

#### Measure

size: venv ## .mpy octets and RAM at import of each firmware module, beside their budgets
	@$(PY) -m tools.dev.size

footprint: venv ## heap of each module and phase on a 32-bit MicroPython under Node.js: minutes
	@$(PY) tools/dev/setup/node.py --require
	@$(PY) -m tools.dev.footprint

bench: venv ## handshakes and readings beside DTLS on the same interpreter, as ratios: 2 minutes (ROUNDS=3 for a quick pass)
	@ROUNDS='$(ROUNDS)' $(PY) -m tools.dev.bench.handshake

bench-compare: venv ## a new run of bench held against the kept one; a figure that is worse fails (ROUNDS=n)
	@ROUNDS='$(ROUNDS)' $(PY) -m tools.dev.bench.handshake --compare

bench-esp: venv ## octets, microseconds and heap of a reading, beside DTLS and TLS (ROUNDS=50 for a quick pass)
	@ROUNDS='$(ROUNDS)' $(PY) -m tools.dev.bench.esp

bench-loss: venv ## fragments and handshakes over links that lose: minutes (SEEDS=50 for a quick pass, PART=handshake)
	@SEEDS='$(SEEDS)' $(PY) -m tools.dev.bench.loss $(call flag,part,PART)

bench-storm: venv ## a thousand sensors whose gateway returns at one moment: minutes (SENSORS=200)
	@SENSORS='$(SENSORS)' $(PY) -m tools.dev.bench.storm

bench-idle: venv ## wake-ups, heap and datagrams of a minute in which a sensor says little
	@$(PY) -m tools.dev.bench.idle

bench-silence: venv ## readings that are lost when the gateway forgets its SAs: ten minutes
	@$(PY) -m tools.dev.bench.silence

bench-heap: venv ## the smallest heap with which a sensor comes up, for each key exchange
	@$(PY) -m tools.dev.bench.handshake_heap

bench-asm: venv ## machine code for an RP2040, run on an emulated one and counted: cycles, milliseconds
	@$(PY) -m tools.dev.bench.asm

#### Build

mpy: venv ## firmware as .mpy files, for one board or all (BOARD=RPI_PICO_W)
	@$(PY) -m tools.dev.build mpy $(BOARD)

romfs: venv ## the same as a ROMFS image, for boards with such a partition (BOARD=..)
	@$(PY) -m tools.dev.build romfs $(BOARD)

dist: venv ## all that one board gets in one folder, with sizes and SHA-256 (BOARD=..)
	@$(PY) -m tools.dev.build dist $(BOARD)

package: venv ## package.json, by which mip installs firmware/minipsec
	@$(PY) -m tools.dev.build package

docs: venv ## pictures and tables of the pages, made from the sources
	@$(PY) -m tools.dev.docs
