#!/bin/sh
# Gathers the content of the image in the folder $1: the environment in /opt/receiver, Debian's Python, and their dependencies.
# Runs in the build stage; `make image-test` imports every compiled module, so it finds a library that is missing here.
set -eu
root=$1

packages='base-files ca-certificates libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal
 libpython3.11-stdlib libsqlite3-0 libssl3 libuuid1 python3.11-minimal zlib1g'

# In Debian, /lib and others are links; its packages still name files below them.
mkdir -p /data "$root/usr/share/sbom" "$root/var/lib/dpkg" "$root/etc/ssl/certs" "$root/opt"
for name in bin lib lib64 sbin; do
    if [ -L /$name ]; then mkdir -p "$root/usr/$name"; ln -s "usr/$name" "$root/$name"; fi
done
mkdir "$root/dev" "$root/keys" "$root/proc" "$root/run" "$root/sys"
mkdir -m 1777 "$root/tmp"

# Libraries, Python, and all licences; without iconv's character sets, Python's modules for terminals, Berkeley DB
# and NIS, its own tests, and its help texts.
dpkg-query --listfiles $packages | sort -u |
    grep -E '^/(usr/)?lib(64)?/|^/usr/bin/python3.11$|^/etc/python3.11/|^/etc/(os-release|debian_version)$|/copyright$|/common-licenses' |
    grep -Ev '/(gconv|systemd|binfmt.d|perl5|engines-3|pydoc_data)(/|$)|/lib-dynload/(_curses|_dbm|_test|_ctypes_test|_xx|nis|readline|xx)' |
    tar --create --no-recursion --files-from - 2>/dev/null |
    tar --extract --keep-directory-symlink --directory "$root"
dpkg-query --status $packages >"$root/var/lib/dpkg/status"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf '%s\n' root:x:0:0:root:/:/nologin receiver:x:10001:10001:receiver:/data:/nologin >"$root/etc/passwd"
printf '%s\n' root:x:0: receiver:x:10001: >"$root/etc/group"

# The environment, without what only developers need.
cp -a /opt/receiver "$root/opt/"
cd "$root/opt/receiver"
find bin -type f ! -name receiver ! -name gunicorn ! -name sqlite-utils -delete
rm -rf include share
find lib \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.c' -o -name '*.h' \) -type f -delete
find lib -type d \( -name testing -o -name tests \) -prune -exec rm -r {} +
# The wheels' own libraries, in *.libs, were stripped before they got their names.
find lib -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +

# The bytecode is compiled here once, and never compared with its source: nobody can write to either.
find "$root" -name __pycache__ -prune -exec rm -r {} +
python3.11 -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / \
    "$root/etc/python3.11" "$root/usr/lib/python3.11" "$root/opt/receiver"
