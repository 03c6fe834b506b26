"""What a run leaves behind, and what it tells nobody."""

from run_log import RunLog


def test_the_program_that_knows_the_commit_gets_no_keys(monkeypatch, tmp_path):
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\necho 0123abcd\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789abcdef")
    log = RunLog(tmp_path, "run", {})
    log.close()
    assert '"commit": "0123abcd"' in (log.directory / "config.json").read_text()
    assert "sk-secret" not in (tmp_path / "environment").read_text()
