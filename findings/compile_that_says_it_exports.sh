#!/usr/bin/env bash
# torch 2.11.0: inside of a function under torch.compile, `torch.compiler.is_exporting()` is True, though nothing is exported: the
# tracer has a constant in its place. A good guess is that compiled code which asks "am I being exported?" hears no, as eager code
# does and as it does in 2.13.0. What a library does for exports alone (leave out an update of a buffer, refuse an option, choose
# plainer operators), it does in every compiled step there, without an error.
# Seen: torch 2.11.0: eager 0, compiled 1, exported 1; torch 2.13.0: 0, 0, 1.
# Fails if the numbers are others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/ask.py" <<'PY'
import torch


class Ask(torch.nn.Module):
    def forward(self, x):
        return x + torch.compiler.is_exporting()


ask, x = Ask(), torch.zeros(1)
compiled = torch.compile(Ask(), fullgraph=True, backend="eager")
exported = torch.export.export(Ask(), (x,)).module()
print(*(int(f(x)) for f in (ask, compiled, exported)))
PY
for version in 2.11.0 2.13.0; do
  python3 -m venv --clear "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch=="$version" 2> /dev/null
  seen=$("$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null)
  echo "torch $version: exporting, as seen by eager, compiled and exported code: $seen"
  test "$version: $seen" = "2.11.0: 0 1 1" || test "$version: $seen" = "2.13.0: 0 0 1" || { echo "no longer so"; exit 1; }
done
