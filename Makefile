# make help lists the targets. PYTHON= names the interpreter for a new .venv (3.10-3.13).
.DEFAULT_GOAL := help
.PHONY: help venv build demo test lint clean
PYTHON =
SOURCE =
TOPIC =
MODEL =
RATE =
OUT =
WORKERS = auto

# A ROS installation of the machine, sourced in this shell, would mix with the one in .venv.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH RMW_IMPLEMENTATION
ENTER = . requirements/enter.sh

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

venv:
	@sh requirements/install.sh "$(PYTHON)"

build: venv ## install everything into .venv and build the messages
	@sh requirements/build.sh

demo: build ## camera, segmenter and recorder, live: SOURCE=clip.mp4|0|rtsp://... TOPIC= MODEL= RATE= OUT=
	@$(ENTER) && python -m videomt_ros demo $(if $(SOURCE),--source "$(SOURCE)") \
	  $(if $(TOPIC),--topic "$(TOPIC)") $(if $(MODEL),--model "$(MODEL)") \
	  $(if $(RATE),--rate "$(RATE)") $(if $(OUT),--out "$(OUT)")

test: lint ## every test, in WORKERS= processes; by default one per core
	@$(ENTER) && VIDEOMT_REQUIRE_ROS=1 python -m pytest -n $(WORKERS) --dist loadfile \
	  --no-loadscope-reorder --durations 25

lint: build ## ruff check, ruff format, mypy
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check --quiet .
	@.venv/bin/python -m mypy

clean: ## remove .venv and everything built
	rm -rf .venv build install log
