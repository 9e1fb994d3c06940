import copy
from pathlib import Path

import pytest
import yaml
from click import ClickException
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).resolve().parents[2] / "cluster.yaml"


@pytest.fixture
def config():
    return yaml.safe_load(FILE.read_text())


def test_rays_own_schema_accepts_the_file(config):
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    (node,) = prepared["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"max_worker": 2}, ValidationError, "'max_worker' was unexpected"),
        ({"cluster_name": 3}, ValidationError, "not of type 'string'"),
        (
            {"provider": {"type": "local", "head_ip": "192.0.2.10", "worker_ip": []}},
            ClickException,
            "worker_ips",
        ),
    ],
)
def test_a_misspelt_key_or_a_wrong_kind_is_rejected(config, change, error, words):
    with pytest.raises(error, match=words):
        validate_config(prepare_config({**config, **change}))


def test_every_ray_start_carries_the_token_mode_and_the_environment(config):
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = [line for line in config[key] if "ray start" in line]
        assert len(start) == 1
        assert "RAY_AUTH_MODE=token" in start[0]
        assert "/.venv/bin/activate" in start[0]


def test_what_makes_a_machine_travels_and_results_do_not(config):
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert {".venv", "runs", "cohorts"} <= set(config["rsync_exclude"])
