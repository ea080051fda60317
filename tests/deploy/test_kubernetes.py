"""The manifests under deploy/kubernetes: as they are rendered, what the schemas say, and a receiver in their environment."""

import base64
import functools
import json
import re
import shutil
import stat
import subprocess

import kubernetes_validate
import pytest
import yaml

from receiver import __version__
from tests.support import deployments, servers
from tests.support.deployments import DEPLOY
from tests.support.platform_client import loaded
from tests.support.servers import needed

FOLDER = DEPLOY / "kubernetes"
OVERLAYS = ("sqlite", "postgresql")
VERSIONS = ("1.30", "1.37")  # the oldest that preStop needs, the newest that kubernetes-validate has
SECRET_FILES = {
    "platform.json": '{"kty": "EC"}',
    "receiver.json": '{"kty": "EC"}',
    "sealing.json": '{"kty": "oct"}',
    "database-password": "made up",
    "database-ca.pem": "made up",
}


def a_site(folder):
    """Make a copy of the example below ``folder`` as the README says, with made-up secrets; return it."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    shutil.copytree(folder / "example", folder / "production")
    for name, text in SECRET_FILES.items():
        (folder / "production" / "keys" / name).write_text(text)
    return folder / "production"


def built(folder) -> list[dict]:
    """Return the objects of the kustomization in ``folder``, by kubectl's own kustomize or the one apart."""
    command = ["kubectl", "kustomize"]
    if not servers.program("kubectl"):
        needed("kustomize")
        command = ["kustomize", "build"]
    ran = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr  # what is deprecated is a warning
    return list(yaml.safe_load_all(ran.stdout))


@functools.cache
def overlay(name: str) -> list[dict]:
    return built(FOLDER / "overlays" / name)


@pytest.fixture(params=OVERLAYS)
def objects(request):
    return overlay(request.param)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The objects of a site on PostgreSQL."""
    return built(a_site(tmp_path_factory.mktemp("site")))


def one(objects, kind, name=None):
    """Return the only object of ``kind``, or the only one of that ``name``."""
    found = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, (kind, name, [each["metadata"]["name"] for each in found])
    return found[0]


def workload(objects):
    return next(each for each in objects if each["kind"] in ("Deployment", "StatefulSet"))


def templates(objects) -> list[dict]:
    """Return the templates of all pods: the receiver's first."""
    return [workload(objects)["spec"]["template"], one(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]]


def container(template):
    (only,) = template["spec"]["containers"]
    return only


def environment(objects, template) -> dict[str, str]:
    """Return what the container of ``template`` is told: by the image, by the ConfigMap, by its own lines."""
    found = deployments.image_environment()
    for source in container(template).get("envFrom", []):
        if "configMapRef" in source:
            found |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {entry["name"]: entry["value"] for entry in container(template).get("env", [])}


def matches(selector, labels) -> bool:
    return selector.items() <= labels.items()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_rendered_fits_the_schemas_of_kubernetes(objects, site, version):
    for each in [*objects, *site]:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_newest_schemas_are_the_ones_tried():
    assert VERSIONS[-1] == kubernetes_validate.latest_version().rsplit(".", 1)[0]


def test_the_schemas_refuse_a_word_that_is_none(objects):
    spoiled = json.loads(json.dumps(workload(objects)))
    container(spoiled["spec"]["template"])["lifecycle"]["preStop"]["slep"] = {"seconds": 5}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoiled, VERSIONS[-1], strict=True)


