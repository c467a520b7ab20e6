#!/usr/bin/env bash
# Fetches the libraries in vendor/ from the npm registry that this machine uses, with their licences.
set -euo pipefail
cd "$(dirname "$0")"
version=7.12.12
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
npm pack --silent --pack-destination "$folder" "wavesurfer.js@$version" > /dev/null
tar -xzf "$folder"/*.tgz -C "$folder"
cp "$folder/package/dist/wavesurfer.esm.js" vendor/wavesurfer.js
cp "$folder/package/LICENSE" vendor/wavesurfer.LICENSE
