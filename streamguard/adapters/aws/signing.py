"""Signatures of AWS requests (SigV4), by botocore: the extra `bedrock`.

In charge of credentials, which botocore finds where AWS's own tools do, and of the headers that a signed request bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamguard.errors import ConfigError
from streamguard.files.extras import needs

SERVICE: Final = "bedrock"
"""The service's name in the signature."""


class Signer:
    """Signs requests to one region. Used by any thread.

    :param region: such as `us-east-1`.
    :param credentials: botocore's; by default those of the environment, the configuration or the machine's role.
    :raises ConfigError: botocore is not installed, or there are no credentials.
    """

    def __init__(self, region: str, *, credentials: Any = None) -> None:
        with needs("signing requests for AWS", "bedrock"):
            from botocore.session import Session
        self._region = region
        self._credentials = credentials or Session().get_credentials()
        if self._credentials is None:
            raise ConfigError(
                "there are no AWS credentials to sign requests with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "or a profile, or use a bearer key (key_env: AWS_BEARER_TOKEN_BEDROCK)"
            )

    def headers(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, str]:
        """Return the headers that sign a request. May ask AWS for fresh credentials, so not in an event loop.

        :param headers: those of the request that are signed, too.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method=method, url=url, headers=dict(headers), data=content)
        SigV4Auth(self._credentials.get_frozen_credentials(), SERVICE, self._region).add_auth(request)
        return {
            name: request.headers[name]
            for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
            if name in request.headers
        }
