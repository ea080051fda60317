#!/bin/sh
# Packs the image with its bill of materials, the samples of deploy/ and checksums into one file, for a data centre without internet:
# bundle.sh [FOLDER [IMAGE]], by default into dist/.
set -eu
cd "$(dirname "$0")/../.."
into=${1:-dist}
image=${2:-external-storage-receiver:latest}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' receiver/__init__.py)
tag=external-storage-receiver:$version
name=external-storage-receiver-$version

mkdir -p "$into"
work=$(mktemp -d)
container=
trap 'rm -rf "$work"; test -z "$container" || $remove "$container" >/dev/null' EXIT
folder=$work/$name
mkdir "$folder"

if docker version >/dev/null 2>&1; then
    remove='docker rm --volumes'
    docker tag "$image" "$tag"
    docker save --output "$work/image.tar" "$tag"
    container=$(docker create "$tag")
    docker cp "$container:/usr/share/sbom/receiver.cdx.json" "$folder/"
else
    remove='buildah rm'
    number=$(buildah images --quiet "$image" | head -n 1)  # with a name, buildah would include the other names too, such as localhost/…
    buildah push --quiet "$number" "docker-archive:$work/image.tar:$tag"
    container=$(buildah from --pull-never "$image")
    cp "$(buildah mount "$container")/usr/share/sbom/receiver.cdx.json" "$folder/"
fi
gzip --no-name <"$work/image.tar" >"$folder/image.tar.gz"

cp -R deploy docs CHANGELOG.md CONTRIBUTING.md LICENSE README.md SECURITY.md "$folder/"
mkdir "$folder/keys"
cp keys/README.md "$folder/keys/"
sed "s/VERSION/$version/g" deploy/docker/INSTALL.txt >"$folder/INSTALL.txt"
(cd "$folder" && find . -type f | sed 's#^\./##' | LC_ALL=C sort | xargs sha256sum >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
(cd "$folder" && sha256sum --check --quiet --strict SHA256SUMS)
tar -cf "$into/$name.tar" --owner=0 --group=0 -C "$work" "$name"
ls -l "$into/$name.tar"
