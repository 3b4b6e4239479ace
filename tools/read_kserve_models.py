"""Read the schema of KServe's resources out of its Python package.

The package cannot be installed beside this project's (it wants older pandas, psutil and
protobuf), and only its models are needed:

    pip download --no-deps kserve==0.21.0
    python tools/read_kserve_models.py kserve-0.21.0-py3-none-any.whl

writes tests/data/kserve_models.json: for each model that an InferenceService or a
ServingRuntime can hold, the name in YAML and the type of each field, and which ones
are required.
"""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path

ROOTS = "V1beta1InferenceService", "V1alpha1ServingRuntime"


def read(source):
    """Name and fields of the model class in a file of the package."""
    (model,) = (x for x in ast.parse(source).body if isinstance(x, ast.ClassDef))
    tables = {
        x.targets[0].id: ast.literal_eval(x.value)
        for x in model.body
        if isinstance(x, ast.Assign)
    }
    names = tables["attribute_map"]
    required = re.findall(r"Invalid value for `(\w+)`, must not be `None`", source)
    return model.name, {
        "fields": {names[k]: kind for k, kind in tables["openapi_types"].items()},
        "required": sorted(names[k] for k in required),
    }


def main(wheel):
    with zipfile.ZipFile(wheel) as files:
        models = dict(
            read(files.read(name).decode())
            for name in files.namelist()
            if re.fullmatch(r"kserve/models/(v1|knative)\w+\.py", name)
        )
    kept, todo = {}, list(ROOTS)
    while todo:
        name = todo.pop()
        if name in models and name not in kept:
            kept[name] = models[name]
            for kind in models[name]["fields"].values():
                todo += re.findall(r"\w+", kind)
    content = {"source": Path(wheel).name, "models": dict(sorted(kept.items()))}
    file = Path(__file__).parents[1] / "tests/data/kserve_models.json"
    file.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{len(kept)} models in {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
