#!/usr/bin/env bash
# pytest-xdist 3.8.0, the newest, under pytest 9.2.0: `--dist loadgroup` has no effect. Tests of one `xdist_group` go to several
# workers, each of which makes what they share anew, and nothing warns. A good guess is that a group stays together, or that a
# version which it does not work with is refused. Under pytest 9.1.1 it stays together.
# Seen: pytest 9.1.1: 1 worker; pytest 9.2.0: 2 workers.
# Fails if the numbers of workers are others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/test_group.py" <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("i", range(12))
def test_of_one_group(i):
    time.sleep(0.1)
    with open("workers.txt", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PY
cd "$folder"
for version in 9.1.1 9.2.0; do
  venv/bin/pip install --quiet --disable-pip-version-check pytest=="$version" pytest-xdist==3.8.0
  rm -f workers.txt
  venv/bin/python -m pytest --quiet -p no:cacheprovider -n 2 --dist loadgroup test_group.py > /dev/null
  workers=$(sort -u workers.txt | wc -l)
  echo "pytest $version, pytest-xdist 3.8.0: the tests of one group ran in $workers worker(s)"
  test "$version: $workers" = "9.1.1: 1" || test "$version: $workers" = "9.2.0: 2" || { echo "no longer so"; exit 1; }
done
