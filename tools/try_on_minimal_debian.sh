#!/usr/bin/env bash
# Run `make run` on a Debian 12 that has what the README lists and nothing else:
#
#     sudo tools/try_on_minimal_debian.sh FOLDER [COMMAND ...]
#
# FOLDER becomes that Debian (9 GB in the end), with the last commit in /project; one
# that is there already is used again. COMMAND runs in it instead of `make run`.
# Variables: PACKAGES, with commas, instead of the README's; MIRROR of Debian's packages.
set -euo pipefail

readme=python3,python3-venv,libpython3.11,make,curl,openssl,ca-certificates
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- make run

if [ ! -e "$folder/etc/debian_version" ]; then
    debootstrap --variant=minbase --include="${PACKAGES:-$readme}" bookworm "$folder" \
        ${MIRROR:+"$MIRROR"}
fi
mkdir -p "$folder/project"
find "$folder/project" -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
git -C "$root" archive HEAD | tar --extract --directory "$folder/project"

# The mounts are those of a namespace of its own: they go with its last process.
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec unshare --mount --pid --fork --kill-child sh -euc '
    mount -t proc proc "$0/proc"
    mount --rbind /dev "$0/dev"
    exec chroot "$0" env --chdir=/project "$@"
' "$folder" "$@"
