"""What a run leaves behind, and what it tells nobody."""

from runs.log import RunLog


def test_the_programs_that_know_the_commit_and_the_host_get_no_keys(monkeypatch, tmp_path):
    for name in ("git", "uname"):  # Python's platform module asks the second
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nenv >> {tmp_path}/environment\necho 0123abcd\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789abcdef")
    log = RunLog(tmp_path, "run", {})
    log.close()
    assert '"commit": "0123abcd"' in (log.directory / "config.json").read_text()
    assert "sk-secret" not in (tmp_path / "environment").read_text()
