#!/bin/sh
# A request by REST: sh request.sh [HOST:PORT]
curl --fail-with-body --silent --show-error \
  --data '$request' \
  "http://$${1:-127.0.0.1:8501}/v1/models/$name:predict"
