"""What the document says of the calls about settings: see `openapi_calls`."""

from collections.abc import Mapping

from penstock.api import config
from penstock.api import config_shapes as shapes
from penstock.api.openapi_parts import Call, Gives
from penstock.api.routes import Handler

CALLS_OF_CONFIG: Mapping[Handler, Call] = {
    config.show: Call(
        "showConfig",
        "settings",
        "Look at the settings",
        "Every setting of the replica that answers, with its source; secrets are masked. Where what"
        " was read last was refused, `refused` says why, and older settings count. They are of the "
        "whole server: an admin whose token is limited to queues sees them too, but of what is set "
        "for single queues (`queues.<name>`) only that of his own.",
        {200: Gives("The settings.", shapes.Config)},
    ),
    config.reload: Call(
        "reloadConfig",
        "settings",
        "Read the settings again",
        "Has every replica read its settings again, which it also does by itself: when a file "
        "changes, and every `config.poll_s`. All of them count at once or none does. The answer is "
        "that of the replica that was asked, within 20 s: where what settings come from (files, "
        "SSM) hangs for so long, it says so and the old ones count.",
        {200: Gives("What changed, and what waits for a restart.", shapes.Reloaded)},
        problems=("settings-refused",),
    ),
}
