#!/bin/sh
# Builds the image with Docker if an engine answers, else with buildah: external-storage-receiver, tagged with its version and "latest".
set -eu
cd "$(dirname "$0")/../.."
name=external-storage-receiver
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' receiver/__init__.py)
revision=$(git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null || echo unknown)
created=$(git log -1 --format=%cI 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)

set -- --file deploy/docker/Dockerfile --tag $name:"$version" --tag $name:latest \
    --build-arg VERSION="$version" --build-arg REVISION="$revision" --build-arg CREATED="$created" .
if docker version >/dev/null 2>&1; then
    docker build "$@"
else
    # OCI's own format has no health check; a layer for each line would only be copied needlessly.
    buildah bud --format docker --layers=false --pull=false "$@"
fi
