"""Changes to a labels file."""

import json


def edit(folder, change):
    path = folder / "labels.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
