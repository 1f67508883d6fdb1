"""The TypeScript client: built from what is checked in, against the real service, beside the Python client."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from resad_client import Client

import service.routes
from tests.service.running import Served

NODE_REASON = "there is no Node.js 18 or newer with npm (apt-get install nodejs npm)"
PACKAGE = Path(__file__).parents[2] / "clients/typescript"
SERVED = Path(service.routes.__file__).parent / "web/client"


def in_package(*words: str, **variables: str) -> str:
    process = subprocess.run(
        words, cwd=PACKAGE, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="session")
def package() -> Path:
    """The package, built by what its lock file says."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip(NODE_REASON)
    version = subprocess.run(("node", "--version"), capture_output=True, text=True, check=True).stdout
    if int(version.strip().lstrip("v").split(".")[0]) < 18:
        pytest.skip(NODE_REASON)
    installed_lock, lock = PACKAGE / "node_modules/.package-lock.json", PACKAGE / "package-lock.json"
    if not installed_lock.is_file() or installed_lock.stat().st_mtime < lock.stat().st_mtime:
        in_package("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    in_package("npm", "run", "prepack")
    return PACKAGE


def test_the_page_s_modules_are_what_the_sources_give(package: Path) -> None:
    """They are the package's modules: `tsconfig.page.json` only leaves the declarations away."""
    options = json.loads((package / "tsconfig.page.json").read_text())["compilerOptions"]
    assert options.keys() == {"declaration", "outDir"}
    names = [path.with_suffix(".js").name for path in (package / "src").glob("*.ts")]
    built = {name: (package / "dist" / name).read_text() for name in names}
    assert {path.name: path.read_text() for path in SERVED.iterdir()} == built, (
        "run: npm run build (in clients/typescript)"
    )


def test_types_are_those_of_the_contract(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "openapi.ts"
    contract = Path(service.routes.__file__).with_name("openapi.json")
    in_package("node_modules/.bin/openapi-typescript", str(contract), "--output", str(out), "--immutable")
    assert out.read_text() == (package / "src/openapi.ts").read_text(), (
        "run: npm run build (in clients/typescript)"
    )


def test_node_s_own_tests(package: Path, web_service: Served, lesion: Path) -> None:
    """Each file by itself, together with the types: much of their time is waiting."""
    variables = {"RESAD_URL": web_service.url, "RESAD_PHOTO": str(lesion)}
    files = sorted(str(path.relative_to(package)) for path in (package / "test").glob("*.test.js"))
    assert len(files) > 1
    with ThreadPoolExecutor() as pool:
        types = pool.submit(in_package, "npm", "run", "check")
        outputs = list(pool.map(lambda file: in_package("node", "--test", file, **variables), files))
        types.result()
    for output in outputs:
        assert "fail 0" in output
        assert "skipped 0" in output, output


def test_the_two_clients_get_the_same_answers(
    package: Path, web_service: Served, lesion: Path, tmp_path: Path
) -> None:
    script = """
        import { readFile, writeFile } from "node:fs/promises";
        const [url, photo, client_module] = process.argv.slice(2);
        const { Client } = await import(client_module);
        const client = new Client(url);
        const bytes = await readFile(photo);
        const result = await client.score(bytes, { fpr: 0.2, evidence: 3 });
        const { width, height, values } = await client.anomalyMap(bytes);
        await writeFile("map.bin", new Uint8Array(values.buffer));
        console.log(JSON.stringify({ result, shape: [height, width] }));
    """
    (tmp_path / "ask.mjs").write_text(script)
    client_module = (package / "dist/index.js").as_uri()
    process = subprocess.run(
        ("node", "ask.mjs", web_service.url, str(lesion), client_module),
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    output = json.loads(process.stdout)
    with Client(web_service.url) as client:
        result = client.score(lesion, fpr=0.2, evidence=3)
        values = client.anomaly_map(lesion).values
    assert output["result"]["image_score"] == pytest.approx(result.image_score, rel=1e-4)
    assert [finding["box"] for finding in output["result"]["findings"]] == [
        list(finding.box) for finding in result.findings
    ]
    node_values = np.frombuffer((tmp_path / "map.bin").read_bytes(), np.float32).reshape(output["shape"])
    np.testing.assert_allclose(node_values, values, rtol=1e-4)


def test_nothing_is_needed_at_run_time_and_nothing_runs_at_installation() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    assert "dependencies" not in package
    lock = json.loads((PACKAGE / "package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if entry.get("hasInstallScript")] == []
    assert all(entry.get("integrity") for name, entry in lock["packages"].items() if name)
