#!/usr/bin/env bash
# build.sh FOLDER: builds the image into a container storage in FOLDER, without an engine that
# runs, on a stand-in for the base: Debian with the real one's user, Python's place and shell files.
# Prints the image's id; the rest goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$1
mkdir -p "$folder"
store=(--root "$folder/storage" --runroot "$folder/run" --storage-driver overlay)
base=localhost/rayproject/ray
tag=$(sed -n 's/^ARG BASE_TAG=//p' Dockerfile)

stand_in() {
    local context=$folder/base
    mkdir -p "$context"
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -e $sources ] || sources=/etc/apt/sources.list
    # The conda of the base comes first in its shells, and has a Ray of its own.
    # shellcheck disable=SC2016  # the hooks' shell knows $1
    mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        --customize-hook='chroot "$1" useradd --create-home --uid 1000 --gid 100 --shell /bin/bash ray' \
        --customize-hook='mkdir -p "$1/home/ray/anaconda3/bin"' \
        --customize-hook='ln -s /usr/bin/python3 "$1/home/ray/anaconda3/bin/python"' \
        --customize-hook='ln -s /bin/false "$1/home/ray/anaconda3/bin/ray"' \
        --customize-hook='echo "PATH=/home/ray/anaconda3/bin:\$PATH" >> "$1/home/ray/.bashrc"' \
        --customize-hook='rm -rf "$1"/etc/apt/sources.list*' \
        bookworm "$context/base.tar" $sources
    printf '%s\n' 'FROM scratch' 'ADD base.tar /' 'USER 1000' 'ENV HOME=/home/ray' \
        'ENV PATH=/home/ray/anaconda3/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        > "$context/Dockerfile"
    buildah "${store[@]}" bud --isolation chroot --format docker --tag "$base:$tag" "$context"
    rm -r "$context"
}

# The registry that this machine uses, as secrets, so that no layer has its address.
registry() {
    local index
    index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url || true)}}
    printf '%s\n' '[global]' 'cert = /etc/ssl/certs/ca-certificates.crt' > "$folder/pip.conf"
    printf '%s\n' 'system-certs = true' > "$folder/uv.toml"
    if [ -n "$index" ]; then
        echo "index-url = $index" >> "$folder/pip.conf"
        echo "index-url = \"$index\"" >> "$folder/uv.toml"
    fi
}

{
    buildah "${store[@]}" inspect --type image "$base:$tag" > /dev/null 2>&1 || stand_in
    registry
    buildah "${store[@]}" bud --isolation chroot --pull-never --layers --format docker \
        --build-arg "BASE_IMAGE=$base" --iidfile "$folder/image" \
        --secret "id=pip.conf,src=$folder/pip.conf" --secret "id=uv.toml,src=$folder/uv.toml" \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro \
        --volume "$(.venv/bin/uv cache dir):/var/cache/uv" \
        .
    rm "$folder/pip.conf" "$folder/uv.toml"
} >&2
cat "$folder/image"
