"""The set-up: what is installed is pinned and complete, and `run.sh setup` survives what happens on real machines."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

from run_sh_sandbox import PROJECT, Sandbox

ROOMS = ("search", "reward_code", "tasks", "workers", "runs", "figures", "sweeps")
SOURCES = sorted(
    [
        *PROJECT.glob("*.py"),
        *(path for folder in (*ROOMS, "tests", "benchmarks") for path in (PROJECT / folder).rglob("*.py")),
    ]
)


def requirements(file, **environment):
    lines = (line.split("#")[0].strip() for line in (PROJECT / file).read_text().splitlines())
    parsed = [Requirement(line) for line in lines if line]
    return [r for r in parsed if r.marker is None or r.marker.evaluate(environment)]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_package_is_pinned_once_for_every_python(python):
    wanted = requirements("requirements.txt", python_version=python)
    names = [r.name for r in wanted]
    assert len(names) == len(set(names)) >= 15
    assert all(
        len(r.specifier) == 1 and str(r.specifier).startswith("==") and "*" not in str(r.specifier) for r in wanted
    )


def test_what_is_installed_is_what_is_pinned():
    for r in requirements("requirements.txt"):
        assert r.specifier.contains(importlib.metadata.version(r.name)), r


def test_conda_users_get_the_same_pins():
    lines = [line.strip("- ") for line in (PROJECT / "environment.yaml").read_text().splitlines()]
    assert "name: LaRes" in lines
    assert lines[-1] == "r requirements.txt"
    assert not any(r.name in line for line in lines for r in requirements("requirements.txt"))


def test_every_import_is_a_direct_requirement():
    """What works only because another package happens to bring it breaks with that package's next release."""
    distributions = importlib.metadata.packages_distributions()
    known = {name for path in SOURCES for name in (path.stem, path.parent.name)} | set(sys.stdlib_module_names)
    declared = {r.name for r in requirements("requirements.txt")}
    for path in SOURCES:
        allowed = declared | {"packaging"}  # of pytest, and only needed beside it
        if path.parent.name == "benchmarks":
            allowed |= {r.name for r in requirements("benchmarks/requirements.txt")}
        if path.parent.name == "sweeps":
            allowed |= {r.name for r in requirements("sweeps/requirements.txt")}
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - known:
                brought_by = {name.replace("_", "-").lower() for name in distributions.get(top, [top])}
                assert brought_by & allowed, f"{path.name} imports {top}"


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


