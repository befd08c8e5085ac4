"""A real S3 server on this machine (moto's), for what is promised of S3: requests go over HTTP and may be refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from uuid import uuid4

import httpx

from tests.servers import skip_loudly

NEEDED = ("s3fs", "moto", "flask_cors")


@dataclass(frozen=True)
class S3Server:
    """Where it answers."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be let in."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "sesame",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def new_bucket(self) -> str:
        """The name of an empty one."""
        name = f"bucket-{uuid4().hex[:12]}"
        httpx.put(f"{self.url}/{name}").raise_for_status()
        return name

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Within the block nobody's credentials are good."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0").raise_for_status()
        try:
            yield
        finally:
            httpx.post(f"{self.url}/moto-api/reset-auth", content=b"inf").raise_for_status()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """One that is stopped afterwards; a loud skip where what it is made of is not installed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        skip_loudly(f"S3: {', '.join(missing)} not installed")
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    S3FileSystem.clear_instance_cache()  # another module's file systems know the address of its server
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
