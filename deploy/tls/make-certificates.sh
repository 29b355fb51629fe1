#!/bin/sh
# Makes a certificate authority and a certificate for each part of a cluster:
#
#   make-certificates.sh FOLDER [DAYS]
#
# FOLDER gets ca.crt, ca.key, and a .crt and .key for each of mr-master, mr-worker, mr-proxy, and
# for the etcd of deploy/base (mr-etcd).
# Run again, it keeps the authority and renews the certificates: that is a rotation.
# Keep ca.key away from the cluster; whoever has it can be any part of it.
set -eu

folder=${1:?"usage: make-certificates.sh FOLDER [DAYS]"}
days=${2:-90}
umask 077
mkdir -p "$folder"
cd "$folder"

new_key() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

if [ ! -f ca.key ]; then
  new_key ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=mr" -out ca.crt \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

# NAME SUBJECT-ALTERNATIVE-NAMES
make() {
  # Under new names first: nobody reads half of a pair that is being made.
  new_key "$1.key.new"
  openssl req -new -key "$1.key.new" -subj "/CN=$1" -out "$1.csr"
  printf '%s\n' \
    "subjectAltName=$2" \
    "basicConstraints=critical,CA:FALSE" \
    "keyUsage=critical,digitalSignature" \
    "extendedKeyUsage=serverAuth,clientAuth" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial \
    -sha256 -days "$days" -extfile "$1.ext" -out "$1.crt.new" 2>/dev/null
  mv "$1.key.new" "$1.key"
  mv "$1.crt.new" "$1.crt"
  rm "$1.csr" "$1.ext"
}

# These three are known by what they are, wherever they run.
for role in mr-master mr-worker mr-proxy; do
  make "$role" "DNS:$role"
done
# etcd is known by where it is.
service=etcd.mr.svc
make mr-etcd "DNS:localhost,IP:127.0.0.1,DNS:etcd,DNS:*.etcd,DNS:$service,DNS:*.$service,DNS:*.$service.cluster.local"