def test_sqlite_is_a_stateful_set_of_one_with_a_volume_of_its_own():
    objects = overlay("sqlite")
    found = one(objects, "StatefulSet")
    assert found["spec"]["replicas"] == 1
    assert found["spec"]["serviceName"] == one(objects, "Service")["metadata"]["name"]
    (claim,) = found["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    mount = next(each for each in container(templates(objects)[0])["volumeMounts"] if each["name"] == "data")
    assert environment(objects, templates(objects)[0])["DATABASE_URL"].startswith(f"sqlite:///{mount['mountPath']}/")
    # A budget would keep the only pod from ever being moved.
    assert not [each for each in objects if each["kind"] == "PodDisruptionBudget"]


def test_the_purge_of_sqlite_runs_on_the_machine_and_volume_of_the_receiver():
    objects = overlay("sqlite")
    purge, found = templates(objects)[1], one(objects, "StatefulSet")
    claim = next(each for each in purge["spec"]["volumes"] if each["name"] == "data")["persistentVolumeClaim"]
    assert claim["claimName"] == f"{found['spec']['volumeClaimTemplates'][0]['metadata']['name']}-receiver-0"
    (term,) = purge["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert matches(term["labelSelector"]["matchLabels"], found["spec"]["template"]["metadata"]["labels"])


def test_postgresql_has_three_replicas_that_are_replaced_one_by_one_and_lie_apart():
    objects = overlay("postgresql")
    found = one(objects, "Deployment")["spec"]
    labels = found["template"]["metadata"]["labels"]
    assert found["replicas"] == 3
    assert found["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert matches(budget["selector"]["matchLabels"], labels)
    pod = found["template"]["spec"]
    (term,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (spread,) = pod["topologySpreadConstraints"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    for selector in (term["podAffinityTerm"]["labelSelector"], spread["labelSelector"]):
        assert matches(selector["matchLabels"], labels)


def test_labels_and_selectors_agree_and_the_purge_gets_no_traffic(objects):
    server, purge = (template["metadata"]["labels"] for template in templates(objects))
    assert matches(workload(objects)["spec"]["selector"]["matchLabels"], server)
    service = one(objects, "Service")["spec"]["selector"]
    assert matches(service, server)
    assert not matches(service, purge)
    policy = one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert policy
    assert matches(policy, server)
    assert matches(policy, purge)


def test_ports_of_service_probes_and_policy_are_those_that_the_receiver_listens_on(objects):
    found, environ = container(templates(objects)[0]), environment(objects, templates(objects)[0])
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    host, admin = environ["STORAGE_ADMIN_BIND"].rsplit(":", 1)
    assert ports == {"http": int(environ["PORT"]), "admin": int(admin)}
    assert host == "0.0.0.0", "the kubelet calls the pod's address, not loopback"
    assert "STORAGE_BIND" not in environ
    (port,) = one(objects, "Service")["spec"]["ports"]
    assert (port["targetPort"], port["port"]) == ("http", ports["http"])
    probes = {kind: found[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",  # not /readyz: a database that is down at the start must not restart the pod
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    annotations = templates(objects)[0]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == admin
    assert annotations["prometheus.io/path"] == "/metrics"


def test_only_the_ingress_controller_and_prometheus_come_in(objects):
    environ = environment(objects, templates(objects)[0])
    policy = one(objects, "NetworkPolicy")["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    allowed = {
        (source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in policy["ingress"]
        for source in rule["from"]
        for port in rule["ports"]
    }
    admin = int(environ["STORAGE_ADMIN_BIND"].rsplit(":", 1)[1])
    assert allowed == {("ingress-nginx", int(environ["PORT"])), ("monitoring", admin)}


def test_nothing_goes_out_but_to_dns_and_the_database():
    assert one(overlay("sqlite"), "NetworkPolicy")["spec"]["egress"] == []
    objects = overlay("postgresql")
    dns, database = one(objects, "NetworkPolicy")["spec"]["egress"]
    assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    url = environment(objects, templates(objects)[0])["DATABASE_URL"]
    namespace, port = re.search(r"@?[\w-]+\.([\w-]+)\.svc:(\d+)/", url).groups()
    assert database["ports"] == [{"protocol": "TCP", "port": int(port)}]
    (target,) = database["to"]
    assert target["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace


def test_pods_need_no_privilege(objects):
    for template in templates(objects):
        pod, found = template["spec"], container(template)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {pod["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert found["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert found["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in found["resources"]["limits"]


def test_the_user_is_the_image_s(objects):
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    user = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)[-1]
    context = templates(objects)[0]["spec"]["securityContext"]
    assert user == (str(context["runAsUser"]), str(context["runAsGroup"]))
    assert 'ENTRYPOINT ["receiver"]' in text, "args name the command of the receiver only"


def test_the_image_has_the_tag_of_this_version_and_never_latest(objects, site):
    for template in (*templates(objects), *templates(site)):
        name, tag = container(template)["image"].rsplit(":", 1)
        assert name.endswith("external-storage-receiver")
        assert tag == __version__


def test_a_pod_gets_the_time_to_drain_and_to_finish(objects, site):
    for found in (objects, site):
        template, environ = templates(found)[0], environment(found, templates(found)[0])
        wait = container(template)["lifecycle"]["preStop"]
        assert wait == {"sleep": {"seconds": 5}}  # by the kubelet: the image has no shell
        needs = wait["sleep"]["seconds"] + float(environ["STORAGE_DRAIN"]) + float(environ["STORAGE_GRACEFUL_TIMEOUT"])
        assert template["spec"]["terminationGracePeriodSeconds"] >= needs + 10
        readiness = container(template)["readinessProbe"]
        noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
        assert float(environ["STORAGE_DRAIN"]) >= noticed, "the listener would close before readiness is seen to fail"


def test_keys_and_passwords_are_files_for_the_group_only(objects):
    template = templates(objects)[0]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    mounts = {mount["name"]: mount for mount in container(template)["volumeMounts"]}
    assert mounts["keys"]["mountPath"] == environment(objects, template)["STORAGE_KEYS"]
    secrets = {name: volume["secret"] for name, volume in volumes.items() if "secret" in volume}
    assert "keys" in secrets
    for name, secret in secrets.items():
        assert secret["defaultMode"] == stat.S_IRUSR | stat.S_IRGRP  # fsGroup is the group
        assert mounts[name]["readOnly"] is True
    # The purge needs no key.
    assert not [each for each in templates(objects)[1]["spec"]["volumes"] if each["name"] == "keys"]


def test_what_the_receiver_writes_to_is_mounted(objects):
    template = templates(objects)[0]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(template)["volumeMounts"]}
    run = volumes[mounts[environment(objects, template)["STORAGE_RUN_DIR"]]]
    assert run["emptyDir"]["medium"] == "Memory"
    assert "emptyDir" in volumes[mounts["/tmp"]]


def test_every_variable_is_one_that_the_receiver_knows(objects, site):
    for found in (objects, site):
        for template in templates(found):
            names = {entry["name"] for entry in container(template).get("env", [])}
            assert not deployments.unknown(names | environment(found, template).keys())
    example = yaml.safe_load((FOLDER / "example" / "kustomization.yaml").read_text())
    assert example["configMapGenerator"][0]["name"] == "receiver-settings"


def test_the_java_service_s_variables_go_before_the_config_map(objects):
    for template in templates(objects):
        config, secret = container(template)["envFrom"]
        assert "configMapRef" in config
        assert secret == {"secretRef": {"name": "receiver-environment", "optional": True}}
        assert not {"DATABASE_URL", "DATABASE_USERNAME"} & {
            entry["name"] for entry in container(template).get("env", [])
        }


def folders_of(tmp_path, keys) -> dict:
    """Make the folders that a pod mounts under ``tmp_path``; return path in the pod → folder."""
    deployments.key_folder(tmp_path / "keys", keys)
    for name in ("data", "database", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "database" / "password").write_text("made up\n")
    (tmp_path / "database" / "ca.crt").write_text("made up\n")
    names = {"/keys": "keys", "/data": "data", "/database": "database", "/run/receiver": "run"}
    return {path: tmp_path / name for path, name in names.items()}


def test_the_receiver_s_own_reader_finds_no_mistake_in_the_environment(objects, site, keys, tmp_path):
    folders = folders_of(tmp_path, keys)
    for found in (objects, site):
        for template in templates(found):
            environ = deployments.mapped(environment(found, template), folders)
            assert deployments.mistakes_in(environ) == []


def port_in(text: str, port: int) -> str:
    return re.sub(r"\d+$", str(port), text)


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_a_receiver_in_the_pod_s_environment_answers_its_probes_and_the_platform(
    name, keys, platform_at, state, tmp_path, request
):
    objects = overlay(name)
    template = templates(objects)[0]
    environ = deployments.mapped(environment(objects, template), folders_of(tmp_path, keys))
    public, admin = servers.free_port(), servers.free_port()
    environ |= {
        "PORT": str(public),
        "STORAGE_ADMIN_BIND": port_in(environ["STORAGE_ADMIN_BIND"], admin),
        "STORAGE_DRAIN": "0",
    }
    if name == "postgresql":
        server = request.getfixturevalue("postgresql")
        (tmp_path / "database" / "password").write_text(f"{server.password}\n")
        environ["DATABASE_URL"] = f"postgresql://127.0.0.1:{server.port}/{server.new_database()}"
    with deployments.started(tmp_path, environ, *container(template)["args"]) as running:
        for kind in ("startup", "liveness", "readiness"):
            path = container(template)[f"{kind}Probe"]["httpGet"]["path"]
            status, body = deployments.asked(f"http://127.0.0.1:{admin}{path}")
            assert status == 200, (path, body, running.said())
        client = platform_at(f"http://127.0.0.1:{public}")
        assert client.save(state).status == 204
        assert loaded(client, state["id"]) == state["content"]
        platform_at.close()
        purge = deployments.mapped(environment(objects, templates(objects)[1]), {"/data": tmp_path / "data"})
        purge = {key: environ.get(key, value) for key, value in purge.items()}
        with deployments.started(tmp_path / "run", purge, *container(templates(objects)[1])["args"]) as ran:
            assert ran.process.wait(30) == 0, ran.said()
            assert ran.said() == "0 expired states deleted\n"
        assert running.stop() == 0


def test_a_site_s_secrets_have_the_names_that_pods_mount(site):
    template = templates(site)[0]
    mounted = {volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume}
    secrets = {each["metadata"]["name"]: each for each in site if each["kind"] == "Secret"}
    assert mounted == secrets.keys()
    held = set(secrets["receiver-keys"]["data"])
    assert held == {"platform.json", "receiver.json", "sealing.json"}
    database = secrets[next(name for name in secrets if name != "receiver-keys")]["data"]
    assert base64.b64decode(database["password"]) == SECRET_FILES["database-password"].encode()
    url = environment(site, template)["DATABASE_URL"]
    assert url.endswith("/database/ca.crt")
    assert "ca.crt" in database


def test_a_site_on_sqlite_is_made_by_leaving_out_what_the_example_says(tmp_path):
    folder = a_site(tmp_path)
    example = yaml.safe_load((folder / "kustomization.yaml").read_text())
    example["resources"] = [name.replace("overlays/postgresql", "overlays/sqlite") for name in example["resources"]]
    (settings,) = example["configMapGenerator"]
    settings["literals"] = [line for line in settings["literals"] if not line.startswith("DATABASE_")]
    example["secretGenerator"] = example["secretGenerator"][:1]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(example))
    objects = built(folder)
    for each in objects:
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    told = environment(objects, templates(objects)[0])
    assert told["DATABASE_URL"] == environment(overlay("sqlite"), templates(overlay("sqlite"))[0])["DATABASE_URL"]
    assert "STORAGE_TRUSTED_PROXIES" in told
    secrets = {each["metadata"]["name"] for each in objects if each["kind"] == "Secret"}
    volumes = templates(objects)[0]["spec"]["volumes"]
    assert secrets == {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} == {"receiver-keys"}


def test_the_readme_puts_the_files_where_the_example_looks_for_them():
    readme = (FOLDER / "README.md").read_text()
    example = (FOLDER / "example" / "kustomization.yaml").read_text()
    files = re.findall(r"\bkeys/[\w.-]+$", example, re.MULTILINE)
    assert {name.removeprefix("keys/") for name in files} == SECRET_FILES.keys()
    assert not [name for name in files if name not in readme]
    assert f"external-storage-receiver:{__version__} " in readme


def test_a_new_setting_or_password_rolls_out_and_a_new_key_does_not(site):
    names = {each["metadata"]["name"] for each in site if each["kind"] in ("ConfigMap", "Secret")}
    assert "receiver-keys" in names
    assert not {"receiver-settings", "receiver-database"} & names  # a hash of what they hold is part of their names


def test_the_site_lies_in_a_namespace_that_allows_the_least(site):
    namespace = one(site, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    places = {each["metadata"].get("namespace") for each in site if each["kind"] != "Namespace"}
    assert places == {namespace["metadata"]["name"]}


def test_the_ingress_leads_to_the_api_alone_and_lets_large_bodies_through(site):
    ingress = one(site, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["path"] == "/api/storage/1"
    assert path["backend"]["service"]["name"] == one(site, "Service")["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] == one(site, "Service")["spec"]["ports"][0]["name"]
    (tls,) = ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]
    sizes = {value for name, value in ingress["metadata"]["annotations"].items() if "body-size" in name}
    settings, _ = deployments.read(environment(site, templates(site)[0]))
    assert {int(size.removesuffix("m")) << 20 > settings.max_body for size in sizes} == {True}
    assert not [name for name in ingress["metadata"]["annotations"] if "rewrite" in name]


def test_no_secret_lies_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "deploy"], cwd=DEPLOY.parent, capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed
    assert not [name for name in listed if re.search(r"/(keys|secrets)/(?!\.gitignore)", name)]