def test_the_second_start_installs_nothing(sandbox, tmp_path):
    first = sandbox.run("setup", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert sandbox.calls("^python3 -m venv .venv")
    assert sandbox.calls("^python -m pip install .*-r requirements.txt")
    sandbox.forget_calls()
    second = sandbox.run("setup")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert not sandbox.calls("-m")


def test_changed_requirements_are_installed_into_the_same_venv(sandbox):
    sandbox.run("setup")
    sandbox.forget_calls()
    with open(sandbox.project / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    assert sandbox.run("setup").returncode == 0
    assert sandbox.calls("-m pip install")
    assert not sandbox.calls("-m venv")


def test_a_half_finished_set_up_is_made_anew(sandbox):
    failed = sandbox.run("setup", PIP_FAILS="1")
    assert failed.returncode == 1
    assert "no network" in failed.stderr
    assert "the installation failed" in failed.stderr
    left_over = sandbox.project / ".venv" / "half a package"
    left_over.touch()
    sandbox.forget_calls()
    assert sandbox.run("setup").returncode == 0
    assert not left_over.exists()
    assert sandbox.calls("-m venv")


def test_an_interrupted_update_is_made_anew(sandbox):
    sandbox.run("setup")
    with open(sandbox.project / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    assert sandbox.run("setup", PIP_FAILS="1").returncode == 1
    sandbox.forget_calls()
    assert sandbox.run("setup").returncode == 0
    assert sandbox.calls("-m venv")


def test_a_venv_whose_python_is_gone_is_made_anew(sandbox):
    sandbox.run("setup")
    (sandbox.project / ".venv" / "bin" / "python").unlink()
    assert sandbox.run("setup").returncode == 0
    assert os.access(sandbox.project / ".venv" / "bin" / "python", os.X_OK)


def test_python_is_chosen_by_its_variable(sandbox, tmp_path):
    other = tmp_path / "other place" / "python3.13"
    other.parent.mkdir()
    sandbox.run("setup")
    sandbox.forget_calls()
    sandbox.write(other, (sandbox.path / "python3").read_text().replace("FAKE_VERSION:-", "FAKE_VERSION:=3.13.77"))
    assert sandbox.run("setup", PYTHON=str(other)).returncode == 0
    assert sandbox.calls(r"^python3\.13 -m venv")
    sandbox.forget_calls()
    assert sandbox.run("setup").returncode == 0  # what was chosen once stays
    assert not sandbox.calls("-m venv")


def test_an_unsuitable_choice_of_python_leaves_the_venv_alone(sandbox):
    sandbox.run("setup")
    refused = sandbox.run("setup", PYTHON="python2.7")
    assert refused.returncode == 1
    assert (
        refused.stderr == "run.sh: PYTHON=python2.7 is not a Python 3.10 to 3.13; give the path of one, or unset it\n"
    )
    sandbox.forget_calls()
    assert sandbox.run("setup").returncode == 0
    assert not sandbox.calls("-m")


@pytest.mark.parametrize("version", ["3.9.18", "3.14.0", "2.7.18"])
def test_without_a_suitable_python_one_line_says_what_to_do(sandbox, version):
    refused = sandbox.run("setup", FAKE_VERSION=version)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "found no Python 3.10 to 3.13; install one, or say where it is: PYTHON=" in refused.stderr
    assert not (sandbox.project / ".venv").exists()


def test_without_the_venv_module_the_message_names_the_package(sandbox):
    refused = sandbox.run("setup", VENV_FAILS="1")
    assert refused.returncode == 1
    assert "apt install python3-venv" in refused.stderr


def test_uv_installs_when_it_is_there(sandbox):
    sandbox.add_uv()
    assert sandbox.run("setup").returncode == 0
    assert sandbox.calls("^uv pip install .*--python .venv/bin/python -r requirements.txt")
    assert not sandbox.calls("-m pip")


def test_pip_takes_over_when_uv_fails(sandbox):
    sandbox.add_uv()
    assert sandbox.run("setup", UV_PIP_EXIT="2").returncode == 0
    assert sandbox.calls("^uv pip install")
    assert sandbox.calls("^python -m pip install")


def test_uv_makes_the_venv_where_python_cannot(sandbox):
    sandbox.add_uv()
    assert sandbox.run("setup", VENV_FAILS="1").returncode == 0
    assert sandbox.calls("^uv venv --seed --python python3 .venv")


def test_uv_brings_a_python_where_there_is_none(sandbox):
    sandbox.add_uv()
    (sandbox.path / "python3").rename(sandbox.path / "hidden")
    uv = sandbox.path / "tools" / "uv"
    sandbox.write(uv, uv.read_text().replace("../python3", "../hidden"))
    done = sandbox.run("setup")
    assert done.returncode == 0, done.stderr
    assert sandbox.calls("^uv venv --seed --python 3.12 .venv")


def test_the_lock_holds_every_pin_and_a_hash_of_every_package():
    lines = (PROJECT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    locked = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(locked) > 100
    assert all(" --hash=sha256:" in line for line in locked)
    for python in ("3.10", "3.11", "3.12", "3.13"):
        environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
        found = {}
        for requirement in (Requirement(line.split(" --hash")[0]) for line in locked):
            if requirement.marker is None or requirement.marker.evaluate(environment):
                assert requirement.name not in found
                found[requirement.name] = str(requirement.specifier)
        for pin in requirements("requirements.txt", python_version=python):
            assert found[pin.name] == str(pin.specifier)


def test_an_editable_installation_offers_every_module_and_takes_nobodys_name(tmp_path):
    project, site = tmp_path / "project", tmp_path / "site"
    project.mkdir()
    for path in (
        *PROJECT.glob("*.py"),
        *(PROJECT / name for name in ("README.md", "pyproject.toml", "requirements.txt")),
    ):
        shutil.copy(path, project)
    for room in ROOMS:
        shutil.copytree(PROJECT / room, project / room)
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=project, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    names = {path.stem for path in PROJECT.glob("*.py")} | set(ROOMS)
    others = importlib.metadata.packages_distributions()
    assert not {name for name in names if set(others.get(name, [])) - {"lares"}}
    look = "import site, sys, importlib.util as u; site.addsitedir(sys.argv[1]); "
    look += "print(*(u.find_spec(name).origin for name in sys.argv[2:]), sep='\\n')"
    command = [sys.executable, "-c", look, str(site), *sorted(names)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert [line.startswith(f"{project}/") for line in done.stdout.splitlines()] == [True] * len(names)
    [metadata] = site.glob("*.dist-info/METADATA")
    needed = {line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist: ")}
    assert {line for line in needed if "extra ==" in line} == {'Requires-Dist: ray==2.60.0; extra == "cluster"'}
    assert len(needed) - 1 == len(
        [line for line in (PROJECT / "requirements.txt").read_text().splitlines() if "==" in line]
    )
