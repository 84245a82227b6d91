#!/bin/bash
# Do the README's two commands work on a system that has nothing yet?  Makes a minimal root of a
# Debian or Ubuntu release, copies this checkout into it, and runs both commands there word for
# word: as root, and (but for the apt-get) as an ordinary user.  Removes the root in the end.
#
#     tests/fresh_root.sh SUITE [MIRROR]      such as bookworm, trixie, noble, resolute
#
# It wants root, debootstrap, and 2 GB in TMPDIR.  The mirror is debootstrap's own unless one is
# named; name servers, certificates and the settings of apt and pip are those of this machine.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
    # in name spaces of its own, whatever it mounts and starts is gone when it ends
    : "${1:?usage: tests/fresh_root.sh SUITE [MIRROR]}"
    root=$(mktemp -d)
    chmod 755 "$root"
    trap 'rm -rf --one-file-system "$root"' EXIT
    unshare --mount --pid --fork --kill-child --mount-proc "$0" --inside "$root" "$@"
    exit
fi
root=$2 suite=$3 mirror=${4:-}
project=$(cd "$(dirname "$0")/.." && pwd)

# ---- the root ----

scripts=/usr/share/debootstrap/scripts
script=$(readlink -e "$scripts/$suite") || script=$scripts/gutsy # a newer Ubuntu than it knows
options=(--variant=minbase)
if [ "${script##*/}" = gutsy ]; then
    options+=(--components=main,universe)
    # Debian has no package of Ubuntu's keys: this root is for a look, and then thrown away
    [ -e /usr/share/keyrings/ubuntu-archive-keyring.gpg ] || options+=(--no-check-gpg)
fi
debootstrap "${options[@]}" "$suite" "$root" "$mirror" "$script" >"$root.log" 2>&1 ||
    { cat "$root.log"; exit 1; }
rm "$root.log"

mount --bind "$root" "$root" # a mount point, as the root of a system is
mount -t proc proc "$root/proc"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
ln -sf pts/ptmx "$root/dev/ptmx"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates \
    /etc/apt/apt.conf.d/*prox*; do
    [ ! -e "$file" ] || { mkdir -p "$root${file%/*}" && cp -rL "$file" "$root${file%/*}/"; }
done
mapfile -t settings < <(env |
    grep -iE '^(PIP_(INDEX|EXTRA|TRUSTED|CERT|DEFAULT)|(https?|no)_proxy=)')

# ---- the commands ----

command_with() { # command_with WORDS: the README's shell command which has these words in it
    awk -v words="$1" '
        /^```sh$/ { inside = 1; block = ""; next }
        /^```$/ { if (inside && index(block, words)) { printf "%s", block; exit } inside = 0 }
        inside { block = block $0 "\n" }' "$project/README.md"
}

failed=0
try() { # try USER HOME PATH COMMAND: in the user's copy of this checkout, in the root
    printf '\n==== %s, as %s\n%s\n' "$suite" "$1" "$4"
    if chroot "$root" runuser -u "$1" -- env -i HOME="$2" USER="$1" LOGNAME="$1" SHELL=/bin/bash \
        PATH="$3" DEBIAN_FRONTEND=noninteractive "${settings[@]}" \
        bash -c "cd ~/checkout && $4" </dev/null; then
        printf '==== ok: %s, as %s\n' "$suite" "$1"
    else
        printf '==== FAILED: %s, as %s\n' "$suite" "$1"
        failed=1
    fi
}

copy() { # copy USER HOME: this checkout, as it is now
    mkdir "$root$2/checkout"
    (cd "$project" && git ls-files -z --cached --others --exclude-standard |
        xargs -0 sh -c 'ls -d -- "$@" 2>/dev/null' sh | tar --files-from=- -c) |
        tar -x -C "$root$2/checkout"
    chroot "$root" chown -R "$1:" "$2/checkout"
}

demo=$(command_with tests/demo.py)
tests=$(command_with pytest)
path=/usr/local/bin:/usr/bin:/bin
chroot "$root" useradd --create-home --shell /bin/bash alice
copy root /root
copy alice /home/alice
try root /root "/usr/local/sbin:/usr/sbin:/sbin:$path" "$demo"
try root /root "/usr/local/sbin:/usr/sbin:/sbin:$path" "$tests"
try alice /home/alice "$path" "$(sed '/^apt-get /d' <<<"$demo")"
try alice /home/alice "$path" "$(sed '/^apt-get /d' <<<"$tests")"
exit "$failed"
