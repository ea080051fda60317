"""deploy/compose: what Compose's own loader makes of it, what it takes away from containers, and a receiver in its environment."""

import ipaddress
import json
import os
import re
import shutil
import subprocess

import pytest

from receiver import __version__
from tests.support import certificates, deployments, servers
from tests.support.deployed_proxies import Platform, replaced, write_nginx
from tests.support.deployments import DEPLOY, seconds
from tests.support.platform_client import loaded
from tests.support.servers import needed

FOLDER = DEPLOY / "compose"
SECRETS_GROUP = "10001"


def loaded_by_compose(folder=FOLDER, check=True) -> dict | str:
    """Return the model that Compose's loader makes of compose.yaml, or what it says against it."""
    needed("compose-spec")
    ran = subprocess.run(
        [servers.program("compose-spec"), "--format=json", str(folder / "compose.yaml")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if not check:
        assert ran.returncode == 1
        return ran.stderr
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def model():
    return loaded_by_compose()


@pytest.fixture(params=["receiver", "database", "proxy"])
def service(request, model):
    return model["services"][request.param]


def mounts(service) -> dict[str, dict]:
    return {mount["target"]: mount for mount in service["volumes"]}


def test_the_loader_refuses_a_word_that_is_none(tmp_path):
    text = (FOLDER / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(
        text.replace("stop_grace_period: 45s  # STORAGE", "stop_grace: 45s  # STORAGE")
    )
    assert "stop_grace" in loaded_by_compose(tmp_path, check=False)


def test_there_are_three_services_and_only_nginx_is_published(model):
    services = model["services"]
    assert services.keys() == {"receiver", "database", "proxy"}
    (port,) = services["proxy"]["ports"]
    assert (port["published"], port["target"]) == ("443", 443)
    assert not [name for name in ("receiver", "database") if "ports" in services[name]]


def test_every_service_is_read_only_without_capabilities_and_bounded(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["tmpfs"]


def test_images_have_tags_and_the_receiver_s_is_this_version(model, service):
    tag = service["image"].rsplit(":", 1)[1]
    assert re.match(r"\d", tag)
    receiver = model["services"]["receiver"]
    assert receiver["image"] == f"external-storage-receiver:{__version__}"
    assert f"RECEIVER_TAG={__version__}\n" in (FOLDER / "env.example").read_text()
    assert receiver["pull_policy"] == "never"  # nobody else's image of that name


def test_the_receiver_is_built_from_the_repository_with_its_dockerfile(model):
    build = model["services"]["receiver"]["build"]
    assert build["context"] == str(DEPLOY.parent)
    text = (DEPLOY.parent / build["dockerfile"]).read_text()
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == model["services"]["receiver"]["user"]


def test_each_waits_until_the_one_behind_it_is_healthy(model):
    services = model["services"]
    assert services["proxy"]["depends_on"]["receiver"]["condition"] == "service_healthy"
    assert services["receiver"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["receiver"]["healthcheck"]["test"] == ["CMD", "receiver", "health"]


def test_the_receiver_gets_the_time_to_drain_and_to_finish(model):
    receiver = model["services"]["receiver"]
    told = receiver["environment"]
    needs = seconds(told["STORAGE_DRAIN"]) + seconds(told["STORAGE_GRACEFUL_TIMEOUT"])
    assert seconds(receiver["stop_grace_period"]) >= needs + 10


def test_only_the_proxy_has_a_way_out_and_only_the_receiver_reaches_the_database(model):
    services, networks = model["services"], model["networks"]
    outside = {name for name, network in networks.items() if not network.get("internal")}
    assert outside == {"edge"}
    members = {name: {one for one, service in services.items() if name in service["networks"]} for name in networks}
    assert members == {"edge": {"proxy"}, "front": {"proxy", "receiver"}, "back": {"receiver", "database"}}


def test_the_receiver_keeps_its_address_where_nginx_is_trusted(model):
    receiver = model["services"]["receiver"]
    (place,) = model["networks"]["front"]["ipam"]["config"]
    assert receiver["environment"]["STORAGE_TRUSTED_PROXIES"] == place["subnet"]
    network, address = ipaddress.ip_network(place["subnet"]), receiver["networks"]["front"]["ipv4_address"]
    assert ipaddress.ip_address(address) in network
    # One variable moves all that the subnet is written in.
    text = (FOLDER / "compose.yaml").read_text()
    assert text.count(f"${{FRONT_SUBNET:-{network}}}") == 2
    assert text.count(f"${{RECEIVER_ADDRESS:-{address}}}") == 1
    example = (FOLDER / "env.example").read_text()
    assert f"# FRONT_SUBNET={network}\n# RECEIVER_ADDRESS={address}\n" in example


def test_secrets_are_files_that_one_group_may_read(model):
    services = model["services"]
    assert model["secrets"].keys() == {"database-password"}
    told = {**services["receiver"]["environment"], **services["database"]["environment"]}
    for name in ("DATABASE_PASSWORD_FILE", "POSTGRES_PASSWORD_FILE"):
        assert told[name] == "/run/secrets/database-password"
    assert "DATABASE_PASSWORD" not in told
    assert "POSTGRES_PASSWORD" not in told
    assert services["receiver"]["user"].endswith(f":{SECRETS_GROUP}")
    for name in ("database", "proxy"):
        assert services[name]["group_add"] == [SECRETS_GROUP]
    assert f"chgrp -R {SECRETS_GROUP} secrets" in (FOLDER / "README.md").read_text()


def test_what_comes_from_the_host_is_read_only_and_has_to_be_there(model):
    for service in model["services"].values():
        for mount in service["volumes"]:
            if mount["type"] == "bind":
                assert mount["read_only"] is True
                assert mount["bind"]["create_host_path"] is False
    database = mounts(model["services"]["database"])["/var/lib/postgresql/data"]
    assert (database["type"], database["source"]) == ("volume", "database")
    assert "database" in model["volumes"]


def test_every_variable_is_one_that_the_receiver_knows(model):
    assert not deployments.unknown(model["services"]["receiver"]["environment"])


@pytest.fixture
def told(model, keys, tmp_path):
    """The environment of the receiver's container, its folders below ``tmp_path``."""
    receiver = model["services"]["receiver"]
    deployments.key_folder(tmp_path / "keys", keys)
    (tmp_path / "database-password").write_text("made up\n")
    folders = {
        receiver["environment"]["STORAGE_KEYS"]: tmp_path / "keys",
        "/run/secrets/database-password": tmp_path / "database-password",
    }
    assert mounts(receiver)[receiver["environment"]["STORAGE_KEYS"]]["source"] == str(FOLDER / "secrets" / "keys")
    return deployments.mapped(deployments.image_environment() | receiver["environment"], folders)


def test_the_receiver_s_own_reader_finds_no_mistake_in_the_environment(told):
    assert deployments.mistakes_in(told) == []


def test_a_receiver_in_the_container_s_environment_uses_the_database(
    model, told, postgresql, platform_at, state, tmp_path
):
    database = model["services"]["database"]
    place = re.fullmatch(r"postgresql://database:5432/(\w+)", told["DATABASE_URL"])
    assert place[1] == database["environment"]["POSTGRES_DB"]
    assert told["DATABASE_USERNAME"] == database["environment"]["POSTGRES_USER"]
    (tmp_path / "database-password").write_text(f"{postgresql.password}\n")
    public, admin = servers.free_port(), servers.free_port()
    told |= {
        "DATABASE_URL": f"postgresql://127.0.0.1:{postgresql.port}/{postgresql.new_database()}",
        "PORT": str(public),
        "STORAGE_ADMIN_BIND": f"0.0.0.0:{admin}",
        "STORAGE_PUBLIC_PREFIX": "",
        "STORAGE_DRAIN": "0",
    }
    with deployments.started(tmp_path, told, "serve") as running:
        assert deployments.asked(f"http://127.0.0.1:{admin}/readyz")[0] == 200, running.said()
        (kind, *health) = model["services"]["receiver"]["healthcheck"]["test"]
        assert (kind, health[0]) == ("CMD", "receiver")
        (tmp_path / "health").mkdir()
        with deployments.started(tmp_path / "health", told, *health[1:]) as asking:
            assert asking.process.wait(30) == 0, asking.said()
        client = platform_at(f"http://127.0.0.1:{public}")
        assert client.save(state).status == 204
        assert loaded(client, state["id"]) == state["content"]
        platform_at.close()
        assert running.stop() == 0


def nginx_conf(folder) -> str:
    """Make nginx.conf in a copy of the folder, by the command of the README; return it."""
    shutil.copytree(FOLDER, folder / "compose")
    shutil.copytree(DEPLOY / "proxy", folder / "proxy")
    command = re.search(r"^sed .*?> nginx\.conf$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    subprocess.run(["sh", "-ec", command], cwd=folder / "compose", check=True)
    return (folder / "compose" / "nginx.conf").read_text()


def test_the_command_of_the_readme_makes_nginx_s_file_of_the_sample(model, tmp_path):
    text = nginx_conf(tmp_path)
    assert re.findall(r"^\s+server ([\w.-]+):(\d+)", text, re.MULTILINE) == [
        ("receiver", model["services"]["receiver"].get("environment", {}).get("PORT", "8080"))
    ]
    proxy = model["services"]["proxy"]
    assert mounts(proxy)["/etc/nginx/conf.d/default.conf"]["source"] == str(FOLDER / "nginx.conf")
    names = set(re.findall(r"^\s+ssl_certificate(?:_key)?\s+(\S+);", text, re.MULTILINE))
    assert {os.path.dirname(name) for name in names} == {"/etc/nginx/tls"} <= mounts(proxy).keys()
    readme = (FOLDER / "README.md").read_text()
    for name in names:
        assert f"secrets/tls/{os.path.basename(name)}" in readme
    assert re.findall(r"access_log (\S+)", text) == ["/dev/stdout"]  # the root is read-only
    prefix = model["services"]["receiver"]["environment"]["STORAGE_PUBLIC_PREFIX"]
    assert f"location {prefix}/api/storage/1/ {{" in text


def test_a_save_goes_through_nginx_with_that_file_to_a_receiver_in_the_container_s_environment(
    told, keys, tenant, state, tmp_path
):
    needed("nginx")
    folder = tmp_path / "nginx"
    folder.mkdir()
    certificates.write(folder, "flow")
    public, port = servers.free_port(), servers.free_port()
    changes = {
        "server receiver:8080": f"server 127.0.0.1:{public}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen [::]:443 ssl;": "",
        "/etc/nginx/tls/flow.pem": f"{folder}/flow.pem",
        "/etc/nginx/tls/flow.key": f"{folder}/flow.key",
        "/dev/stdout": f"{folder}/access.log",
    }
    command = write_nginx(folder, replaced(nginx_conf(tmp_path), changes))
    told |= {
        "PORT": str(public),
        "STORAGE_ADMIN_BIND": "127.0.0.1:0",
        "DATABASE_URL": f"sqlite:///{tmp_path}/states.db",
    }
    told |= {"STORAGE_TRUSTED_PROXIES": "127.0.0.1", "STORAGE_DRAIN": "0"}
    with deployments.started(tmp_path, told, "serve") as running, open(folder / "output.log", "w") as log:
        deployments.asked(f"http://127.0.0.1:{public}/flow/api/storage/1/health")
        proxy = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            client = Platform(f"https://127.0.0.1:{port}/flow", tenant, keys)
            assert deployments.eventually(client.health).status == 200, (folder / "output.log").read_text()
            assert client.save(state).status == 204, running.said()
            assert loaded(client, state["id"]) == state["content"]
            client.close()
        finally:
            proxy.terminate()
            proxy.wait(30)
