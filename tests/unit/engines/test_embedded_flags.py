import pytest

from ai_proxy.engines.llamacpp_embedded import parse


def test_the_flags_of_llama_server_are_understood() -> None:
    line = "-m a.gguf --host 0.0.0.0 --port 9 -a x,y -c 512 -np 2 -t 3 -ngl all"
    more = "--api-key k -fa on --no-mmap --jinja"
    assert parse([*line.split(), *more.split()]) == {
        "model.path": "a.gguf",
        "hostnames": ["0.0.0.0"],
        "port": 9,
        "model_alias": {"x", "y"},
        "n_ctx": 512,
        "n_parallel": 2,
        "cpuparams.n_threads": 3,
        "n_gpu_layers": 9999,
        "api_keys": ["k"],
        "flash_attn_type": "enabled",
        "load_mode": "none",
        "use_jinja": True,
    }


def test_an_unknown_flag_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SystemExit) as refusal:
        parse(["-m", "a.gguf", "--rope-scaling", "yarn"])
    assert "--rope-scaling" in str(refusal.value)
    assert "--ctx-size" in str(refusal.value)


def test_a_word_outside_a_flags_choices_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--pooling", "median"])
    assert "must be one of none, mean, cls, last, rank" in capsys.readouterr().err
