"""A subscriber of Redis' channels with a connection of its own."""

from collections.abc import Sequence

from penstock.domain.errors import QueueUnavailable
from penstock.queue.redis import RedisDoor, heed_cancellation, is_away


class Listener:
    def __init__(self, door: RedisDoor) -> None:
        self._client = door.listening_client()
        self._pubsub = self._client.pubsub()

    async def connect(self, channels: Sequence[str]) -> None:
        """Starts over with these channels."""
        try:
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]
            self._pubsub = self._client.pubsub()
            await self._pubsub.subscribe(*channels)
        except Exception as error:
            raise _away(error) from error
        finally:
            heed_cancellation()

    async def want(self, channel: str, *, wanted: bool) -> None:
        """Adds or drops a channel on the connection that stands."""
        change = self._pubsub.subscribe if wanted else self._pubsub.unsubscribe
        try:
            await change(channel)
        except Exception as error:
            raise _away(error) from error
        finally:
            heed_cancellation()

    async def next(self) -> tuple[str, bytes]:
        """The next message; waits as long as it takes."""
        while True:
            try:
                message = await self._pubsub.get_message(
                    ignore_subscribe_messages=True, timeout=None
                )
            except Exception as error:
                raise _away(error) from error
            finally:
                heed_cancellation()
            if message is not None:
                return message["channel"].decode(), message["data"]

    async def close(self) -> None:
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._client.aclose()


def _away(error: Exception) -> Exception:
    return QueueUnavailable(str(error)) if is_away(error) else error
