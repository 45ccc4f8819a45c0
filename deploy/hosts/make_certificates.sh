#!/usr/bin/env bash
# Makes an authority and certificates signed by it, for a Dask cluster that speaks TLS.
#
#   ./make_certificates.sh FOLDER NAME...
#
# FOLDER/ca.pem and FOLDER/NAME.pem may be seen by all; FOLDER/NAME-key.pem belongs to whoever
# uses it; FOLDER/ca-key.pem makes further certificates and stays where it was made.
# An authority that is there already signs the new names; nothing is replaced.
set -euo pipefail
if (($# < 2)); then
    sed -n '2,8s/^# \?//p' "$0" >&2
    exit 2
fi
folder=$1
shift
days=${DAYS:-365}
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
umask 077
mkdir -p "$folder"

for name in "$@"; do
    if [[ ! $name =~ ^[A-Za-z0-9._-]+$ || $name == ca ]]; then
        echo "not a name for a file of its own: '$name'" >&2
        exit 2
    fi
    if [[ -e $folder/$name.pem || -e $folder/$name-key.pem ]]; then
        echo "$folder/$name.pem is there: take another name, or remove it and its key" >&2
        exit 73
    fi
done

if [[ ! -e $folder/ca.pem ]]; then
    openssl req -x509 "${key[@]}" -days "$days" -subj "/CN=dask_em authority" \
        -addext "basicConstraints=critical,CA:TRUE" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$folder/ca-key.pem" -out "$folder/ca.pem" 2>/dev/null
fi

for name in "$@"; do
    openssl req -new "${key[@]}" -subj "/CN=$name" \
        -keyout "$folder/$name-key.pem" -out "$folder/$name.csr" 2>/dev/null
    # Every peer of a Dask cluster answers and calls.
    openssl x509 -req -in "$folder/$name.csr" -days "$days" \
        -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" -CAcreateserial \
        -extfile <(printf '%s\n' "basicConstraints=critical,CA:FALSE" \
            "keyUsage=critical,digitalSignature" "extendedKeyUsage=serverAuth,clientAuth" \
            "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid") \
        -out "$folder/$name.pem" 2>/dev/null
    rm "$folder/$name.csr"
    echo "$folder/$name.pem and $folder/$name-key.pem: valid for $days days"
done
